"""Where a GeoTIFF lies on Earth: its affine or ground control points, and its coordinate reference system.

References
----------
OGC 19-008r4, GeoTIFF 1.1, sections 7.1 to 7.5 and annex B.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tilestream.sources.tiffifd import Ifd

Affine: TypeAlias = tuple[float, float, float, float, float, float]
Gcp: TypeAlias = tuple[float, float, float, float, float]

_USER = 32767
_METHODS = {
    1: "tmerc", 7: "merc", 8: "lcc", 9: "lcc", 10: "laea", 11: "aea", 12: "aeqd", 15: "stere", 16: "sterea", 17: "eqc",
    20: "gnom", 21: "mill", 22: "ortho", 24: "sinu", 28: "cea",
}  # fmt: skip
_PARAMETERS = {
    3078: "lat_1", 3079: "lat_2", 3080: "lon_0", 3081: "lat_0", 3082: "x_0", 3083: "y_0", 3084: "lon_0", 3085: "lat_0",
    3086: "x_0", 3087: "y_0", 3088: "lon_0", 3089: "lat_0", 3092: "k_0", 3093: "k_0", 3095: "lon_0",
}  # fmt: skip
_UNITS = {9001: "m", 9002: "ft", 9003: "us-ft"}


@dataclass(frozen=True, kw_only=True)
class GeoReference:
    """What a directory says about its place."""

    affine: Affine | None = None
    """Corner-based affine of level 0."""
    crs: str | None = None
    """`EPSG:n` or WKT2."""
    gcps: tuple[Gcp, ...] = ()
    """Ground control points `(row, col, x, y, z)`."""
    notes: tuple[str, ...] = ()
    """What could not be expressed."""

    @property
    def exists(self) -> bool:
        """Return whether the image is georeferenced at all."""
        return self.affine is not None or self.crs is not None or bool(self.gcps)


def read_georeference(ifd: Ifd) -> GeoReference:
    """Return affine, control points and CRS of a directory.

    Parameters
    ----------
    ifd : Ifd
        Directory of level 0.

    Returns
    -------
    GeoReference
        Empty when the directory holds no such tags.

    Raises
    ------
    SourceError
        When the tags point outside the file.
    """
    keys = _keys(ifd)
    shift = 0.5 if keys.get(1025) == 2 else 0.0  # PixelIsPoint: positions are those of pixel centres
    affine = _affine(ifd, shift)
    gcps = _gcps(ifd, shift) if affine is None else ()
    crs, notes = _crs(keys)
    return GeoReference(affine=affine, crs=crs, gcps=gcps, notes=notes)


def _affine(ifd: Ifd, shift: float) -> Affine | None:
    matrix, scale, ties = ifd.floats(34264), ifd.floats(33550), ifd.floats(33922)
    if len(matrix) >= 8 and any(matrix[:2]):
        a, b, c, d, e, f = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    elif len(scale) >= 2 and scale[0] and scale[1] and len(ties) >= 6:
        a, b, d, e = scale[0], 0.0, 0.0, -abs(scale[1])
        c, f = ties[3] - ties[0] * a, ties[4] - ties[1] * e
    else:
        return None
    return a, b, c - shift * (a + b), d, e, f - shift * (d + e)


def _gcps(ifd: Ifd, shift: float) -> tuple[Gcp, ...]:
    ties = ifd.floats(33922)
    points = [ties[at : at + 6] for at in range(0, len(ties) - 5, 6)]
    if len(points) < 2:
        return ()
    return tuple((row + shift, col + shift, x, y, z) for col, row, _, x, y, z in points)


def _keys(ifd: Ifd) -> dict[int, Any]:  # Any: a key holds an int, a float, floats or text
    directory, doubles, text = ifd.ints(34735), ifd.floats(34736), ifd.text(34737)
    keys: dict[int, Any] = {}
    for at in range(4, len(directory) - 3, 4):
        key, place, count, value = directory[at : at + 4]
        if place == 0:
            keys[key] = value
        elif place == 34736 and value + count <= len(doubles):
            keys[key] = doubles[value] if count == 1 else doubles[value : value + count]
        elif place == 34737:
            keys[key] = text[value : value + count].rstrip("|\0 ")
    return keys


def _crs(keys: Mapping[int, Any]) -> tuple[str | None, tuple[str, ...]]:
    model, projected, geographic = keys.get(1024), keys.get(3072), keys.get(2048)
    if model == 1 or (model is None and projected):
        code = projected if _is_code(projected) else _utm(keys)
        if code is not None:
            return f"EPSG:{code}", ()
    elif model == 2 or (model is None and geographic):
        if _is_code(geographic):
            return f"EPSG:{geographic}", ()
    elif model is None:
        return None, ()
    citation = next((keys[key] for key in (1026, 3073, 2049) if isinstance(keys.get(key), str)), "")
    wkt = _user_defined(keys, citation)
    if wkt is not None:
        return wkt, ()
    return None, (f"the coordinate system is user-defined and has no EPSG code ({citation or 'no citation'})",)


def _is_code(value: Any) -> bool:
    return isinstance(value, int) and 1024 <= value < _USER


def _utm(keys: Mapping[int, Any]) -> int | None:
    """Return the EPSG code of a UTM zone on WGS 84 that is given by its projection code only."""
    projection = keys.get(3074)
    if keys.get(2048) != 4326 or not isinstance(projection, int):
        return None
    if 16001 <= projection <= 16060:
        return 32600 + projection - 16000
    return 32700 + projection - 16100 if 16101 <= projection <= 16160 else None


def _user_defined(keys: Mapping[int, Any], citation: str) -> str | None:
    """Return WKT2 of a user-defined system when pyproj is there and knows what the keys say."""
    try:
        from pyproj import CRS
        from pyproj.exceptions import CRSError
    except ImportError:
        return None
    found = re.search(r"ESRI PE String\s*=\s*(.+)", citation, re.DOTALL)
    text = found[1] if found else _proj_text(keys)
    if text is None:
        return None
    try:
        crs = CRS.from_user_input(text)
    except CRSError:
        return None
    return str(crs.to_wkt("WKT2_2019"))


def _proj_text(keys: Mapping[int, Any]) -> str | None:
    method = _METHODS.get(keys.get(3075, 0))
    if method is None or keys.get(3076, 9001) not in _UNITS:
        return None
    parts = [f"+proj={method}"]
    for key, name in _PARAMETERS.items():
        if isinstance(keys.get(key), (int, float)) and not any(part.startswith(f"+{name}=") for part in parts):
            parts.append(f"+{name}={keys[key]!r}")
    ellipsoid = _ellipsoid(keys)
    if ellipsoid is None:
        return None
    return " ".join([*parts, ellipsoid, f"+units={_UNITS[keys.get(3076, 9001)]}", "+no_defs +type=crs"])


def _ellipsoid(keys: Mapping[int, Any]) -> str | None:
    geographic = keys.get(2048)
    known = {4326: "+datum=WGS84", 4269: "+datum=NAD83", 4267: "+datum=NAD27", 4258: "+ellps=GRS80"}
    if geographic in known:
        return known[geographic]
    major, minor, flattening = keys.get(2057), keys.get(2058), keys.get(2059)
    if isinstance(major, float) and isinstance(flattening, float):
        return f"+a={major!r} +rf={flattening!r}" if flattening else f"+R={major!r}"
    if isinstance(major, float) and isinstance(minor, float):
        return f"+a={major!r} +b={minor!r}"
    return None
