"""JPEG pieces of a TIFF: checked, then decoded, or made into streams that stand for themselves.

Aperio stores RGB as RGB; elsewhere RGB inside JPEG is YCbCr when the stream says so (tifffile's rule). Samples that are
no colour are never converted (libtiff's).
"""

from __future__ import annotations

import imagecodecs

from tilestream.errors import DamagedError
from tilestream.sources import tifftable as tt
from tilestream.sources.jpegcheck import JpegHead, check_scan, read_head
from tilestream.sources.jpegsplice import MOST_COMPONENTS, JpegSplicer, lossless_jpeg, shared_tables
from tilestream.sources.tifftable import TileTable
from tilestream.types import Array

_GREY, _RGB, _CMYK = 1, 2, 4
_AS_STORED = {3: (_RGB, _RGB), 4: (_CMYK, _CMYK)}
"""Colours that make a decoder leave components alone; told nothing, or that they are unknown, it guesses YCbCr."""
_ERRORS = (RuntimeError, ValueError, OverflowError)


class JpegCheck:
    """Checks the JPEG pieces of one table; remembers the last good head, which hardly ever changes."""

    def __init__(self, table: TileTable) -> None:
        self._table = table
        # head bytes, head, rows it was checked for; replaced whole, so safe under threads
        self._known: tuple[bytes, JpegHead | None, int] = (b"\0", None, 0)

    def __call__(self, data: bytes, rows: int) -> JpegHead:
        """Return the head of a piece of which the image needs `rows`, all of its stream being checked."""
        start, head, checked_rows = self._known
        if head is None or checked_rows != rows or not data.startswith(start):
            head = read_head(data)
            self._check_frame(head.height, head.width, head.components, rows)
            self._known = (data[: head.size], head, rows)
        check_scan(data, head)
        return head

    def _check_frame(self, height: int, width: int, components: int, rows: int) -> None:
        table = self._table
        if components != table.piece_samples:
            raise DamagedError(f"JPEG frame of {components} components, the image has {table.piece_samples}")
        if width != table.piece.x or not rows <= height <= table.piece.y:
            raise DamagedError(
                f"JPEG frame of {height} x {width} pixels, the image is stored in {table.piece.y} x {table.piece.x}"
            )


class JpegDecoder:
    """Decodes the JPEG pieces of one table."""

    def __init__(self, table: TileTable) -> None:
        self._table = table
        self._check = JpegCheck(table)

    def __call__(self, data: bytes, rows: int, out: Array | None = None) -> Array:
        """Return the pixels of a piece, in `out` when that has their size."""
        head = self._check(data, rows)
        stored, wanted = self._colours(head.has_colour_mark)
        if out is not None and out.shape != (head.height, head.width, 3):
            out = None
        try:
            pixels = imagecodecs.jpeg8_decode(
                data, tables=self._table.jpeg_tables, colorspace=stored, outcolorspace=wanted, out=out
            )
        except _ERRORS as error:
            raise DamagedError(f"JPEG stream does not decode: {error}") from error
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.shape != (head.height, head.width, self._table.piece_samples):
            raise DamagedError(f"JPEG stream decodes to {pixels.shape}, not to what its frame declares")
        return pixels

    def _colours(self, marked: bool) -> tuple[int | None, int | None]:
        table = self._table
        if table.planar or table.samples == 1:
            return None, _GREY
        if table.samples == 3 and table.photometric == tt.YCBCR:
            return None, _RGB
        if table.samples == 3 and table.photometric == tt.RGB:
            return None if marked else _RGB, _RGB
        return _AS_STORED.get(table.samples, (None, None))


class JpegCopy:
    """Makes the JPEG pieces of one table into streams that need neither its tables nor its colour tags."""

    def __init__(self, table: TileTable) -> None:
        self._table = table
        self._check = JpegCheck(table)
        self._splice = JpegSplicer(table.jpeg_tables)

    @staticmethod
    def reason(table: TileTable) -> str:
        """Return why no piece of a table can be copied, empty where pieces can."""
        if table.piece_samples > MOST_COMPONENTS:
            return f"JPEG tiles of {table.piece_samples} interleaved samples: one stream is read by few decoders"
        try:
            shared_tables(table.jpeg_tables)
        except DamagedError as error:
            return f"shared JPEG tables that cannot be put into each stream ({error})"
        return ""

    def __call__(self, data: bytes, rows: int) -> bytes:
        """Return a whole tile as a stream that any JPEG decoder turns into the pixels of `JpegDecoder`.

        Parameters
        ----------
        data : bytes
            The piece as it is stored.
        rows : int
            Rows that the image needs of it.

        Returns
        -------
        bytes
            The same entropy-coded data behind a head of its own. A frame of fewer rows than a tile, which no array of
            whole chunks can hold, is coded anew without loss.

        Raises
        ------
        DamagedError
            When it is cut or malformed.
        """
        head = self._check(data, rows)
        if head.height != self._table.piece.y:
            return lossless_jpeg(JpegDecoder(self._table)(data, rows), height=self._table.piece.y)
        return self._splice(data, head, is_raw=self._is_raw(head))

    def _is_raw(self, head: JpegHead) -> bool:
        """Return whether components are the samples themselves, whatever a decoder would guess."""
        table = self._table
        if table.piece_samples < 3 or table.photometric == tt.YCBCR:
            return False
        return table.samples != 3 or table.photometric != tt.RGB or not head.has_colour_mark
