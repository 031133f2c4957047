"""How a pyramid lies in a store: levels, chunks, shards and codecs; decided once, before a pixel is read.

The unit of work is a square of 16 x 16 chunks of level 0. Shards halve from one level to the next down to one chunk, so
that a unit owns whole shards on five levels; level 4 is then read as the base of the next four, whose shards halve
again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from tilestream.codecs.metadata import Layout, array_metadata, sharded
from tilestream.codecs.pixelcodecs import pixel_codecs
from tilestream.errors import ConfigError
from tilestream.sources.encoded import encoded_level
from tilestream.sources.transcoding import Transcoding, find_transcoding
from tilestream.types import ImageInfo, Level, Shape, Source

Profile: TypeAlias = Literal["archive", "portable", "gdal"]
PROFILES: tuple[Profile, ...] = ("archive", "portable", "gdal")
"""Undecoded tiles of the source; zstd in shards; zstd without shards, for readers that know none."""
Dims: TypeAlias = tuple[str, ...]

TIER = 4
"""Levels that are made from one base at once: 1 to 4 from level 0, 5 to 8 from level 4."""
CHUNKS = 16
"""Chunks along an edge of a unit, 2**TIER, so that the shards of level 4 are one chunk."""
COPIED_CHUNKS = 32
"""Chunks along an edge of a shard of copied tiles, which are small: about 10 MB a shard of a JPEG slide."""
STORE_NAMES = frozenset({"labels", "associated", *map(str, range(64))})
"""What can lie at the root of a store of ours, whatever its levels."""
LAST_PX = 256
"""A level that fits into this square is the last one."""
CHUNK_PX = ((12, 256), (48, 128), (math.inf, 64))
"""Most bytes of a pixel, and the edge of chunks up to there: a unit of 4096 px would be too large for many bands."""


@dataclass(frozen=True, kw_only=True)
class StoreLevel:
    """One level of a store."""

    index: int
    """Position in the store; 0 is the finest."""
    shape: Shape
    """Size, px."""
    scale_yx: tuple[float, float]
    """Level-0 pixels in a pixel."""
    chunk: Shape
    """Size of a chunk, px."""
    chunks: int
    """Chunks along an edge of what one task writes: of a shard, where there are shards."""
    codecs: tuple[Mapping[str, Any], ...]
    """What turns a chunk into bytes, as codec metadata."""
    halvings: int | None = None
    """The level is level 0 halved so often; None for a level of the source that is no such halving."""
    copied: int | None = None
    """Level of the source whose stored tiles are its chunks; None where it is made from pixels."""
    transcoding: Transcoding | None = None
    """How these tiles become smaller; None where they are stored as they are."""

    @property
    def shard(self) -> Shape:
        """Return the size of what one task writes, px."""
        return Shape(y=self.chunk.y * self.chunks, x=self.chunk.x * self.chunks)

    @property
    def shards(self) -> Shape:
        """Return the number of shards along each axis."""
        return Shape(y=-(-self.shape.y // self.shard.y), x=-(-self.shape.x // self.shard.x))

    def has_chunk(self, iy: int, ix: int) -> bool:
        """Return whether a chunk of the grid lies in the image; those that fill up a shard do not."""
        return iy * self.chunk.y < self.shape.y and ix * self.chunk.x < self.shape.x


@dataclass(frozen=True, kw_only=True)
class StoreLayout:
    """All arrays of one image in a store."""

    levels: tuple[StoreLevel, ...]
    """Finest first."""
    dims: Dims
    """`("c", "y", "x")`, or `("y", "x")` for labels."""
    channels: int
    """Number of channels; 1 for labels."""
    dtype: np.dtype[Any]
    """Type of the samples."""
    fill_value: float
    """What chunks that are not stored hold."""
    unit_px: int
    """Edge of a unit of work, px of its base level; labels have that of their image."""
    has_shards: bool = True
    """Whether chunks are packed into shards."""
    cell_yx: tuple[float, float] = (1.0, 1.0)
    """Size of a pixel of level 0 in pixels of the image whose place the store keeps: more than 1 for a coarse map."""

    def base(self, tier: int) -> int | None:
        """Return the level that a tier is made from, None where the store ends before it."""
        wanted = tier * TIER
        return next((level.index for level in self.levels if level.halvings == wanted), None)

    def metadata(self, level: StoreLevel, attributes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the `zarr.json` of a level's array.

        Parameters
        ----------
        level : StoreLevel
            One of `levels`.
        attributes : Mapping, optional
            User attributes; JSON values.

        Returns
        -------
        dict
            Metadata document.
        """
        first = (self.channels,) if "c" in self.dims else ()
        chunk_shape = (*first, *level.chunk.yx)
        layout = Layout(grid_shape=chunk_shape, codecs=level.codecs)
        if self.has_shards:
            layout = sharded(chunk_shape, level.codecs, counts=(*(1 for _ in first), level.chunks, level.chunks))
        return array_metadata(
            (*first, *level.shape.yx),
            self.dtype,
            layout=layout,
            dimension_names=self.dims,
            fill_value=self.fill_value,
            attributes=attributes,
        )


