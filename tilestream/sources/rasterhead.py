"""Headers of PNG, JPEG, JPEG 2000 and WebP: size and samples before anything is allocated, and whether the file is cut.

References
----------
PNG, ISO 15948; JPEG, ITU-T T.81; JPEG 2000, ITU-T T.800 annexes A and I; WebP container specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File
from tilestream.sources.jpegcheck import read_head
from tilestream.sources.streamcheck import check_webp
from tilestream.types import Shape

MOST_DECODED_BYTES = 8 << 30
"""A larger image in a format that is decoded whole is refused."""
RATIOS = {"png": 1100, "jpeg": 1100, "jp2": 1 << 20, "webp": 1 << 20}
"""Most decoded bytes that one stored byte can stand for. Deflate ends at 1032, JPEG spends a bit on a block of 64
samples at least; the other two can say "nothing" in almost no bytes, so only the absurd is refused."""
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


@dataclass(frozen=True, kw_only=True)
class RasterHead:
    """What a header says of an image."""

    format: str
    """`png`, `jpeg`, `jp2` or `webp`."""
    shape: Shape
    """Size, px."""
    samples: int
    """Samples a pixel, alpha included."""
    dtype: np.dtype[Any]
    """Type of the samples."""
    alpha: int | None = None
    """Which sample is alpha."""
    geo: tuple[bytes, ...] = ()
    """GeoTIFF that a JP2 file carries in a UUID box."""
    codestream: tuple[int, int] | None = None
    """Where the codestream of a JPEG 2000 image begins and ends, when its tiles mean the same without the file."""
    notes: tuple[str, ...] = ()
    """For users."""


def read_raster_head(file: File) -> RasterHead:
    """Return the header of an image file, checked against the file's size.

    Parameters
    ----------
    file : File
        PNG, JPEG, JPEG 2000 (file or bare codestream) or WebP.

    Returns
    -------
    RasterHead
        Size and samples.

    Raises
    ------
    SourceError
        When the header is broken, the file is cut, or the size is one that so few bytes cannot hold.
    """
    start = file.read(0, min(file.size, 16))
    try:
        if start.startswith(b"\x89PNG"):
            head = _png(file)
        elif start.startswith(b"\xff\xd8"):
            head = _jpeg(file)
        elif start.startswith(b"RIFF"):
            head = _webp(file)
        else:
            head = _jp2(file)
    except DamagedError as error:
        raise SourceError.of(
            f"`{file.url}`", got=str(error), expected="a whole image", do="Copy it again from where it came."
        ) from error
    size = head.shape.area * head.samples * head.dtype.itemsize
    if size > MOST_DECODED_BYTES or size > RATIOS[head.format] * file.size + 4096:
        raise SourceError.of(
            f"`{file.url}`",
            got=f"a header of {head.shape.y:,} x {head.shape.x:,} pixels over {file.size:,} bytes",
            expected=f"a size that the bytes can hold, at most {MOST_DECODED_BYTES >> 30} GiB decoded",
            do="Check the file; a real image of that size belongs into a tiled format.",
        )
    return head


def png_chunks(file: File) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, offset and length of the content of each chunk of a PNG file up to its end chunk.

    Parameters
    ----------
    file : File
        A PNG file.

    Yields
    ------
    tuple of bytes, int, int
        Type, offset, length.

    Raises
    ------
    DamagedError
        When the file ends before the end chunk does.
    """
    position = 8
    while True:
        if position + 12 > file.size:
            raise DamagedError(f"PNG file of {file.size:,} bytes is cut: it has no end chunk (IEND)")
        head = file.read(position, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if position + 12 + length > file.size:
            raise DamagedError(f"PNG file of {file.size:,} bytes is cut inside chunk {kind!r} of {length:,} bytes")
        yield kind, position + 8, length
        if kind == b"IEND":
            return
        position += 12 + length


def _png(file: File) -> RasterHead:
    chunks = png_chunks(file)
    kind, offset, length = next(chunks)
    if kind != b"IHDR" or length != 13:
        raise DamagedError(f"PNG file starts with chunk {kind!r} instead of its header (IHDR)")
    header = file.read(offset, 13)
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    depth, colour = header[8], header[9]
    if colour not in _PNG_SAMPLES or depth not in (1, 2, 4, 8, 16) or not width or not height:
        raise DamagedError(f"PNG header of {height} x {width}, depth {depth}, colour type {colour} makes no sense")
    has_key = b"tRNS" in {kind for kind, _, _ in chunks}  # to the end, so that a cut file is found out
    samples = _PNG_SAMPLES[colour] + (1 if has_key and colour in (0, 2, 3) else 0)
    return RasterHead(
        format="png",
        shape=Shape(y=height, x=width),
        samples=samples,
        dtype=np.dtype(np.uint16 if depth == 16 else np.uint8),
        alpha=samples - 1 if samples in (2, 4) else None,
        notes=("its colours come from a palette",) if colour == 3 else (),
    )


def _jpeg(file: File) -> RasterHead:
    size, wanted = file.size, 1 << 16
    while True:
        try:
            head = read_head(file.read(0, min(size, wanted)))
            break
        except DamagedError:
            if wanted >= size:
                raise
            wanted *= 4  # profiles and thumbnails may stand before the frame
    tail = file.read(max(0, size - (1 << 16)), min(size, 1 << 16))
    if b"\xff\xd9" not in tail:
        raise DamagedError(f"JPEG file of {size:,} bytes has no end marker (FF D9): it is cut")
    if head.components not in (1, 3):
        raise DamagedError(f"JPEG frame of {head.components} components is not grey or colour")
    return RasterHead(
        format="jpeg",
        shape=Shape(y=head.height, x=head.width),
        samples=head.components,
        dtype=np.dtype(np.uint8),
    )


def _webp(file: File) -> RasterHead:
    head = check_webp(file.read(0, min(30, file.size)), stored_bytes=file.size)
    samples = 4 if head.has_alpha else 3
    return RasterHead(
        format="webp",
        shape=head.shape,
        samples=samples,
        dtype=np.dtype(np.uint8),
        alpha=3 if head.has_alpha else None,
    )


_GEOJP2 = bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03")


def jp2_boxes(file: File, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, offset and length of the content of each box in a range of a JP2 file.

    Parameters
    ----------
    file : File
        A JP2 file.
    start, stop : int
        Range, bytes.

    Yields
    ------
    tuple of bytes, int, int
        Type, offset, length.

    Raises
    ------
    DamagedError
        When a box reaches beyond the range.
    """
    while start + 8 <= stop:
        head = file.read(start, min(16, stop - start))
        length, skip = int.from_bytes(head[:4], "big"), 8
        if length == 1 and len(head) == 16:
            length, skip = int.from_bytes(head[8:16], "big"), 16
        elif length == 0:
            length = stop - start
        if length < skip or start + length > stop:
            raise DamagedError(f"JP2 file is cut: box {head[4:8]!r} of {length:,} bytes reaches beyond its end")
        yield head[4:8], start + skip, length - skip
        start += length


def _jp2(file: File) -> RasterHead:
    start, stop, geo, alpha, notes = 0, file.size, [], None, []
    if file.read(0, 2) != b"\xff\x4f":
        start = -1
        for kind, offset, length in jp2_boxes(file, 0, file.size):
            if kind == b"jp2h":
                alpha, more = _jp2_header(file, offset, offset + length)
                notes += more
            elif kind == b"uuid" and length > 16 and file.read(offset, 16) == _GEOJP2:
                geo.append(file.read(offset + 16, min(length - 16, 1 << 20)))
            elif kind == b"jp2c":
                start, stop = offset, offset + length
                break
    if start < 0 or start + 47 > file.size:
        raise DamagedError("JP2 file has no codestream (box jp2c)")
    shape, samples, dtype = _siz(file.read(start, min(file.size - start, 42 + 3 * 64)))
    return RasterHead(
        format="jp2",
        shape=shape,
        samples=samples,
        dtype=dtype,
        alpha=alpha,
        geo=tuple(geo),
        codestream=None if notes else (start, stop),  # a palette and YCC are turned by what the file says around it
        notes=tuple(notes),
    )


def _jp2_header(file: File, start: int, stop: int) -> tuple[int | None, list[str]]:
    """Return which sample is alpha, and notes on the colour space."""
    alpha, notes = None, []
    for kind, offset, length in jp2_boxes(file, start, stop):
        content = file.read(offset, min(length, 4096))
        if kind == b"cdef":
            for at in range(2, len(content) - 5, 6):
                number, role = (int.from_bytes(content[at + k : at + k + 2], "big") for k in (0, 2))
                alpha = number if role in (1, 2) else alpha
        elif kind == b"colr" and content[:1] == b"\1" and int.from_bytes(content[3:7], "big") == 18:
            notes.append("its samples are YCC: they are turned into RGB")
        elif kind == b"pclr":
            notes.append("its samples are numbers of a palette: they are given as stored")
    return alpha, notes


def _siz(data: bytes) -> tuple[Shape, int, np.dtype[Any]]:
    if data[:4] != b"\xff\x4f\xff\x51":
        raise DamagedError("JPEG 2000 codestream does not start with its markers (FF 4F FF 51)")
    width, height, x0, y0 = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    samples = int.from_bytes(data[40:42], "big")
    parts = [data[42 + 3 * n : 45 + 3 * n] for n in range(min(samples, 64))]
    sizes = {part[:1] for part in parts}
    if width <= x0 or height <= y0 or not 1 <= samples <= 64 or len(parts[-1]) < 3:
        raise DamagedError(f"JPEG 2000 header of {height - y0} x {width - x0} x {samples} makes no sense")
    depth, signed = (parts[0][0] & 0x7F) + 1, bool(parts[0][0] & 0x80)
    if len(sizes) > 1 or depth > 16 or any(part[1:] != b"\1\1" for part in parts) or (signed and depth <= 8):
        raise DamagedError(f"JPEG 2000 samples of {depth} bits, sub-sampled or of several kinds, cannot be read")
    dtype = np.dtype(np.uint8) if depth <= 8 else np.dtype(np.int16 if signed else np.uint16)
    return Shape(y=height - y0, x=width - x0), samples, dtype
