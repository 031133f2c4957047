"""Identity of an image from a few cheap facts, never from its pixels or its time stamps."""

from __future__ import annotations

import hashlib

from tilestream.sources.files import File

EDGE_BYTES = 1 << 16
"""Bytes hashed at each end of a file: headers, directories and codestream ends live there."""
PIECES, PIECE_BYTES = 64, 1 << 10
"""Number and size of the pieces that stand for stored bytes whose sizes say nothing of them."""


def digest(*parts: object) -> str:
    """Return the hex digest of the parts in their order.

    Parameters
    ----------
    *parts : object
        Bytes as they are, anything else by its `repr`; each part is closed off, so that `"ab", "c"` is not `"a", "bc"`.

    Returns
    -------
    str
        SHA-256 as 64 hex digits.
    """
    state = hashlib.sha256()
    for part in parts:
        data = bytes(part) if isinstance(part, bytes | bytearray | memoryview) else repr(part).encode()
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()


def file_edges(file: File) -> tuple[int, bytes, bytes]:
    """Return the size of a file and its first and last 64 KiB, for `digest`.

    Parameters
    ----------
    file : File
        The file.

    Returns
    -------
    tuple of int, bytes, bytes
        Size in bytes, head, tail; the tail is empty when the head holds everything.
    """
    size = file.size
    head = file.read(0, min(size, EDGE_BYTES))
    rest = min(size - len(head), EDGE_BYTES)
    return size, head, file.read(size - rest, rest)


def file_pieces(file: File, count: int = PIECES) -> list[bytes]:
    """Return pieces of 1 KiB spread evenly over a file, for `digest`.

    Sizes of compressed tiles differ from one image to the next; those of uncompressed ones do not, and both ends of two
    such files are often alike: glass, or ground without data.

    Parameters
    ----------
    file : File
        The file.
    count : int
        Most pieces.

    Returns
    -------
    list of bytes
        In the order of the file.
    """
    step = max(PIECE_BYTES, file.size // count)
    return file.read_ranges([(at, min(PIECE_BYTES, file.size - at)) for at in range(0, file.size, step)])
