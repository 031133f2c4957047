"""Tells a damaged JPEG stream before it is decoded, because decoders fill what is missing with grey and stay silent.

Checked are start and end of the image, every marker in between, size and components of the frame, and the order and
number of restart markers. Entropy-coded data carries no checksum: a flipped bit that leaves the markers alone is not
seen.

References
----------
ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tilestream.errors import DamagedError

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_NOT_STUFFED = re.compile(rb"\xff[^\x00]", re.DOTALL)
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
_LOSSLESS = frozenset({0xC3, 0xF7})
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, kw_only=True)
class JpegHead:
    """What stands before the entropy-coded data of a stream."""

    size: int
    """Bytes up to the entropy-coded data."""
    height: int
    """Rows of the frame."""
    width: int
    """Columns of the frame."""
    components: int
    """Components of the frame."""
    restarts: int
    """Restart markers that the scan must hold; -1 when there are several scans to count."""
    has_colour_mark: bool
    """Whether a JFIF or Adobe marker says what the components are."""


def read_head(data: bytes, *, lossless: bool = False) -> JpegHead:
    """Return what the markers before the first scan's data say.

    Parameters
    ----------
    data : bytes
        The stream.
    lossless : bool
        Whether a lossless frame (FF C3) will do as well.

    Returns
    -------
    JpegHead
        The head.

    Raises
    ------
    DamagedError
        When it does not start as a JPEG image, breaks off, or holds a frame that is not 8-bit Huffman-coded.
    """
    if data[:2] != SOI:
        raise DamagedError(
            f"JPEG stream does not start with its marker (FF D8) but with {data[:2].hex(' ') or 'nothing'}"
        )
    # An interval in shared tables does not count: decoders set it to none at every start of an image.
    position, frame, marked, interval = 2, b"", False, 0
    while True:
        code, body, position = segment(data, position)
        if code in _FRAMES or (lossless and code == 0xC3):
            frame = bytes([code]) + body
        elif code in _OTHER_FRAMES:
            raise DamagedError(f"JPEG frame of kind FF {code:02X} is not one that can be decoded")
        elif code == 0xDD and len(body) == 2:
            interval = int.from_bytes(body, "big")
        elif (code == 0xE0 and body[:4] == b"JFIF") or (code == 0xEE and body[:5] == b"Adobe"):
            marked = True
        elif code == 0xDA:
            break
    return _head(frame, scan=body, position=position, interval=interval, marked=marked)


def _head(frame: bytes, *, scan: bytes, position: int, interval: int, marked: bool) -> JpegHead:
    if len(frame) < 7 or len(frame) != 7 + 3 * frame[6] or not scan:
        raise DamagedError("JPEG stream has no whole frame header before its data")
    if frame[1] != 8:
        raise DamagedError(f"JPEG frame of {frame[1]} bits a sample, not 8")
    height, width, components = int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big"), frame[6]
    factors = [(f >> 4, f & 15) for f in frame[8::3]]
    if not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors) or not height or not width:
        raise DamagedError(f"JPEG frame of {height} x {width} with sampling factors {factors} makes no sense")
    restarts = 0
    if frame[0] in (0xC2, 0xC3) or scan[0] != components:
        restarts = -1
    elif interval:
        h, v = (1, 1) if components == 1 else (max(h for h, _ in factors), max(v for _, v in factors))
        units = -(-width // (8 * h)) * -(-height // (8 * v))
        restarts = -(-units // interval) - 1
    return JpegHead(
        size=position,
        height=height,
        width=width,
        components=components,
        restarts=restarts,
        has_colour_mark=marked,
    )


def declared_size(data: bytes) -> tuple[int, int, int]:
    """Return rows, columns and components of the frame of a lossless JPEG or JPEG-LS stream.

    Parameters
    ----------
    data : bytes
        The stream.

    Returns
    -------
    tuple of int, int, int
        As declared, before anything is decoded.

    Raises
    ------
    DamagedError
        When it does not start as such a stream, or breaks off before its frame.
    """
    code, position = 0, 2 if data[:2] == SOI else len(data)
    body = b""
    while code not in _LOSSLESS:
        code, body, position = segment(data, position)
    return int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big"), body[5] if len(body) > 5 else 0


def segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Return code, content and end of the marker segment at `position`.

    Parameters
    ----------
    data : bytes
        The stream.
    position : int
        Where the segment's marker starts.

    Returns
    -------
    int, bytes, int
        Second byte of the marker, content without its length, position behind it.

    Raises
    ------
    DamagedError
        When there is no segment, or it reaches beyond the end.
    """
    start = position
    while data[position : position + 1] == b"\xff":
        position += 1
    code = data[position] if start < position < len(data) else 0
    length = int.from_bytes(data[position + 1 : position + 3], "big")
    stop = position + 1 + length
    if code < 0xC0 or 0xD0 <= code <= 0xD9 or length < 2 or stop > len(data):
        raise DamagedError(
            f"JPEG marker expected at byte {start}, found {data[start : start + 2].hex(' ') or 'the end'}"
        )
    return code, data[position + 3 : stop], stop


def check_scan(data: bytes, head: JpegHead) -> None:
    """Raise unless the entropy-coded data is unbroken up to the end marker.

    Parameters
    ----------
    data : bytes
        The stream.
    head : JpegHead
        Its head.

    Raises
    ------
    DamagedError
        When a marker stands where none may, a restart marker is missing or out of order, or the end is missing.
    """
    if head.restarts == 0:
        # One search in C instead of a walk: the first FF that is not a stuffed one belongs to the end marker.
        found = _NOT_STUFFED.search(data, head.size)
        if found is not None and found.end() == len(data) and found[0] == EOI:
            return
    _walk(data, head)


def _walk(data: bytes, head: JpegHead) -> None:
    position, seen = head.size, 0
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            raise DamagedError(f"JPEG stream of {len(data)} bytes has no end marker (FF D9): it is cut")
        code, position = found[1][0], found.end()
        if code == 0xD9:
            break
        if 0xD0 <= code <= 0xD7:
            if code - 0xD0 != seen % 8:
                raise DamagedError(f"JPEG restart marker {code - 0xD0} at byte {found.start()}, expected {seen % 8}")
            seen += 1
        elif head.restarts < 0 and code in (0xC4, 0xDA, 0xDB, 0xDD, 0xFE):
            _, _, position = segment(data, found.start())
            seen = 0 if code == 0xDA else seen
        else:
            raise DamagedError(f"JPEG marker FF {code:02X} inside the data at byte {found.start()}")
    if head.restarts >= 0 and seen != head.restarts:
        raise DamagedError(f"JPEG stream has {seen} restart markers, expected {head.restarts}: it is cut")
