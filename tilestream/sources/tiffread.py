"""Blocks of one stored TIFF image: pieces read, decoded and put together, with what is known of their validity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError
from tilestream.metrics import timed
from tilestream.sources import tifftable as tt
from tilestream.sources.tiffdecode import Decode, decoder
from tilestream.sources.tiffjpeg import JpegDecoder
from tilestream.sources.tifftable import TileTable
from tilestream.types import Array, Block, Box

MERGE_BYTES = 1 << 26
"""Strips that follow one another in the file are read at once up to this size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TableReader:
    """Reads the blocks of one table as they are stored."""

    table: TileTable
    """The table."""

    @cached_property
    def _decode(self) -> Decode:
        return decoder(self.table)

    def read(self, iy: int, ix: int, out: Array | None = None) -> tuple[Array, npt.NDArray[np.bool_] | None] | None:
        """Return the stored samples of a block and which rows are stored.

        Parameters
        ----------
        iy, ix : int
            Row and column in the grid of blocks.
        out : ndarray, optional
            Where a whole JPEG tile may be decoded into.

        Returns
        -------
        tuple or None
            Samples `(y, x, samples)` and `(y,)` True for stored rows (None for all); None when nothing is stored.

        Raises
        ------
        DamagedError
            When a stored piece cannot become pixels.
        """
        table = self.table
        if table.tiled and not table.planar:
            data = self._bytes(0, iy, ix)
            if data is None:
                return None
            with timed("decode"):
                rows = min(table.piece.y, table.shape.y - iy * table.piece.y)
                decode = self._decode
                if isinstance(decode, JpegDecoder):
                    return decode(data, rows, out), None
                return decode(data, rows), None
        return self._assemble(iy, ix)

    def _bytes(self, plane: int, iy: int, ix: int) -> bytes | None:
        table = self.table
        offset, nbytes = int(table.offsets[plane, iy, ix]), int(table.counts[plane, iy, ix])
        if not offset or not nbytes:
            return None
        return table.file.read(offset, nbytes)

    def _assemble(self, iy: int, ix: int) -> tuple[Array, npt.NDArray[np.bool_] | None] | None:
        """Return a block that is stored in several pieces: planes, or strips, or both."""
        table, block = self.table, self.table.block
        step = -(-block.y // table.piece.y)  # a block is whole strips, or the image where that is less
        first, last = iy * step, min((iy + 1) * step, table.offsets.shape[1])
        if first >= last:
            raise IndexError(f"block row {iy} of {-(-table.shape.y // block.y)}")
        rows = block.y if table.tiled else min(block.y, table.shape.y - iy * block.y)
        pixels = np.zeros((rows, block.x, table.samples), table.dtype)
        stored = np.zeros(rows, np.bool_)
        places = [(plane, y) for plane in range(table.planes) for y in range(first, last)]
        for (plane, y), data in zip(places, self._fetch(places, ix), strict=True):
            if data is None:
                continue
            top = (y - first) * table.piece.y
            need = min(table.piece.y, table.shape.y - y * table.piece.y)
            with timed("decode"):
                piece = self._decode(data, need)
            height = min(piece.shape[0], rows - top)
            target = pixels[top : top + height]
            if table.planar:
                target[:, :, plane] = piece[:height, :, 0]
            else:
                target[:] = piece[:height]
            stored[top : top + height] = True
        if not stored.any():
            return None
        return pixels, None if stored.all() else stored

    def _fetch(self, places: list[tuple[int, int]], ix: int) -> list[bytes | None]:
        table = self.table
        ranges = [(int(table.offsets[plane, y, ix]), int(table.counts[plane, y, ix])) for plane, y in places]
        wanted = [(offset, nbytes) for offset, nbytes in ranges if offset and nbytes]
        for offset, nbytes in wanted:
            if offset + nbytes > table.file.size:
                raise DamagedError(f"bytes {offset}..{offset + nbytes} lie outside the file of {table.file.size} bytes")
        total = sum(nbytes for _, nbytes in wanted)
        follows = all(a + n == b for (a, n), (b, _) in pairwise(wanted))
        if len(wanted) > 1 and follows and total <= MERGE_BYTES:
            start = wanted[0][0]
            whole = table.file.read(start, total)
            parts = iter([whole[offset - start : offset - start + nbytes] for offset, nbytes in wanted])
        else:
            parts = iter(table.file.read_ranges(wanted))
        return [next(parts) if offset and nbytes else None for offset, nbytes in ranges]

    def warm(self, box: Box) -> None:
        """Fetch what the blocks of a box are stored in ahead of reading them."""
        table, block = self.table, self.table.block
        step = block.y // table.piece.y if table.tiled else -(-block.y // table.piece.y)
        rows = slice(box.y // block.y * step, -(-box.y_stop // block.y) * step)
        columns = slice(box.x // block.x, -(-box.x_stop // block.x))
        offsets, counts = table.offsets[:, rows, columns].ravel(), table.counts[:, rows, columns].ravel()
        stored = (offsets != 0) & (counts != 0)
        if np.count_nonzero(stored) > 1:  # one piece is one request anyway
            table.file.warm(list(zip(offsets[stored].tolist(), counts[stored].tolist(), strict=True)))

    def window(self, box: Box) -> Array:
        """Return the samples of a box inside the image `(y, x, samples)`, 0 where nothing is stored."""
        table, block = self.table, self.table.block
        out = np.zeros((box.height, box.width, table.samples), table.dtype)
        for iy in range(box.y // block.y, -(-box.y_stop // block.y)):
            for ix in range(box.x // block.x, -(-box.x_stop // block.x)):
                found = self.read(iy, ix)
                if found is None:
                    continue
                part = Box(y=iy * block.y, x=ix * block.x, height=found[0].shape[0], width=found[0].shape[1])
                both = part.intersect(box)
                ys, xs = Box(y=both.y - box.y, x=both.x - box.x, height=both.height, width=both.width).slices_yx
                py, px = Box(y=both.y - part.y, x=both.x - part.x, height=both.height, width=both.width).slices_yx
                out[ys, xs] = found[0][py, px]
        return out


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelTables:
    """One level of the selected 2-D image: the tables of its channels and of its mask."""

    tables: tuple[TileTable, ...]
    """One table that holds all channels, or one for each channel."""
    mask: TileTable | None = None
    """Validity mask of the level's size."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelReader:
    """Reads the blocks of one level as channels and validity."""

    level: LevelTables
    """What is stored."""
    nodata: float | None = None
    """Value that means "no measurement"."""
    keep_classes: bool = False
    """Whether palette numbers are classes and stay numbers."""

    def read_block(self, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one decoded block, None where nothing is stored; raise `DamagedError` when it cannot become pixels."""
        if self._is_plain:
            found = self._readers[0].read(iy, ix, out)
            if found is None:
                return None
            return Block(pixels=found[0], valid=None if found[1] is None else self._rows(found[1], found[0].shape))
        return self._full(iy, ix)

    def warm(self, box: Box) -> None:
        """Fetch what a box is stored in ahead of reading it."""
        whole = self.level.tables[0].shape
        inside = box.intersect(Box(level=box.level, y=0, x=0, height=whole.y, width=whole.x))
        if inside.height and inside.width:
            for reader in (*self._readers, *([self._mask_reader] if self._mask_reader is not None else [])):
                reader.warm(inside)

    @cached_property
    def _readers(self) -> tuple[TableReader, ...]:
        return tuple(TableReader(table=table) for table in self.level.tables)

    @cached_property
    def _mask_reader(self) -> TableReader | None:
        return None if self.level.mask is None else TableReader(table=self.level.mask)

    @cached_property
    def _is_plain(self) -> bool:
        table = self.level.tables[0]
        return (
            len(self.level.tables) == 1
            and self.level.mask is None
            and self.nodata is None
            and table.dtype.kind != "f"
            and not alpha_samples(table)
            and not self.changes_values(table, keep_classes=self.keep_classes)
        )

    @staticmethod
    def changes_values(table: TileTable, *, keep_classes: bool) -> bool:
        """Return whether other values are given than are stored: inverted ones, or colours of a palette."""
        return _inverts(table) or (table.palette is not None and not keep_classes)

    @staticmethod
    def _rows(stored: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        return np.broadcast_to(stored[:, None], shape[:2]).copy()

    def _full(self, iy: int, ix: int) -> Block | None:
        parts = [reader.read(iy, ix) for reader in self._readers]
        present = [part for part in parts if part is not None]
        if not present:
            return None
        first, stored = present[0]
        if len(parts) == 1:
            pixels = first
        else:  # channels in planes of their own; one that is absent stays at nodata or 0
            fill = 0 if self.nodata is None else self.nodata
            empty = np.full(first.shape, fill, first.dtype) if len(present) < len(parts) else first
            pixels = np.concatenate([empty if part is None else part[0] for part in parts], axis=2)
        valid = None if stored is None else self._rows(stored, first.shape)
        pixels, seen = self._split_alpha(pixels)
        for more in (seen, self._measured(pixels), self._masked(iy, ix, pixels.shape)):
            if more is not None:
                valid = more if valid is None else valid & more
        pixels = self._coloured(pixels)  # after nodata, which is a stored value
        return Block(pixels=pixels, valid=None if valid is None or valid.all() else valid)

    def _split_alpha(self, pixels: Array) -> tuple[Array, npt.NDArray[np.bool_] | None]:
        table = self.level.tables[0]
        alpha = alpha_samples(table)
        if not alpha:
            return pixels, None
        kept = [index for index in range(table.samples) if index not in alpha]
        seen = np.asarray((pixels[:, :, list(alpha)] != 0).all(axis=2))
        return pixels[:, :, : len(kept)] if kept == list(range(len(kept))) else pixels[:, :, kept], seen

    def _coloured(self, pixels: Array) -> Array:
        table = self.level.tables[0]
        if _inverts(table):
            pixels = ((1 << table.bits) - 1) - pixels
        if table.palette is not None and not self.keep_classes:
            pixels = table.palette[pixels[:, :, 0]]
        return pixels

    def _measured(self, pixels: Array) -> npt.NDArray[np.bool_] | None:
        """Return where any channel differs from nodata and all are finite: no statistic survives NaN."""
        valid: npt.NDArray[np.bool_] | None = None
        if self.nodata is not None and not np.isnan(self.nodata):
            with np.errstate(over="ignore"):  # a number that the type cannot hold is infinite in it, as in GDAL
                value = np.asarray(self.nodata).astype(pixels.dtype)
            # channel by channel: a reduction over so short an axis takes ten times as long
            valid = np.asarray(pixels[:, :, 0] != value)
            for channel in range(1, pixels.shape[2]):
                valid |= pixels[:, :, channel] != value
        if pixels.dtype.kind == "f":
            for channel in range(pixels.shape[2]):
                number = np.asarray(np.isfinite(pixels[:, :, channel]))
                valid = number if valid is None else valid & number
        return valid

    def _masked(self, iy: int, ix: int, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
        if self._mask_reader is None:
            return None
        table, mask = self.level.tables[0], self._mask_reader.table
        if mask.block == table.block:
            found = self._mask_reader.read(iy, ix)
            if found is not None and found[0].shape[:2] == shape[:2]:
                seen = found[0][:, :, 0]
                return seen.view(np.bool_) if mask.bits == 1 else seen != 0
        whole = Box(y=0, x=0, height=table.shape.y, width=table.shape.x)
        box = Box(y=iy * table.block.y, x=ix * table.block.x, height=shape[0], width=shape[1]).intersect(whole)
        valid = np.zeros(shape[:2], np.bool_)
        valid[: box.height, : box.width] = self._mask_reader.window(box)[:, :, 0] != 0
        return valid


def _inverts(table: TileTable) -> bool:
    return table.photometric == tt.MINISWHITE and table.dtype.kind == "u"


def alpha_samples(table: TileTable) -> tuple[int, ...]:
    """Return the positions of the samples that are alpha."""
    first = table.samples - len(table.extra)
    return tuple(first + index for index, kind in enumerate(table.extra) if kind in (1, 2) and first > 0)
