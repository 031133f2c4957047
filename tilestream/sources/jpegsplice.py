"""Makes JPEG streams stand for themselves: shared tables put in, and what the components are said by a marker.

Only the head of a stream is written anew. It is the same for nearly all tiles of an image, so that it is made once and
the entropy-coded data is copied.

References
----------
ITU-T T.81, annex B (abbreviated format for table specification); ITU-T T.872 (the marker of Adobe).
"""

from __future__ import annotations

import imagecodecs
import numpy as np

from tilestream.errors import DamagedError
from tilestream.sources.jpegcheck import SOI, JpegHead, segment
from tilestream.types import Array

MOST_COMPONENTS = 4
"""One scan holds at most as many (T.81, B.2.3), and more have no colours that decoders know."""
# Adobe's marker with transform 0: components are the samples themselves, RGB or CMYK.
_RAW_MARK = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
_REMEMBERED = 256
"""Heads that were tried, a process and level; most images have one."""
_TABLES = frozenset({0xC4, 0xCC, 0xDB})
_COLOURS = {1: "GRAYSCALE", 2: "UNKNOWN", 3: "RGB", 4: "CMYK"}


class JpegSplicer:
    """Writes the heads of streams anew; remembers the last one, and those that were seen to decode.

    Parameters
    ----------
    tables : bytes or None
        Stream of tables that all streams share.
    """

    def __init__(self, tables: bytes | None = None) -> None:
        self._tables = tables
        # head as stored, whether raw, head as written; replaced whole, so safe under threads
        self._known: tuple[bytes, bool, bytes] = (b"\0", False, b"")
        self._tried: set[bytes] = set()

    def __call__(self, data: bytes, head: JpegHead, *, is_raw: bool) -> bytes:
        """Return a stream with a head of its own.

        Parameters
        ----------
        data : bytes
            A stream that was checked.
        head : JpegHead
            Its head.
        is_raw : bool
            Whether components are to be left as they are; else decoders go by the stream's own marks.

        Returns
        -------
        bytes
            A stream that needs no shared tables.

        Raises
        ------
        DamagedError
            When the shared tables are broken, or the head is one that no decoder takes.
        """
        stream = data
        if self._tables or is_raw:
            start, was_raw, written = self._known
            if was_raw != is_raw or not data.startswith(start):
                start = data[: head.size]
                written = _rewritten(start, self._tables, is_raw)
                self._known = (start, is_raw, written)
            stream = b"".join((written, memoryview(data)[head.size :]))
        self._try(stream, data[: head.size], head)
        return stream

    def _try(self, stream: bytes, start: bytes, head: JpegHead) -> None:
        """Decode a stream whose head is new: tables can be wrong in more ways than a walk over markers sees.

        A decoder gives up over a head, never over one scan of entropy-coded data, so that one try stands for all
        streams with that head. Several scans bring tables of their own and are tried each.
        """
        if start in self._tried:
            return
        try:
            pixels = imagecodecs.jpeg8_decode(stream)
        except (RuntimeError, ValueError) as error:
            raise DamagedError(f"JPEG stream does not decode: {error}") from error
        if (*pixels.shape, 1)[:3] != (head.height, head.width, head.components):
            raise DamagedError(f"JPEG stream decodes to {pixels.shape}, not to what its frame declares")
        if head.restarts >= 0:
            if len(self._tried) >= _REMEMBERED:
                self._tried.clear()
            self._tried.add(start)


def _rewritten(head: bytes, tables: bytes | None, is_raw: bool) -> bytes:
    """Return a head with marks of the application first, then shared tables, then the rest, which may redefine them."""
    marks, rest, position = [SOI], list[bytes](), 2
    while position < len(head):
        code, body, stop = segment(head, position)
        part, position = head[position:stop], stop
        says_colour = (code == 0xE0 and body[:4] == b"JFIF") or (code == 0xEE and body[:5] == b"Adobe")
        if not (is_raw and says_colour):
            (marks if 0xE0 <= code <= 0xEF and not rest else rest).append(part)
    return b"".join([*marks, _RAW_MARK if is_raw else b"", shared_tables(tables), *rest])


def shared_tables(tables: bytes | None) -> bytes:
    """Return the segments of a stream of tables that count for the images behind it: quantisation and Huffman tables.

    Parameters
    ----------
    tables : bytes or None
        A stream without an image.

    Returns
    -------
    bytes
        Marker segments; an interval of restarts or a mark of colour is left out, since each image starts without.

    Raises
    ------
    DamagedError
        When it is no such stream.
    """
    if not tables:
        return b""
    if tables[:2] != SOI:
        raise DamagedError(f"shared JPEG tables do not start with their marker (FF D8) but with {tables[:2].hex(' ')}")
    kept, position = [], 2
    while position < len(tables) and tables[position : position + 2] != b"\xff\xd9":
        code, _, stop = segment(tables, position)
        if code in _TABLES:
            kept.append(tables[position:stop])
        position = stop
    return b"".join(kept)


def lossless_jpeg(pixels: Array, *, height: int) -> bytes:
    """Return a stream that holds pixels exactly (T.81, annex H), the last row repeated up to `height`.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)` uint8 of 1 to 4 channels.
    height : int
        Rows of the result.

    Returns
    -------
    bytes
        A stream that libjpeg-turbo 3 decodes like any other.
    """
    full = np.pad(pixels, ((0, height - pixels.shape[0]), (0, 0), (0, 0)), mode="edge")
    colours = _COLOURS[pixels.shape[2]]
    plain = np.ascontiguousarray(full[:, :, 0] if pixels.shape[2] == 1 else full)
    return bytes(imagecodecs.jpeg8_encode(plain, lossless=True, colorspace=colours, outcolorspace=colours))
