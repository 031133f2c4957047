"""What the accessor of an xarray object is about: an image, one of its levels, and which part of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import xarray as xr

from tilestream.errors import ConfigError
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.types import Box, PlanLevel, Shape
from tilestream.xr.grid import PixelGrid
from tilestream.xr.index import PixelGridIndex
from tilestream.xr.lazy import LevelArray, View
from tilestream.xr.link import is_uncut, stored_in
from tilestream.xr.place import place_of
from tilestream.xr.tree import stored_level

IMAGE = "image"
"""The variable that holds the pixels."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An image, one of its levels, and which part of it."""

    pyramid: Pyramid
    """All of its levels, with the channels of the object."""
    level: PlanLevel
    """Resolution of the object."""
    box: Box
    """Part of the level, in its pixels (those of a virtual level are not stored ones)."""
    is_stored: bool
    """Whether pixels come from where the image was opened; else from the object itself, which has one level."""
    is_decoded: bool = False
    """Whether nodata is NaN, and factor and offset are applied."""
    is_chunked: bool = False
    """Whether the object is of dask."""

    @property
    def is_whole(self) -> bool:
        """Return whether the object is the whole level."""
        return self.box.y == self.box.x == 0 and self.box.shape == self.level.shape

    @property
    def stored_box(self) -> Box:
        """Return the part in pixels of the stored level."""
        (ratio_y, ratio_x), shape = self.level.ratio_yx, self.pyramid.levels[self.level.stored].shape
        y, x = int(self.box.y * ratio_y // 1), int(self.box.x * ratio_x // 1)
        y_stop = min(shape.y, -int(-(self.box.y_stop * ratio_y) // 1))
        x_stop = min(shape.x, -int(-(self.box.x_stop * ratio_x) // 1))
        return Box(level=self.level.stored, y=y, x=x, height=max(0, y_stop - y), width=max(0, x_stop - x))

    @property
    def bounds_yx(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return first and last edge along y and along x, pixels of level 0."""
        scale_y, scale_x = self.level.scale_yx
        return (self.box.y * scale_y, self.box.y_stop * scale_y), (self.box.x * scale_x, self.box.x_stop * scale_x)


def subject_of(found: xr.DataArray | xr.Dataset | xr.DataTree) -> Subject:
    """Return what an xarray object shows.

    Parameters
    ----------
    found : DataArray, Dataset or DataTree
        Opened by the engine, also cut into (slices and steps along y and x, channels by name); or any other image.

    Returns
    -------
    Subject
        With all levels of the image where the object holds its stored pixels unchanged. Anything else, computed with
        or from elsewhere, is taken as an image of its own, of one level, computed when its pixels are needed.

    Raises
    ------
    ConfigError
        When it is no image.
    """
    image = _image_of(found)
    if isinstance(image, xr.DataArray):
        array = stored_in(image.variable)
        linked = None if array is None else _linked(image, array)
        if linked is not None:
            return linked
    pyramid = open_pyramid(image)
    level = stored_level(pyramid, 0)
    return Subject(pyramid=pyramid, level=level, box=_whole(level), is_stored=False, is_chunked=_has_chunks(image))


def _image_of(found: xr.DataArray | xr.Dataset | xr.DataTree) -> xr.DataArray | xr.Dataset:
    if isinstance(found, xr.DataTree):
        levels = sorted((name for name in found.children if name.isdecimal()), key=int)
        nodes = [found.dataset, *(found.children[name].dataset for name in levels[:1])]
        images = [node[IMAGE] for node in nodes if IMAGE in node.data_vars]
        if not images:
            raise ConfigError.of(
                "`.tiles` of a tree",
                got=f"groups {list(found.children)} and variables {list(found.data_vars)}",
                expected=f"levels `0`, `1` … with a variable `{IMAGE}`",
                do="Take the node that holds the image.",
            )
        return images[0]
    return found[IMAGE] if isinstance(found, xr.Dataset) and IMAGE in found.data_vars else found


def _linked(image: xr.DataArray, array: LevelArray) -> Subject | None:
    pyramid: Pyramid | None = array.view.pyramid
    if array.what == "image":
        pyramid = _with_channels(image, array.view.pyramid)
    box = _box_of(image, array.view)
    if array.what == "valid" or pyramid is None or box is None:
        return None
    return Subject(
        pyramid=pyramid,
        level=array.view.level,
        box=box,
        is_stored=True,
        is_decoded=bool(array.decoding),
        is_chunked=_has_chunks(image),
    )


def _with_channels(image: xr.DataArray, pyramid: Pyramid) -> Pyramid | None:
    if "c" not in image.coords:
        return None
    names = [str(name) for name in image["c"].values.reshape(-1)]
    own = [channel.name for channel in pyramid.channels]
    if names == own:
        return pyramid
    return pyramid.choose(bands=names) if set(names) <= set(own) and len(set(names)) == len(names) > 0 else None


def _box_of(image: xr.DataArray, view: View) -> Box | None:
    """Return the part of the level that an array covers; what steps leave out counts, since it is still that part."""
    place, shape = place_of(view.pyramid.info, view.level), view.level.shape
    if place.y is None or place.x is None:  # a rotated scene has no coordinates that would tell a part of it
        if not is_uncut(image.variable):
            return None
        return Box(level=view.level.stored, y=0, x=0, height=shape.y, width=shape.x)
    name = view.image or view.pyramid.fingerprint
    grids = (replace(grid, image=name) for grid in (place.y, place.x))
    rows, columns = (_span(image, dim, grid) for dim, grid in zip(("y", "x"), grids, strict=True))
    if rows is None or columns is None:
        return None
    return Box(level=view.level.stored, y=rows.start, x=columns.start, height=len(rows), width=len(columns))


def _span(image: xr.DataArray, dim: str, grid: PixelGrid) -> range | None:
    """Return the rows or columns that an array covers, None where its coordinates do not say so."""
    index = image.xindexes.get(dim)
    if not isinstance(index, PixelGridIndex) or not index.grid.size:
        return None
    cells, is_same = index.grid.cells, replace(index.grid, cells=grid.cells) == grid
    low, high = min(cells[0], cells[-1]), max(cells[0], cells[-1])
    return range(low, high + 1) if is_same and low >= 0 and high < grid.size else None


def _whole(level: PlanLevel) -> Box:
    shape: Shape = level.shape
    return Box(level=level.stored, y=0, x=0, height=shape.y, width=shape.x)


def _has_chunks(image: xr.DataArray | xr.Dataset) -> bool:
    return bool(image.chunksizes)
