"""ICC profiles: checked, named, and found in PNG, JPEG, JPEG 2000 and WebP files.

References
----------
ICC.1:2022, sections 7.2 and B.1 to B.4 (embedding); PNG, ISO 15948, iCCP; JPEG 2000, ITU-T T.800 I.5.3.3.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator

from tilestream.errors import DamagedError
from tilestream.sources.files import File
from tilestream.sources.rasterhead import jp2_boxes, png_chunks

MOST_BYTES = 16 << 20
"""Larger profiles are left out; look-up tables of real ones take a few MB."""
_APP2 = b"ICC_PROFILE\0"


def checked_icc(data: bytes) -> tuple[bytes | None, tuple[str, ...]]:
    """Return a profile cut to the length that it states, None for one that is broken, and what to say of it.

    Parameters
    ----------
    data : bytes
        As stored; empty for none.

    Returns
    -------
    bytes or None, tuple of str
        The profile, and a note where it is left out.
    """
    if not data:
        return None, ()
    size = int.from_bytes(data[:4], "big")
    if data[36:40] != b"acsp" or not 132 <= size <= min(len(data), MOST_BYTES):
        return None, (f"an ICC profile of {len(data):,} bytes is broken and left out",)
    return data[:size], ()


def icc_description(profile: bytes) -> str:
    """Return the name that a profile gives itself, empty for one that cannot be read.

    Parameters
    ----------
    profile : bytes
        A whole profile.

    Returns
    -------
    str
        One line.
    """
    from PIL import ImageCms  # comes with openslide-python; only for those who ask

    try:
        found = ImageCms.getOpenProfile(io.BytesIO(profile)).profile.profile_description
    except (OSError, ImageCms.PyCMSError):
        return ""
    return " ".join((found or "").split())


def file_icc(file: File, kind: str) -> bytes:
    """Return the profile of an image file as stored, empty when it has none.

    Parameters
    ----------
    file : File
        The file.
    kind : str
        `png`, `jpeg`, `jp2` or `webp`.

    Returns
    -------
    bytes
        Not checked yet.

    Raises
    ------
    DamagedError
        When the parts of a profile are missing or do not decode.
    """
    return _FINDERS[kind](file)


def _png(file: File) -> bytes:
    for kind, offset, length in png_chunks(file):
        if kind == b"iCCP":
            _, _, rest = file.read(offset, min(length, MOST_BYTES)).partition(b"\0")
            try:
                return zlib.decompressobj().decompress(rest[1:], MOST_BYTES)  # first comes the method, always deflate
            except zlib.error as error:
                raise DamagedError(f"PNG chunk iCCP does not decompress: {error}") from error
        if kind in (b"PLTE", b"IDAT"):  # it must come before these
            break
    return b""


def _jpeg(file: File) -> bytes:
    parts: dict[int, bytes] = {}
    total = 0
    for marker, offset, length in _segments(file):
        if marker == 0xE2 and length > len(_APP2) + 2:
            content = file.read(offset, length)
            if content.startswith(_APP2):
                number, total = content[12], content[13]
                parts.setdefault(number, content[14:])
    if total and sorted(parts) != list(range(1, total + 1)):
        raise DamagedError(f"JPEG file holds parts {sorted(parts)} of an ICC profile of {total}")
    return b"".join(parts[number] for number in sorted(parts))


def _segments(file: File) -> Iterator[tuple[int, int, int]]:
    """Yield marker, offset and length of the content of each segment before the scan."""
    at = 2
    while at + 4 <= file.size:
        head = file.read(at, 4)
        length = int.from_bytes(head[2:], "big")
        if head[:2] == b"\xff\xff":  # any number of these may stand before a marker
            at += 1
            continue
        if head[0] != 0xFF or head[1] == 0xDA or length < 2 or at + 2 + length > file.size:
            return
        yield head[1], at + 4, length - 2
        at += 2 + length


def _jp2(file: File) -> bytes:
    if file.read(0, 2) == b"\xff\x4f":  # a bare codestream
        return b""
    for kind, offset, length in jp2_boxes(file, 0, file.size):
        if kind == b"jp2h":
            for inner, start, size in jp2_boxes(file, offset, offset + length):
                if inner == b"colr" and size > 3 and file.read(start, 1) in (b"\2", b"\3"):  # restricted, or any
                    return file.read(start + 3, min(size - 3, MOST_BYTES))
            break
    return b""


def _webp(file: File) -> bytes:
    at = 12
    while at + 8 <= file.size:
        head = file.read(at, 8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"ICCP":
            return file.read(at + 8, min(length, MOST_BYTES))
        at += 8 + length + length % 2
    return b""


_FINDERS: dict[str, Callable[[File], bytes]] = {"png": _png, "jpeg": _jpeg, "jp2": _jp2, "webp": _webp}
