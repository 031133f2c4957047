"""Tiles of one level of a TIFF as Zarr chunks, copied without being decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from tilestream.codecs.imagechunks import JPEG, JPEG2K
from tilestream.errors import DamagedError
from tilestream.sources import tifftable as tt
from tilestream.sources.encoded import copied, image_level
from tilestream.sources.gather import Range, gather
from tilestream.sources.jpeg2000copy import lossless_jpeg2000, stands_alone
from tilestream.sources.streamcheck import check_jpeg2000
from tilestream.sources.tiffdecode import decoder
from tilestream.sources.tiffjpeg import JpegCopy
from tilestream.sources.tiffread import LevelReader, alpha_samples
from tilestream.sources.tifftable import TileTable
from tilestream.types import Cell, Encoded, EncodedLevel

_JPEG2000 = frozenset({tt.APERIO_YCBCR, tt.APERIO_RGB, tt.JPEG2000})
_ADDED_BYTES = 20
"""What a mark of colour and a checksum take at most."""
_TRIED = 16
"""Tiles that are looked at to find one that is whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TiffCopy:
    """Gives the tiles of one level as they are stored."""

    reader: LevelReader
    """The level."""

    @cached_property
    def spec(self) -> EncodedLevel:
        """Return how chunks decode, or why they cannot be copied."""
        reason = self._reason()
        if reason:
            return EncodedLevel(reason=reason)
        table = self._tables[0]
        name = JPEG if table.compression == tt.JPEG else JPEG2K
        # each tile gets the shared tables, a mark of colour and a checksum
        more = _ADDED_BYTES + len(table.jpeg_tables or b"")
        stored = sum(int(one.counts.sum()) + more * int(np.count_nonzero(one.counts)) for one in self._tables)
        return image_level(name, channels=table.piece_samples, tile=table.piece, stored_bytes=stored)

    def read(self, cells: Sequence[Cell]) -> list[Encoded]:
        """Return one chunk a cell, the reason why it is damaged, or None where none is stored."""
        located = [self._locate(cell) for cell in cells]
        stored = gather([where for _, _, where in located])
        return [
            copied(data, self._copies[number], rows) for data, (number, rows, _) in zip(stored, located, strict=True)
        ]

    @property
    def _tables(self) -> tuple[TileTable, ...]:
        return self.reader.level.tables

    def _locate(self, cell: Cell) -> tuple[int, int, Range | None]:
        """Return which table holds a tile, the rows that the image needs of it, and where its bytes lie."""
        channel, iy, ix = cell
        if min(cell) < 0:  # would count from the end without a word
            raise IndexError(f"chunk {cell}: negative")
        number, plane = (channel, 0) if len(self._tables) > 1 else (0, channel)
        table = self._tables[number]
        rows = min(table.piece.y, table.shape.y - iy * table.piece.y)
        offset, nbytes = int(table.offsets[plane, iy, ix]), int(table.counts[plane, iy, ix])
        return number, rows, (table.file, offset, nbytes) if offset and nbytes else None

    @cached_property
    def _copies(self) -> tuple[Callable[[bytes, int], bytes], ...]:
        return tuple(
            JpegCopy(table) if table.compression == tt.JPEG else partial(_jpeg2000, table) for table in self._tables
        )

    def _reason(self) -> str:
        tables, first = self._tables, self._tables[0]
        if not all(table.tiled for table in tables):
            return "pixels are stored in strips, not tiles"
        if first.compression != tt.JPEG and first.compression not in _JPEG2000:
            name = tt.COMPRESSIONS[first.compression] if first.compression != tt.NONE else "uncompressed"
            return f"{name} tiles: only JPEG and JPEG 2000 are copied"
        if len({(table.piece, table.samples, table.compression) for table in tables}) > 1:
            return "channels are stored in different ways"
        if len(tables) > 1 and first.samples > 1:
            return "channels are spread over images of several samples"
        if alpha_samples(first):
            return "an alpha channel is stored among the colours"
        if self.reader.changes_values(first, keep_classes=self.reader.keep_classes):
            return "stored values are inverted, or stand for colours of a palette"
        return JpegCopy.reason(first) if first.compression == tt.JPEG else self._ycbcr()

    def _ycbcr(self) -> str:
        """Return why YCbCr in JPEG 2000 cannot be copied: decoders turn it into RGB only where colour is subsampled."""
        table = self._tables[0]
        if table.compression != tt.APERIO_YCBCR:
            return ""
        stored = np.argwhere((table.offsets[0] != 0) & (table.counts[0] != 0))[:_TRIED].tolist()
        for data in gather([self._locate((0, iy, ix))[2] for iy, ix in stored]):
            with suppress(DamagedError):
                if isinstance(data, bytes) and not check_jpeg2000(data).is_subsampled:
                    return "YCbCr in JPEG 2000 (compression 33003) that only the TIFF's tag tells from RGB"
        return ""


def _jpeg2000(table: TileTable, data: bytes, rows: int) -> bytes:
    head = check_jpeg2000(data, most=table.piece, samples=table.piece_samples)
    is_rgb = table.compression != tt.APERIO_YCBCR or head.is_subsampled
    if is_rgb and stands_alone(head, table.piece, table.dtype):
        return data
    return lossless_jpeg2000(decoder(table)(data, rows), height=table.piece.y)
