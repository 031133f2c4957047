"""What a JPEG XL stream says before it is decoded: its boxes and the size of its picture.

A few bytes can claim a picture of gigabytes, which a decoder would make first.

References
----------
ISO 18181-1 (JPEG XL) 9.2 (SizeHeader) and 18181-2 (boxes, and `jbrd`, from which a JPEG is made again).
"""

from __future__ import annotations

from collections.abc import Iterator

from tilestream.errors import DamagedError
from tilestream.types import Shape

CODESTREAM = b"\xff\x0a"
"""What a codestream starts with."""
SIGNATURE = b"\0\0\0\x0cJXL \r\n\x87\n"
"""The first box of a file."""
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_HEAD_BYTES = 14
"""A codestream says its size in no more bytes."""


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box of a file; what is cut ends where the file does.

    Parameters
    ----------
    data : bytes
        A file that starts with `SIGNATURE`.

    Yields
    ------
    tuple of bytes, int, int
        Positions in `data`.

    Raises
    ------
    DamagedError
        When a box is shorter than its own head.
    """
    position = 0
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 16 if length == 1 else 8
        length = int.from_bytes(data[position + 8 : position + 16], "big") if length == 1 else length
        stop = len(data) if length == 0 else position + length
        if length and length < head:
            raise DamagedError(f"JPEG XL box at byte {position} of {length} bytes is shorter than its head")
        yield kind, position + head, min(stop, len(data))
        position = stop


def declared_shape(data: bytes) -> Shape:
    """Return the size that a stream declares, px; its picture may be turned by a quarter.

    Parameters
    ----------
    data : bytes
        A codestream, or a file of boxes.

    Returns
    -------
    Shape
        Before anything is decoded.

    Raises
    ------
    DamagedError
        When it is no JPEG XL.
    """
    head = _codestream_head(data)
    if head[:2] != CODESTREAM:
        raise DamagedError("JPEG XL stream does not start with its marker (FF 0A)")
    bits = int.from_bytes(head[2:], "little")
    is_small, bits = bits & 1, bits >> 1
    height, bits = _length(bits, is_small)
    ratio, bits = bits & 7, bits >> 3
    if ratio:
        up, down = _RATIOS[ratio - 1]
        return Shape(y=height, x=height * up // down)
    return Shape(y=height, x=_length(bits, is_small)[0])


def _length(bits: int, is_small: int) -> tuple[int, int]:
    """Return a height or width, and the bits that follow."""
    if is_small:
        return ((bits & 31) + 1) * 8, bits >> 5
    wide = (9, 13, 18, 30)[bits & 3]
    return (bits >> 2 & (1 << wide) - 1) + 1, bits >> 2 + wide


def _codestream_head(data: bytes) -> bytes:
    """Return the first bytes of the codestream, which may lie in several parts of a file."""
    if data[: len(SIGNATURE)] != SIGNATURE:
        return data[:_HEAD_BYTES]
    head = b""
    for kind, start, stop in boxes(data):
        if kind in (b"jxlc", b"jxlp"):  # a part has a number of four bytes in front
            start += 4 * (kind == b"jxlp")
            head += data[start : min(stop, start + _HEAD_BYTES)]
        if len(head) >= _HEAD_BYTES:
            break
    if not head:
        raise DamagedError("JPEG XL file has no box that holds a codestream")
    return head[:_HEAD_BYTES]
