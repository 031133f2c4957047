"""What a pyramid becomes in a TIFF: sizes, planes, tags and the coding of its tiles; the same for COG and OME-TIFF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilestream.sinks.tiffcodec import TileCodec, encode_mask
from tilestream.sinks.tiffdirectory import Directory, Value, long, short, text
from tilestream.types import Array, Shape

TILE_PX = 512
"""Edge of a tile: what GDAL writes and whole-slide viewers like."""
_NOTHING: Mapping[int, Value] = {}
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


@dataclass(frozen=True, kw_only=True)
class EncodedTile:
    """One tile as the file holds it."""

    plane: int
    """Position in `TiffPyramid.planes`."""
    level: int
    """Level of the file; 0 is the finest."""
    iy: int
    """Row in the grid of tiles."""
    ix: int
    """Column in the grid of tiles."""
    data: bytes
    """Coded samples; empty for a tile that holds nothing but fill and is not stored."""
    mask: bytes | None = None
    """Coded validity where not every pixel is valid."""


@dataclass(frozen=True, kw_only=True)
class TiffPyramid:
    """One image of several levels as TIFF describes it."""

    levels: tuple[Shape, ...]
    """Size of each level, finest first."""
    dtype: np.dtype[Any]
    """Type of the samples."""
    planes: tuple[tuple[int, int], ...]
    """First channel and the one after the last of each plane that has tiles of its own."""
    codec: TileCodec
    """How tiles are coded."""
    tile_px: int = TILE_PX
    """Edge of a tile."""
    nodata: float | None = None
    """Stored value that says that a pixel was not measured."""
    masks: bool = False
    """Whether tiles with pixels that are not valid get a mask."""
    skips_fill: bool = False
    """Whether tiles without a valid pixel are left out."""

    def tiles(self, level: int) -> Shape:
        """Return rows and columns of the grid of tiles of a level."""
        shape = self.levels[level]
        return Shape(y=-(-shape.y // self.tile_px), x=-(-shape.x // self.tile_px))

    @property
    def raw_bytes(self) -> int:
        """Return the bytes of all tiles before coding."""
        samples = sum(last - first for first, last in self.planes)
        count = sum(self.tiles(level).area for level in range(len(self.levels)))
        return count * self.tile_px**2 * samples * self.dtype.itemsize

    def encode(
        self, pixels: Array, valid: npt.NDArray[np.bool_] | None, *, level: int, iy: int, ix: int
    ) -> Iterator[EncodedTile]:
        """Yield the tiles of one place, one a plane.

        Parameters
        ----------
        pixels : ndarray
            `(y, x, c)` of at most a tile; the rest of an edge tile repeats its last row and column.
        valid : ndarray of bool or None
            `(y, x)`, None where all are.
        level, iy, ix : int
            Level, and row and column in its grid of tiles.

        Yields
        ------
        EncodedTile
            In the order of the planes.
        """
        missing = tuple((0, self.tile_px - size) for size in pixels.shape[:2])
        if any(after for _, after in missing):
            pixels = np.pad(pixels, (*missing, (0, 0)), mode="edge")
        mask = self.encode_validity(valid)
        is_empty = self.skips_fill and valid is not None and not valid.any() and self._is_fill(pixels)
        for plane, (first, last) in enumerate(self.planes):
            data = b"" if is_empty else self.codec.encode(pixels[..., first:last])
            yield EncodedTile(plane=plane, level=level, iy=iy, ix=ix, data=data, mask=mask)

    def encode_validity(self, valid: npt.NDArray[np.bool_] | None) -> bytes | None:
        """Return the mask of a tile, None where it needs none.

        Parameters
        ----------
        valid : ndarray of bool or None
            `(y, x)` of at most a tile, None where all are.

        Returns
        -------
        bytes or None
            None also in a file without masks.
        """
        if not self.masks or valid is None or valid.all():
            return None
        return encode_mask(np.pad(valid, [(0, self.tile_px - size) for size in valid.shape], mode="edge"))

    def _is_fill(self, pixels: Array) -> bool:
        """Return whether readers give back the same samples when the tile is not stored."""
        fill = 0.0 if self.nodata is None else self.nodata
        return bool(np.isnan(pixels).all() if np.isnan(fill) else (pixels == fill).all())

    def directory(
        self,
        level: int,
        plane: int,
        positions: TilePositions,
        *,
        tags: Mapping[int, Value] = _NOTHING,
        children: Sequence[Directory] = (),
    ) -> Directory:
        """Return the directory of one plane of a level.

        Parameters
        ----------
        level, plane : int
            Which.
        positions : TilePositions
            Where its tiles lie.
        tags : Mapping
            Tags that belong to the whole image: texts, resolution, place.
        children : sequence of Directory
            Directories that are reached through it.

        Returns
        -------
        Directory
            Ready to be encoded.
        """
        first, last = self.planes[plane]
        own = {
            **self._size_tags(level, reduced=1),
            **self._sample_tags(last - first),
            **self.codec.tags,
            **({} if self.nodata is None else {42113: text(f"{self.nodata:.17g}")}),
        }
        return Directory(tags={**own, **tags}, offsets=positions.offsets, counts=positions.counts, children=children)

    def mask_directory(self, level: int, positions: TilePositions) -> Directory:
        """Return the directory of the validity mask of a level; the parameters are those of `directory`."""
        tags = {
            **self._size_tags(level, reduced=5, whole=4),
            258: short(1),
            259: short(8),
            262: short(4),
            277: short(1),
            284: short(1),
            339: short(1),
        }
        return Directory(tags=tags, offsets=positions.offsets, counts=positions.counts)

    def _size_tags(self, level: int, *, reduced: int, whole: int = 0) -> dict[int, Value]:
        shape = self.levels[level]
        return {
            254: long(reduced if level else whole),
            256: long(shape.x),
            257: long(shape.y),
            322: short(self.tile_px),
            323: short(self.tile_px),
        }

    def _sample_tags(self, samples: int) -> dict[int, Value]:
        colours = 3 if self.codec.is_rgb else 1
        extra = {338: short(*[0] * (samples - colours))} if samples > colours else {}
        return {
            258: short(*[8 * self.dtype.itemsize] * samples),
            277: short(samples),
            284: short(1),
            339: short(*[_SAMPLE_FORMATS[self.dtype.kind]] * samples),
            **extra,
        }


class TilePositions:
    """Where the tiles of one stored image lie.

    Parameters
    ----------
    tiles : Shape
        Rows and columns of its grid.
    """

    def __init__(self, tiles: Shape) -> None:
        self._tiles = tiles
        self.offsets: npt.NDArray[np.uint64] = np.zeros(tiles.area, np.uint64)
        self.counts: npt.NDArray[np.uint32] = np.zeros(tiles.area, np.uint32)

    def index(self, iy: int, ix: int) -> int:
        """Return the number of a tile."""
        return iy * self._tiles.x + ix

    def put(self, index: int, *, offset: int, nbytes: int) -> None:
        """Note where a tile lies."""
        self.offsets[index], self.counts[index] = offset, nbytes


class TiffWriter(Protocol):
    """Takes the tiles of a pyramid in any order and makes one file of them."""

    def add(self, tile: EncodedTile) -> None:
        """Take one tile."""

    def finish(self, tags: Mapping[int, Value]) -> int:
        """Complete the file, its first directory with these tags, and return its size in bytes."""
