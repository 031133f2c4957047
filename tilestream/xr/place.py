"""Where the pixels of a level lie: their grids along y and x, the units, and the CF grid mapping of a CRS."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from tilestream.sources.crs import is_metric
from tilestream.sources.grids import Affine
from tilestream.types import ImageInfo, PlanLevel
from tilestream.xr.grid import PixelGrid


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of one level."""

    y: PixelGrid | None
    """Centres of rows; None for a rotated scene, which has no coordinate along an axis."""
    x: PixelGrid | None
    """Centres of columns."""
    y_attrs: Mapping[str, str] = field(default_factory=dict)
    """Attributes of the coordinate, with `units` where they are known."""
    x_attrs: Mapping[str, str] = field(default_factory=dict)
    """Attributes of the coordinate."""
    grid_mapping: Mapping[str, Any] | None = None
    """Attributes of `spatial_ref`; None without a CRS."""


def place_of(info: ImageInfo, level: PlanLevel, *, corner_yx: tuple[float, float] = (0.0, 0.0)) -> Place:
    """Return where the pixels of a level lie.

    Parameters
    ----------
    info : ImageInfo
        The image.
    level : PlanLevel
        Stored or virtual level.
    corner_yx : tuple of float
        Where its first pixel begins, pixels of level 0.

    Returns
    -------
    Place
        Coordinates in the units of the CRS; else in micrometres from the image's corner; else in pixels of level 0
        from there.
    """
    (scale_y, scale_x), (corner_y, corner_x) = level.scale_yx, corner_yx
    if info.crs is not None and info.affine is not None:
        affine = scaled(info.affine, level.scale_yx, corner_yx)
        a, b, c, d, e, f = affine
        mapping = grid_mapping(info.crs, affine)
        if b or d:
            return Place(y=None, x=None, grid_mapping=mapping)
        y_attrs, x_attrs = _crs_parts(info.crs)[1:]
        rows, columns = _grid(info, f, e, level.shape.y), _grid(info, c, a, level.shape.x)
        return Place(y=rows, x=columns, y_attrs=y_attrs, x_attrs=x_attrs, grid_mapping=mapping)
    stated = None
    if info.crs is not None:
        stated = {**_crs_parts(info.crs)[0], **_control_points(info, level, corner_yx)}
    mpp_y, mpp_x = info.mpp_yx or (1.0, 1.0)
    unit = "pixel" if info.mpp_yx is None else "micrometer"
    return Place(
        y=_grid(info, corner_y * mpp_y, mpp_y * scale_y, level.shape.y),
        x=_grid(info, corner_x * mpp_x, mpp_x * scale_x, level.shape.x),
        y_attrs={"axis": "Y", "units": unit, "long_name": "distance from the top edge"},
        x_attrs={"axis": "X", "units": unit, "long_name": "distance from the left edge"},
        grid_mapping=stated,
    )


def scaled(affine: Affine, scale_yx: tuple[float, float], corner_yx: tuple[float, float] = (0.0, 0.0)) -> Affine:
    """Return the pixel-corner affine of a level.

    Parameters
    ----------
    affine : tuple of 6 float
        That of level 0.
    scale_yx : tuple of float
        Size of a pixel, pixels of level 0.
    corner_yx : tuple of float
        Where the first pixel begins, pixels of level 0.

    Returns
    -------
    tuple of 6 float
        From pixel corners of the level.
    """
    a, b, c, d, e, f = affine
    (scale_y, scale_x), (y, x) = scale_yx, corner_yx
    return a * scale_x, b * scale_y, a * x + b * y + c, d * scale_x, e * scale_y, d * x + e * y + f


def grid_mapping(crs: str, affine: Affine) -> dict[str, Any]:
    """Return the attributes of a CF grid mapping variable, as GDAL and rioxarray read them.

    Parameters
    ----------
    crs : str
        `EPSG:n`, WKT or PROJJSON text.
    affine : tuple of 6 float
        From pixel corners.

    Returns
    -------
    dict
        `crs_wkt` (the text as given without pyproj, which readers take too), `GeoTransform` and the CF parameters.
    """
    a, b, c, d, e, f = affine
    return {**_crs_parts(crs)[0], "GeoTransform": " ".join(repr(float(number)) for number in (c, a, b, f, d, e))}


def _grid(info: ImageInfo, corner: float, pitch: float, size: int) -> PixelGrid:
    return PixelGrid(corner=corner, pitch=pitch, cells=range(size), image=info.fingerprint)


@lru_cache(maxsize=64)  # parsing a CRS takes milliseconds, and every level asks
def _crs_parts(crs: str) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return the attributes of the grid mapping, of y and of x."""
    y, x = {"axis": "Y"}, {"axis": "X"}
    try:
        from pyproj import CRS
        from pyproj.exceptions import CRSError
    except ImportError:  # an extra; the text itself is what readers with pyproj need
        if is_metric(crs):
            y, x = {**y, "units": "metre"}, {**x, "units": "metre"}
        return {"crs_wkt": crs, "spatial_ref": crs}, y, x
    try:
        known = CRS.from_user_input(crs)
    except CRSError:
        return {"crs_wkt": crs, "spatial_ref": crs}, y, x
    mapping = {"spatial_ref": known.to_wkt(), **known.to_cf()}
    by_axis = {str(axis.get("axis")): {key: str(value) for key, value in axis.items()} for axis in known.cs_to_cf()}
    return mapping, by_axis.get("Y", y), by_axis.get("X", x)


def _control_points(info: ImageInfo, level: PlanLevel, corner_yx: tuple[float, float]) -> dict[str, str]:
    """Return ground control points as rioxarray writes them, in pixels of the level."""
    if not info.gcps:
        return {}
    (scale_y, scale_x), (y0, x0) = level.scale_yx, corner_yx
    features = [
        {
            "type": "Feature",
            "properties": {"id": str(number), "info": "", "row": (row - y0) / scale_y, "col": (col - x0) / scale_x},
            "geometry": {"type": "Point", "coordinates": [x, y, z] if math.isfinite(z) else [x, y]},
        }
        for number, (row, col, x, y, z) in enumerate(info.gcps, 1)
    ]
    return {"gcps": json.dumps({"type": "FeatureCollection", "features": features})}
