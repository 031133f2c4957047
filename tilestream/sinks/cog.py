"""A pyramid as one cloud-optimised GeoTIFF, in the layout of GDAL's COG driver.

    header · ghost area · directories (image, mask, overviews, masks of overviews) · tiles, the coarsest level first

Tiles are kept in a nameless file until all are there, since the finest come last in the file and are made first. Each
lies between its size (4 bytes) and a repetition of its last 4 bytes, its mask behind it: a reader that knows one
offset needs one request for a tile.

References
----------
OGC 21-026, Cloud Optimized GeoTIFF 1.0; https://gdal.org/drivers/raster/cog.html#file-format-details
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from tilestream.sinks.tiffcodec import encode_mask
from tilestream.sinks.tiffdirectory import CLASSIC_BYTES, Directory, Value, encode_directories, header
from tilestream.sinks.tiffpyramid import EncodedTile, TiffPyramid, TilePositions

_GHOST = (
    "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
    "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
)
_GHOST_MASK = "MASK_INTERLEAVED_WITH_IMAGERY=YES\n"
_FRAME_BYTES = 8
"""Size before a tile and repetition behind it."""
_WRITE_BYTES = 1 << 20


class CogWriter:
    """Takes tiles in any order and writes them as a COG; a context manager.

    Parameters
    ----------
    path : Path
        File to write; beside it, on the same disk, tiles are kept meanwhile.
    pyramid : TiffPyramid
        What is written; one plane that holds all channels.
    """

    def __init__(self, path: Path, pyramid: TiffPyramid) -> None:
        self._path = path
        self._pyramid = pyramid
        levels = range(len(pyramid.levels))
        self._tiles = [TilePositions(pyramid.tiles(level)) for level in levels]
        self._masks = [TilePositions(pyramid.tiles(level)) for level in levels]
        self._has_masks = False
        self._spool = tempfile.TemporaryFile(dir=path.parent, buffering=_WRITE_BYTES)  # noqa: SIM115 - closed by close
        self._spooled_bytes = 0

    def __enter__(self) -> CogWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # on a full disk what is still in its buffer fails again
            self._spool.close()

    def add(self, tile: EncodedTile) -> None:
        """Take one tile.

        Parameters
        ----------
        tile : EncodedTile
            The tile, each once.
        """
        tiles, masks = self._tiles[tile.level], self._masks[tile.level]
        index = tiles.index(tile.iy, tile.ix)
        self._keep(tiles, index, tile.data)
        if tile.mask is not None:
            self._has_masks = True
            self._keep(masks, index, tile.mask)

    def _keep(self, positions: TilePositions, index: int, data: bytes) -> None:
        if data:
            self._spool.write(data)
            positions.put(index, offset=self._spooled_bytes, nbytes=len(data))
            self._spooled_bytes += len(data)

    def finish(self, tags: Mapping[int, Value]) -> int:
        """Write the file from the tiles that were taken.

        Parameters
        ----------
        tags : Mapping
            Tags of the first directory that belong to the whole image, by code.

        Returns
        -------
        int
            Size of the file, bytes.
        """
        self._spool.flush()
        if self._has_masks:
            self._fill_masks()
        start, size = self._place(tags, is_big=False)
        if size >= CLASSIC_BYTES:
            start, size = self._place(tags, is_big=True)
        with self._path.open("wb", buffering=_WRITE_BYTES) as file:
            file.write(start)
            self._copy_tiles(file)
            written = file.tell()
        if written != size:
            raise AssertionError(f"{written} bytes of a COG were written, {size} were planned")
        return size

    def _fill_masks(self) -> None:
        """Give each tile that is stored and has no mask the one that says that all is valid."""
        whole = encode_mask(np.ones((self._pyramid.tile_px,) * 2, np.bool_))
        at = self._spooled_bytes
        self._spool.write(whole)
        self._spool.flush()
        self._spooled_bytes += len(whole)
        for tiles, masks in zip(self._tiles, self._masks, strict=True):
            bare = (tiles.counts != 0) & (masks.counts == 0)
            masks.offsets[bare], masks.counts[bare] = at, len(whole)

    def _place(self, tags: Mapping[int, Value], *, is_big: bool) -> tuple[bytes, int]:
        """Return all that comes before the tiles, and the size of the whole file."""
        ghost = _ghost(has_masks=self._has_masks)
        first = len(header(0, is_big=is_big)) + len(ghost)
        # positions do not change how long directories are, only what stands in them
        length = len(encode_directories(self._directories(tags, self._tiles, self._masks), at=first, is_big=is_big))
        tiles, masks, size = self._final_positions(first + length)
        directories = encode_directories(self._directories(tags, tiles, masks), at=first, is_big=is_big)
        return header(first, is_big=is_big) + ghost + directories, size

    def _directories(
        self, tags: Mapping[int, Value], tiles: list[TilePositions], masks: list[TilePositions]
    ) -> list[Directory]:
        pyramid, coarse = self._pyramid, range(1, len(tiles))
        chain = [pyramid.directory(0, 0, tiles[0], tags=tags)]
        if self._has_masks:
            chain.append(pyramid.mask_directory(0, masks[0]))
        chain += [pyramid.directory(level, 0, tiles[level]) for level in coarse]
        if self._has_masks:
            chain += [pyramid.mask_directory(level, masks[level]) for level in coarse]
        return chain

    def _final_positions(self, at: int) -> tuple[list[TilePositions], list[TilePositions], int]:
        """Return where tiles and masks will lie when the first comes at `at`, and where the last ends."""
        tiles = [TilePositions(self._pyramid.tiles(level)) for level in range(len(self._tiles))]
        masks = [TilePositions(self._pyramid.tiles(level)) for level in range(len(self._tiles))]
        for level in reversed(range(len(tiles))):
            kept = np.stack([self._tiles[level].counts, self._masks[level].counts], axis=1).astype(np.uint64)
            framed = np.where(kept > 0, kept + np.uint64(_FRAME_BYTES), kept).reshape(-1)
            ends = np.uint64(at) + np.cumsum(framed, dtype=np.uint64)
            starts = (ends - framed + np.uint64(_FRAME_BYTES // 2)).reshape(-1, 2)
            for column, positions in enumerate((tiles[level], masks[level])):
                stored = kept[:, column] > 0
                positions.offsets[stored] = starts[stored, column]
                positions.counts[stored] = kept[stored, column]
            at = int(ends[-1])
        return tiles, masks, at

    def _copy_tiles(self, file: IO[bytes]) -> None:
        for level in reversed(range(len(self._tiles))):
            for offset, nbytes in self._in_order(level):
                data = os.pread(self._spool.fileno(), nbytes, offset)
                if len(data) != nbytes:
                    raise OSError(f"{len(data)} of {nbytes} bytes of a tile were read back")
                file.write(struct.pack("<I", nbytes))
                file.write(data)
                # a tile of fewer bytes repeats the last of what stands there, its size included
                file.write((struct.pack("<I", nbytes) + data)[-4:] if nbytes < 4 else data[-4:])

    def _in_order(self, level: int) -> Iterator[tuple[int, int]]:
        """Yield where each tile of a level, and its mask, was kept; row by row."""
        tiles, masks = self._tiles[level], self._masks[level]
        for index in range(tiles.counts.size):
            for positions in (tiles, masks):
                if positions.counts[index]:
                    yield int(positions.offsets[index]), int(positions.counts[index])


def _ghost(*, has_masks: bool) -> bytes:
    words = _GHOST + (_GHOST_MASK if has_masks else "")
    ghost = f"GDAL_STRUCTURAL_METADATA_SIZE={len(words):06} bytes\n{words}".encode()
    return ghost + b"\0" * (len(ghost) % 2)
