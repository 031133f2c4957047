"""The pixels of one level as xarray's lazy array: reads what is asked for, and no block that it does not touch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from tilestream.errors import DamagedError, OutputError
from tilestream.pyramid import Pyramid
from tilestream.types import Array, Box, PlanLevel, Shape
from tilestream.xr.coding import fill_of
from tilestream.xr.grid import within

Ints: TypeAlias = npt.NDArray[np.int64]

What: TypeAlias = Literal["image", "valid", "classes"]
"""What a lazy array gives of a level."""

SUPER_TILE_PX = 4096
"""Edge of a chunk where memory allows, px."""
MOST_NAMED = 5
"""Damaged blocks that an error names."""
CHUNK_BYTES = 256 << 20
"""Most bytes of a chunk; images of many bands have smaller ones."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One level of an image, stored or virtual."""

    pyramid: Pyramid
    """The image."""
    level: PlanLevel
    """The resolution."""
    image: str = ""
    """Fingerprint of the image beside which it lies, as a class layer does; empty for the image itself."""

    @property
    def block(self) -> Shape:
        """Return the pixels of this level that come with one decoded block; at least that many for a virtual one."""
        block, (ratio_y, ratio_x) = self.pyramid.levels[self.level.stored].block, self.level.ratio_yx
        return Shape(y=max(1, int(block.y // ratio_y)), x=max(1, int(block.x // ratio_x)))

    def read(self, box: Box, pixels: Array, valid: npt.NDArray[np.bool_]) -> None:
        """Fill pixels `(y, x, c)` and their validity; see `Pyramid.read_plan`.

        Raises
        ------
        DamagedError
            When a block cannot be decoded, naming it.
        """
        filled = self.pyramid.read_plan(self.level, box, pixels, valid)
        if filled.damage:
            image, more = self.pyramid.address or "the image", len(filled.damage) - MOST_NAMED
            named = "; ".join(filled.damage[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
            raise DamagedError(
                f"`{image}`: {named}. `pyramid.read_region` returns the rest, `.tiles.thumbnail` shows it, and "
                "`ts.stream_tiles` leaves such tiles out."
            )
        if not filled.is_whole:
            pixels[~valid] = fill_of(self.pyramid)


def chunk_of(view: View, pixel_bytes: int) -> Shape:
    """Return the part of a level that is best read at once: whole blocks, near `SUPER_TILE_PX` square.

    Parameters
    ----------
    view : View
        The level.
    pixel_bytes : int
        Size of a pixel of all channels, as it is given.

    Returns
    -------
    Shape
        At most the level. Smaller where pixels are large, or where many stored ones make one.
    """
    block, shape = view.block, view.level.shape
    area = min(SUPER_TILE_PX**2, CHUNK_BYTES // pixel_bytes) / max(1.0, float(math.prod(view.level.ratio_yx)))
    edge = max(1, int(area**0.5))
    x = min(shape.x, max(block.x, edge // block.x * block.x))
    rows = int(area / x) if x > edge else edge  # a block as wide as the image: strips
    return Shape(y=min(shape.y, max(block.y, rows // block.y * block.y)), x=x)


class LevelArray(BackendArray):
    """Samples `(c, y, x)`, validity or classes `(y, x)` of one level; small, picklable, read-only.

    Parameters
    ----------
    view : View
        The level.
    decoding : Mapping, optional
        CF attributes (`_FillValue`, `scale_factor`, `add_offset`) that are applied to samples as xarray applies them.
    what : str
        `image`, `valid`, or `classes` for the only channel of a layer.
    """

    def __init__(self, view: View, *, decoding: Mapping[str, Any] | None = None, what: What = "image") -> None:
        self.view = view
        self.decoding = dict(decoding or {})
        self.what = what
        self.shape: tuple[int, ...] = view.level.shape.yx
        self.dtype = np.dtype(bool) if what == "valid" else view.pyramid.dtype
        if what == "image":
            self.shape = (len(view.pyramid.channels), *self.shape)
            self.dtype = self._decoded(np.empty((0, 0, 0), view.pyramid.dtype)).dtype

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, indexing.BasicIndexer | indexing.OuterIndexer):
            return self._read(key.tuple)  # the adapter below fails on an empty slice that runs backwards
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    async def async_getitem(self, key: Any) -> Any:
        """Return what `[key]` does, read in a thread."""
        return await asyncio.to_thread(self.__getitem__, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise read_only()

    def __dask_tokenize__(self) -> object:
        info, level = self.view.pyramid.info, self.view.level
        names = [channel.name for channel in info.channels]
        where = self.view.pyramid.address, info.fingerprint, sorted(info.selection.items()), names
        return (
            "tilestream.LevelArray", self.what, *where, level.stored, *map(str, level.ratio_yx),
            sorted((name, repr(value)) for name, value in self.decoding.items()),
        )  # fmt: skip

    def _read(self, key: tuple[Any, ...]) -> Array:
        rows, row_shape = _positions(key[-2], self.shape[-2])
        columns, column_shape = _positions(key[-1], self.shape[-1])
        at_y, back_y = np.unique(rows, return_inverse=True)
        at_x, back_x = np.unique(columns, return_inverse=True)
        if self.what == "valid":
            found: Array = read_outer(self.view, at_y, at_x)[1]
            return _unpicked(found, back_y, back_x).reshape(row_shape + column_shape)
        pixels = _unpicked(read_outer(self.view, at_y, at_x)[0], back_y, back_x).transpose(2, 0, 1)
        pixels = pixels[key[0] if self.what == "image" else 0]
        return self._decoded(pixels.reshape(pixels.shape[:-2] + row_shape + column_shape))

    def _decoded(self, pixels: Array) -> Array:
        if not self.decoding:
            return pixels
        variable = xr.Variable([f"d{axis}" for axis in range(pixels.ndim)], pixels, self.decoding)
        return np.asarray(xr.conventions.decode_cf_variable("image", variable, decode_times=False).data)


class AssociatedArray(BackendArray):
    """An associated image `(c, y, x)`; read once for its size, and again when its pixels are asked for.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    name : str
        One of `pyramid.associated`.
    """

    def __init__(self, pyramid: Pyramid, name: str) -> None:
        self.pyramid = pyramid
        self.name = name
        pixels = self._pixels()
        self.shape: tuple[int, ...] = pixels.shape
        self.dtype = pixels.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, lambda part: self._pixels()[part]
        )

    def __dask_tokenize__(self) -> object:
        return "tilestream.AssociatedArray", self.pyramid.address, self.pyramid.fingerprint, self.name

    def _pixels(self) -> Array:
        return self.pyramid.read_associated(self.name).transpose(2, 0, 1)


def read_only() -> OutputError:
    """Return the error for a write into an image that was opened."""
    return OutputError.of(
        "an image that was opened",
        got="a write into it",
        expected="reads only: sources are never changed, and writers that share a shard lose pixels",
        do="Write into another store; to change values here, `.load()` them or compute with them (`where`) first.",
    )


def read_outer(view: View, rows: Ints, columns: Ints) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the pixels at some rows and columns of a level.

    Parameters
    ----------
    view : View
        The level.
    rows, columns : ndarray of int64
        Positions, ascending, none twice.

    Returns
    -------
    pixels : ndarray
        `(rows, columns, c)`.
    valid : ndarray of bool
        `(rows, columns)`.

    Notes
    -----
    Reads in windows of at most a chunk; beyond the result it holds one of them where rows or columns are left out.
    """
    pixels = np.empty((len(rows), len(columns), len(view.pyramid.channels)), view.pyramid.dtype)
    valid = np.ones(pixels.shape[:2], np.bool_)
    chunk = chunk_of(view, pixels.itemsize * pixels.shape[2])
    for own_y in _windows(rows, view.block.y, chunk.y):
        for own_x in _windows(columns, view.block.x, chunk.x):
            at_y, at_x = rows[own_y], columns[own_x]
            y, x = int(at_y[0]), int(at_x[0])
            box = Box(level=view.level.stored, y=y, x=x, height=int(at_y[-1]) + 1 - y, width=int(at_x[-1]) + 1 - x)
            if box.shape.yx == (len(at_y), len(at_x)):
                view.read(box, pixels[own_y, own_x], valid[own_y, own_x])
                continue
            window = np.empty((*box.shape.yx, pixels.shape[2]), pixels.dtype)
            seen = np.ones(box.shape.yx, np.bool_)
            view.read(box, window, seen)
            picked = np.ix_(at_y - y, at_x - x)
            pixels[own_y, own_x], valid[own_y, own_x] = window[picked], seen[picked]
    return pixels, valid


def _windows(at: Ints, block_px: int, chunk_px: int) -> Iterator[slice]:
    """Yield slices of ascending positions: none crosses a chunk's edge or skips a whole block."""
    if not len(at):
        return
    skips = np.diff(at // block_px) > 1
    starts = np.flatnonzero(skips | (np.diff(at // chunk_px) > 0)) + 1
    ends = np.append(starts, len(at))
    for first, stop in zip(np.append(0, starts), ends, strict=True):
        yield slice(int(first), int(stop))


def _positions(key: Any, size: int) -> tuple[Ints, tuple[int, ...]]:
    """Return the positions behind an index of one axis, and the shape that it leaves."""
    if isinstance(key, slice):
        at = np.arange(size)[key]
        return at, at.shape
    at = np.asarray(key, np.int64)
    return within(at, size).reshape(-1), at.shape


def _unpicked(found: Array, back_y: Ints, back_x: Ints) -> Array:
    """Return rows and columns in the order in which they were asked for."""
    for axis, back in enumerate((back_y, back_x)):
        if len(back) != found.shape[axis] or np.any(np.diff(back) != 1):
            found = np.take(found, back, axis=axis)
    return found