def chunk_px(pixel_bytes: int) -> int:
    """Return the edge of chunks of pixels of that size, a power of two as viewers ask for."""
    return next(edge for most, edge in CHUNK_PX if pixel_bytes <= most)


def halved(shape: Shape, times: int) -> Shape:
    """Return the size of a level after some halvings; each rounds up, so that no pixel is lost."""
    return Shape(y=-(-shape.y // 2**times), x=-(-shape.x // 2**times))


def halvings_of(shape: Shape) -> int:
    """Return how often an image is halved until it fits into the square of the last level."""
    return next(times for times in range(64) if max(halved(shape, times).yx) <= LAST_PX)


def made_level(index: int, shape: Shape, times: int, *, edge_px: int, codecs: Sequence[Any]) -> StoreLevel:
    """Return a level that is made from pixels.

    Parameters
    ----------
    index : int
        Position in the store.
    shape : Shape
        Size of level 0, px.
    times : int
        How often level 0 is halved.
    edge_px : int
        Edge of a chunk.
    codecs : sequence of dict
        Codecs of a chunk.

    Returns
    -------
    StoreLevel
        With shards as large as what one unit makes of the level.
    """
    return StoreLevel(
        index=index,
        shape=halved(shape, times),
        scale_yx=(float(2**times), float(2**times)),
        chunk=Shape(y=edge_px, x=edge_px),
        chunks=CHUNKS >> ((times - 1) % TIER + 1 if times else 0),
        codecs=tuple(codecs),
        halvings=times,
    )


def made_layout(
    info: ImageInfo, *, has_shards: bool = True, edge_px: int | None = None, cell_yx: tuple[float, float] = (1.0, 1.0)
) -> StoreLayout:
    """Return the layout of an image whose every level is made from pixels.

    Parameters
    ----------
    info : ImageInfo
        The image; labels get no channel axis.
    has_shards : bool
        Whether chunks are packed into shards.
    edge_px : int, optional
        Edge of a chunk; by default as many pixels as make a chunk of a good size.
    cell_yx : tuple of float
        Size of a pixel in pixels of the image that it was made of.

    Returns
    -------
    StoreLayout
        Level 0 and its halvings until one fits into a chunk.
    """
    dims: Dims = ("y", "x") if info.kind == "labels" and len(info.channels) == 1 else ("c", "y", "x")
    channels = len(info.channels)
    dtype = storable(info.dtype)
    if info.kind == "intensity" and dtype.kind in "iu" and dtype.itemsize > 4:
        raise ConfigError.of(
            "type of the samples",
            got=dtype.name,
            expected="integers of up to 32 bits or floats, of which coarse levels can be made",
            do="Convert it, or open it with #kind=labels if it holds class numbers.",
        )
    edge = chunk_px(channels * dtype.itemsize) if edge_px is None else edge_px
    codecs = pixel_codecs(dtype, channels, is_plain=not has_shards)
    times = range(halvings_of(info.shape) + 1)
    levels = tuple(made_level(n, info.shape, n, edge_px=edge, codecs=codecs) for n in times)
    fill = fill_value(info)
    return StoreLayout(
        levels=levels,
        dims=dims,
        channels=channels,
        dtype=dtype,
        fill_value=fill,
        unit_px=CHUNKS * edge,
        has_shards=has_shards,
        cell_yx=cell_yx,
    )


def archive_layout(source: Source, *, fill_levels: bool = False, jpegxl: bool = False) -> StoreLayout:
    """Return the layout of an image whose stored tiles are copied.

    Parameters
    ----------
    source : Source
        A source without a reason against it (`tilestream.sources.encoded.archive_reason`).
    fill_levels : bool
        Whether the halvings that it does not have are made, down to one chunk.
    jpegxl : bool
        Whether JPEG tiles become JPEG XL that gives them back.

    Returns
    -------
    StoreLayout
        The levels of the source with its own tiles as chunks, and between them those that are made.
    """
    info = source.info
    channels, dtype = len(info.channels), storable(info.dtype)
    edge = chunk_px(channels * dtype.itemsize)
    levels = [_copied_level(source, level, jpegxl=jpegxl) for level in info.levels]
    if fill_levels:
        codecs = pixel_codecs(dtype, channels)
        there = {level.halvings for level in levels}
        times = (n for n in range(halvings_of(info.shape) + 1) if n not in there)
        levels += [made_level(0, info.shape, n, edge_px=edge, codecs=codecs) for n in times]
    levels.sort(key=lambda level: (level.scale_yx, level.copied is None))
    return StoreLayout(
        levels=tuple(replace(level, index=index) for index, level in enumerate(levels)),
        dims=("c", "y", "x"),
        channels=channels,
        dtype=dtype,
        fill_value=fill_value(info),
        unit_px=CHUNKS * edge,
    )


def _copied_level(source: Source, level: Level, *, jpegxl: bool) -> StoreLevel:
    encoded = encoded_level(source, level.index)
    transcoding = find_transcoding(source, level.index) if jpegxl else None
    _, height, width = encoded.chunk_shape
    times = math.log2(level.scale_yx[0])
    is_halved = level.scale_yx[0] == level.scale_yx[1] and times == int(times)
    return StoreLevel(
        index=level.index,
        shape=level.shape,
        scale_yx=level.scale_yx,
        chunk=Shape(y=height, x=width),
        chunks=COPIED_CHUNKS,
        codecs=encoded.codecs if transcoding is None else transcoding.codec.behind_jpeg(encoded.codecs),
        # a level that was cut instead of rounded up is none of the halvings that units are made of
        halvings=int(times) if is_halved and level.shape == halved(source.info.shape, int(times)) else None,
        copied=level.index,
        transcoding=transcoding,
    )


def mask_layout(of: StoreLayout) -> StoreLayout:
    """Return the layout of the validity of an image: on its levels, 1 where something was measured.

    Parameters
    ----------
    of : StoreLayout
        Layout of the image.

    Returns
    -------
    StoreLayout
        Absent chunks are valid.
    """
    return _layer(of, np.dtype("uint8"), 1)


def _layer(of: StoreLayout, dtype: np.dtype[Any], fill: float) -> StoreLayout:
    codecs = pixel_codecs(dtype, 1, is_plain=not of.has_shards)
    levels = tuple(replace(level, codecs=codecs) for level in of.levels)
    return replace(of, levels=levels, dims=("y", "x"), channels=1, dtype=dtype, fill_value=fill)


def label_layout(info: ImageInfo, of: StoreLayout) -> StoreLayout:
    """Return the layout of a class raster on the grid of an image, with the units of that image.

    Parameters
    ----------
    info : ImageInfo
        The raster; of one channel.
    of : StoreLayout
        Layout of the image, all levels of which are made.

    Returns
    -------
    StoreLayout
        Class 0, or its nodata, where nothing is stored.
    """
    return _layer(of, storable(info.dtype), fill_value(info))


def fill_value(info: ImageInfo) -> float:
    """Return what absent chunks of an image hold: its nodata, white where light shines through glass, else 0."""
    if info.nodata is not None:
        return info.nodata
    return 255 if info.modality == "brightfield" and info.dtype == np.uint8 and info.kind == "intensity" else 0


def storable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type that samples are stored as.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the image.

    Returns
    -------
    numpy.dtype
        The same type in little-endian order.

    Raises
    ------
    ConfigError
        When Zarr has no such type.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ConfigError.of(
            "type of the samples", got=dtype, expected="bool, integers or floats of up to 64 bits", do="Convert it."
        )
    return dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype
