"""Metadata of a multiscale image that is OME-Zarr 0.5, GeoZarr and CF at the same time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tilestream.sources.crs import full_wkt, is_metric
from tilestream.types import Shape

Affine: TypeAlias = tuple[float, float, float, float, float, float]
Factor: TypeAlias = tuple[float, float]
"""Cells of the finest level in a cell of another, along y and x."""

# Conventions by name, as registered at https://geozarr.org/conventions; readers recognise them by UUID.
_CONVENTIONS: Mapping[str, tuple[str, str]] = {
    "multiscales": ("d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets"),
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information"),
    "proj": ("f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"),
}


@dataclass(frozen=True, kw_only=True)
class CellGrid:
    """Where the cells of a raster lie on the image that they describe."""

    shape: Shape
    """Cells of the finest level."""
    size_yx: tuple[float, float]
    """Size of a cell, level-0 pixels of the image."""
    corner_yx: tuple[float, float]
    """Top-left corner of the first cell, level-0 pixels from the image's corner."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per level-0 pixel."""
    crs: str | None = None
    """CRS of the affine."""
    affine: Affine | None = None
    """From pixel corners of level 0 to the CRS, or to some plane where no CRS is known."""

    @property
    def is_placed(self) -> bool:
        """Return whether the place in a CRS is known."""
        return self.crs is not None and self.affine is not None

    @property
    def pixel_yx(self) -> tuple[float, float]:
        """Return the size of a level-0 pixel in `unit`, always positive as viewers require."""
        if self.is_placed and self.affine is not None:
            a, b, _, d, e, _ = self.affine
            return math.hypot(b, e), math.hypot(a, d)
        return self.mpp_yx or (1.0, 1.0)

    @property
    def unit(self) -> str | None:
        """Return the UDUNITS name of the unit of places, None when unknown."""
        if self.is_placed:
            return "meter" if is_metric(self.crs) else None  # viewers refuse a wrong unit
        return None if self.mpp_yx is None else "micrometer"

    def scale_yx(self, factor: Factor = (1, 1)) -> tuple[float, float]:
        """Return the size of a cell of a level that is coarser by `factor`, in `unit`."""
        return tuple_yx(pixel * size * by for pixel, size, by in zip(self.pixel_yx, self.size_yx, factor, strict=True))

    def translation_yx(self, factor: Factor = (1, 1)) -> tuple[float, float]:
        """Return the place of the first cell's centre from the centre of the image's first pixel, in `unit`."""
        return tuple_yx(
            (corner + size * by / 2 - 0.5) * pixel
            for corner, size, pixel, by in zip(self.corner_yx, self.size_yx, self.pixel_yx, factor, strict=True)
        )

    def transform(self, factor: Factor = (1, 1)) -> Affine:
        """Return the affine from cell corners of a level to the CRS, else to `unit` from the image's corner."""
        pixel_y, pixel_x = self.pixel_yx
        a, b, c, d, e, f = self.affine or (pixel_x, 0, 0, 0, pixel_y, 0)
        (y, x), (height, width) = self.corner_yx, (n * by for n, by in zip(self.size_yx, factor, strict=True))
        return (a * width, b * height, a * x + b * y + c, d * width, e * height, d * x + e * y + f)


def tuple_yx(values: Any) -> tuple[float, float]:
    """Return two numbers as a tuple of floats."""
    y, x = values
    return float(y), float(x)


def ome_channel(
    label: str, *, color: str = "FFFFFF", window: tuple[float, float], active: bool = True
) -> dict[str, Any]:
    """Return one entry of `omero.channels`; a channel without colour and window breaks the format.

    Parameters
    ----------
    label : str
        Name of the channel.
    color : str
        Six hex digits.
    window : tuple of float
        Values shown as darkest and brightest.
    active : bool
        Whether viewers show it at first.

    Returns
    -------
    dict
        JSON values.
    """
    low, high = window
    return {
        "label": label,
        "color": color,
        "active": active,
        "window": {"min": low, "max": high, "start": low, "end": high},
    }


