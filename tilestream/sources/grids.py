"""What an xarray object says of its place: CRS, affine and pixel size, without rioxarray."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tilestream.sources.crs import is_metric, short_crs

if TYPE_CHECKING:
    import xarray as xr  # 0.15 s, and files that are opened do without it

Affine: TypeAlias = tuple[float, float, float, float, float, float]

UM_PER_UNIT = {
    **dict.fromkeys(("micrometer", "micrometre", "micron", "microns", "um", "µm", "μm"), 1.0),
    **dict.fromkeys(("nanometer", "nanometre", "nm"), 1e-3),
    **dict.fromkeys(("millimeter", "millimetre", "mm"), 1e3),
    **dict.fromkeys(("centimeter", "centimetre", "cm"), 1e4),
    **dict.fromkeys(("meter", "metre", "m"), 1e6),
    **dict.fromkeys(("angstrom",), 1e-4),
    **dict.fromkeys(("inch",), 25_400.0),
}
"""Micrometres in a unit of length, by its UDUNITS name or symbol."""

EVEN = 1e-3
"""How far a coordinate may lie from an even grid, as a share of a step: float32 coordinates of a scene do."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where pixels lie; None where nothing is said."""

    crs: str | None = None
    """`EPSG:n` or WKT."""
    affine: Affine | None = None
    """From pixel corners."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per pixel; None for scenes, whose pixel size is that of their affine."""


def um_per_unit(unit: object) -> float | None:
    """Return the micrometres in a unit of length, None for an unknown unit (`pixel`, none at all).

    Parameters
    ----------
    unit : object
        Name or symbol.

    Returns
    -------
    float or None
        Micrometres.
    """
    if not isinstance(unit, str):
        return None
    text = unit.strip()
    return UM_PER_UNIT.get(text if text in UM_PER_UNIT else text.lower())


def gsd_of(crs: str | None, affine: Affine | None) -> tuple[float, float] | None:
    """Return metres per pixel of a georeferenced image in metres, None for any other.

    Parameters
    ----------
    crs : str or None
        Coordinate reference system.
    affine : tuple or None
        Pixel-corner affine.

    Returns
    -------
    tuple of float, float, or None
        Along y and x, rotation included.
    """
    if affine is None or not is_metric(crs):
        return None
    a, b, _, d, e, _ = affine
    return float(np.hypot(b, e)), float(np.hypot(a, d))


def grid_of(data: xr.DataArray) -> Grid:
    """Return the place that an xarray object states.

    Parameters
    ----------
    data : DataArray
        CF `grid_mapping` (`crs_wkt`, `spatial_ref`, `GeoTransform`), the GeoZarr attributes `proj:code`, `proj:wkt2`
        and `spatial:transform`, or evenly spaced x and y coordinates, which are pixel centres.

    Returns
    -------
    Grid
        CRS, affine and pixel size.
    """
    mapping = _mapping(data)
    text = _first(data.attrs, "proj:code", "proj:wkt2") or _first(mapping, "crs_wkt", "spatial_ref")
    text = text or _first(data.attrs, "crs")
    crs = short_crs(text) if text else None
    affine = _stated(data.attrs, mapping) or _from_coords(data)
    if crs is None and affine is not None:
        # coordinates that carry a unit of length, as microscopes write them; scenes have a CRS and no mpp
        units = [um_per_unit(data.coords[name].attrs.get("units")) for name in _axes(data)]
        if len(units) == 2 and units[0] and units[1]:
            return Grid(mpp_yx=(abs(affine[4]) * units[0], abs(affine[0]) * units[1]))
    return Grid(crs=crs, affine=affine if crs else None)


def _first(attrs: Any, *names: str) -> str | None:
    return next((attrs[name] for name in names if isinstance(attrs.get(name), str) and attrs[name]), None)


def _mapping(data: xr.DataArray) -> dict[str, Any]:
    name = data.encoding.get("grid_mapping") or data.attrs.get("grid_mapping") or "spatial_ref"
    return dict(data.coords[name].attrs) if name in data.coords else {}


def _stated(attrs: Any, mapping: dict[str, Any]) -> Affine | None:
    try:
        if "spatial:transform" in attrs:
            a, b, c, d, e, f = (float(value) for value in attrs["spatial:transform"][:6])
            return a, b, c, d, e, f
        if "GeoTransform" in mapping:  # GDAL's order
            c, a, b, f, d, e = (float(value) for value in str(mapping["GeoTransform"]).split())
            return a, b, c, d, e, f
    except (TypeError, ValueError):
        return None  # not six numbers: the coordinates may still tell
    return None


def _axes(data: xr.DataArray) -> list[Hashable]:
    y = [name for name in data.dims if str(name).lower() in ("y", "lat", "latitude", "northing")]
    x = [name for name in data.dims if str(name).lower() in ("x", "lon", "longitude", "easting")]
    return [*y, *x] if len(y) == len(x) == 1 and y[0] in data.coords and x[0] in data.coords else []


def _from_coords(data: xr.DataArray) -> Affine | None:
    steps = [_even(np.asarray(data.coords[name].values)) for name in _axes(data)]
    if len(steps) != 2 or steps[0] is None or steps[1] is None:
        return None
    (y0, dy), (x0, dx) = steps[0], steps[1]
    return dx, 0.0, x0 - dx / 2, 0.0, dy, y0 - dy / 2


def _even(values: Any) -> tuple[float, float] | None:
    """Return the first value and the step of an even 1-D grid, None for any other."""
    if values.ndim != 1 or len(values) < 2 or values.dtype.kind not in "iuf":
        return None
    values = values.astype(np.float64)
    step = (values[-1] - values[0]) / (len(values) - 1)
    ideal = values[0] + step * np.arange(len(values))
    if step == 0 or not np.all(np.abs(values - ideal) <= EVEN * abs(step)):
        return None
    return float(values[0]), float(step)