def ome_attributes(
    name: str,
    grid: CellGrid,
    factors: Sequence[Factor],
    *,
    channels: Sequence[dict[str, Any]],
    method: tuple[str, str],
    indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the `ome` attribute of the image group.

    Parameters
    ----------
    name : str
        Name of the image.
    grid : CellGrid
        Where the cells lie.
    factors : sequence of Factor
        Coarseness of each level, finest first.
    channels : sequence of dict
        As `ome_channel` gives them; empty for labels, which have none.
    method : tuple of str
        Name and description of how coarse levels are made.
    indices : sequence of int, optional
        Name of each level; 0, 1, 2 and on by default.

    Returns
    -------
    dict
        OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/ sections "multiscales" and "omero".

    Notes
    -----
    The origin of OME is the centre of the first pixel, so that a cell of n pixels begins at (n - 1)/2 of them.
    """
    unit = {} if grid.unit is None else {"unit": grid.unit}
    first = 1 if channels else 0  # whether there is a channel axis
    datasets = [
        {
            "path": f"{level}/image",
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0] * first + list(grid.scale_yx(factor))},
                {"type": "translation", "translation": [0.0] * first + list(grid.translation_yx(factor))},
            ],
        }
        for level, factor in zip(indices or range(len(factors)), factors, strict=True)
    ]
    axes = [{"name": "c", "type": "channel"}] * first
    axes += [{"name": axis, "type": "space", **unit} for axis in "yx"]
    kind, description = method
    document: dict[str, Any] = {
        "version": "0.5",
        "multiscales": [
            {
                "name": name,
                "type": kind,
                "metadata": {"description": description},
                "axes": axes,
                "datasets": datasets,
            }
        ],
    }
    if channels:
        is_rgb = [channel["color"] for channel in channels] == ["FF0000", "00FF00", "0000FF"]
        document["omero"] = {"channels": list(channels), "rdefs": {"model": "color" if is_rgb else "greyscale"}}
    return document


def geo_attributes(
    grid: CellGrid,
    shapes: Sequence[Shape],
    factors: Sequence[Factor],
    *,
    method: str = "average",
    indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return the GeoZarr attributes of the image group; `proj:` only where the place in a CRS is known.

    Parameters
    ----------
    grid : CellGrid
        Where the cells lie.
    shapes : sequence of Shape
        Cells of each level.
    factors : sequence of Factor
        Coarseness of each level, finest first.
    method : str
        How coarse levels are made.
    indices : sequence of int, optional
        Name of each level; 0, 1, 2 and on by default.

    Returns
    -------
    dict
        Attributes.
    """
    layout = []
    assets = list(indices or range(len(shapes)))
    for level, (shape, factor) in enumerate(zip(shapes, factors, strict=True)):
        entry: dict[str, Any] = {
            "asset": str(assets[level]),
            "spatial:shape": list(shape.yx),
            "spatial:transform": list(grid.transform(factor)),
        }
        if level:
            ratio = [own / finer for own, finer in zip(factor, factors[level - 1], strict=True)]
            entry |= {"derived_from": str(assets[level - 1]), "transform": {"scale": ratio, "translation": [0.0, 0.0]}}
        layout.append(entry)
    names = [name for name in _CONVENTIONS if name != "proj" or grid.is_placed]
    return {
        "zarr_conventions": [_convention(name) for name in names],
        "multiscales": {"layout": layout, "resampling_method": method},
        **place_attributes(grid, shapes[0], factors[0]),
    }


def place_attributes(grid: CellGrid, shape: Shape, factor: Factor) -> dict[str, Any]:
    """Return the GeoZarr attributes of one level; repeated on groups and arrays, since readers differ in inheriting.

    Parameters
    ----------
    grid : CellGrid
        Where the cells lie.
    shape : Shape
        Cells of the level.
    factor : Factor
        Its coarseness.

    Returns
    -------
    dict
        Attributes.
    """
    a, b, c, d, e, f = transform = grid.transform(factor)
    corners = [(a * x + b * y + c, d * x + e * y + f) for y in (0, shape.y) for x in (0, shape.x)]
    xs, ys = zip(*corners, strict=True)
    return {
        "spatial:dimensions": ["y", "x"],
        "spatial:registration": "pixel",
        "spatial:shape": list(shape.yx),
        "spatial:transform": list(transform),
        "spatial:bbox": [min(xs), min(ys), max(xs), max(ys)],
        **(_projection(grid.crs) if grid.crs is not None and grid.is_placed else {}),
    }


def grid_mapping_attributes(grid: CellGrid, factor: Factor, *, is_full: bool = False) -> dict[str, Any]:
    """Return the attributes of the CF grid mapping variable `spatial_ref` of one level.

    Parameters
    ----------
    grid : CellGrid
        Where the cells lie.
    factor : Factor
        Coarseness of the level.
    is_full : bool
        Whether codes are written out as WKT, which GDAL needs and rioxarray does not.

    Returns
    -------
    dict
        Attributes as GDAL and rioxarray read them.
    """
    crs = full_wkt(grid.crs) if is_full and grid.crs is not None else grid.crs
    a, b, c, d, e, f = grid.transform(factor)
    return {
        "crs_wkt": crs,
        "spatial_ref": crs,
        "GeoTransform": " ".join(repr(float(number)) for number in (c, a, b, f, d, e)),
    }


def _projection(crs: str) -> dict[str, Any]:
    if re.fullmatch(r"[A-Z]+:\w+", crs):
        return {"proj:code": crs}
    return {"proj:wkt2": crs}


def _convention(name: str) -> dict[str, str]:
    uuid, description = _CONVENTIONS[name]
    base = f"zarr-conventions/{name}"
    return {
        "uuid": uuid,
        "name": name if name == "multiscales" else f"{name}:",
        "description": description,
        "schema_url": f"https://raw.githubusercontent.com/{base}/refs/tags/v1/schema.json",
        "spec_url": f"https://github.com/{base}/blob/v1/README.md",
    }
