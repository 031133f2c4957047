"""Tells a cut JPEG 2000 or WebP stream, and one larger than its image, before it is decoded.

Their decoders accept a cut stream, and a few bytes can claim a picture of gigabytes, which they would make first.

References
----------
ITU-T T.800 annex A (JPEG 2000 codestream) and I (JP2 boxes); WebP container specification, RIFF header.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.codecs.jpegxlboxes import declared_shape
from tilestream.errors import DamagedError
from tilestream.types import Shape


@dataclass(frozen=True, kw_only=True)
class WebpHead:
    """What a WebP stream declares."""

    shape: Shape
    """Size, px."""
    has_alpha: bool
    """Whether there is an alpha channel."""


@dataclass(frozen=True, kw_only=True)
class Jpeg2000Head:
    """What a JPEG 2000 codestream declares."""

    shape: Shape
    """Size, px."""
    components: int
    """Components."""
    depths: tuple[int, ...]
    """Of each component: bits a sample less 1, and 128 more where samples have a sign."""
    is_subsampled: bool
    """Whether a component has fewer samples than the image has pixels."""


def check_jpeg2000(data: bytes, *, most: Shape | None = None, samples: int | None = None) -> Jpeg2000Head:
    """Return what a codestream declares, after checking that it holds every tile-part whole.

    Parameters
    ----------
    data : bytes
        A codestream or a JP2 file.
    most : Shape, optional
        Largest size that makes sense, px.
    samples : int, optional
        Components that the image has.

    Returns
    -------
    Jpeg2000Head
        Size, type and subsampling.

    Raises
    ------
    DamagedError
        When a marker is missing, a tile-part reaches beyond the end, or the image is too large.
    """
    position = _codestream(data)
    head, tiles = _jpeg2000_head(data, position)
    check_size("JPEG 2000", head.shape, most)
    if samples is not None and head.components != samples:
        raise DamagedError(f"JPEG 2000 stream of {head.components} components, the image has {samples}")
    position, seen = position + 2, set()
    while (marker := data[position : position + 2]) != b"\xff\xd9":
        if marker == b"\xff\x90":
            part = int.from_bytes(data[position + 6 : position + 10], "big")
            seen.add(data[position + 4 : position + 6])
            position = position + part if part else len(data) - 2 * data.endswith(b"\xff\xd9")
            if position == len(data) and part:  # some encoders leave out the end marker
                break
        else:
            length = int.from_bytes(data[position + 2 : position + 4], "big")
            if marker[:1] != b"\xff" or length < 2 or seen:
                raise DamagedError(
                    f"JPEG 2000 marker expected at byte {position}, found {marker.hex(' ') or 'the end'}"
                )
            position += 2 + length
    if len(seen) != tiles:
        raise DamagedError(f"JPEG 2000 stream holds {len(seen)} of {tiles} tiles: it is cut")
    return head


def _jpeg2000_head(data: bytes, position: int) -> tuple[Jpeg2000Head, int]:
    """Return what the codestream at `position` declares, and in how many tiles."""
    if data[position : position + 4] != b"\xff\x4f\xff\x51":
        raise DamagedError("JPEG 2000 stream does not start with its markers (FF 4F FF 51)")
    size = [int.from_bytes(data[position + at : position + at + 4], "big") for at in range(8, 40, 4)]
    width, height, x0, y0, tile_width, tile_height, tile_x0, tile_y0 = size
    if not tile_width or not tile_height or width <= x0 or height <= y0:
        raise DamagedError("JPEG 2000 stream declares an empty image")
    components = int.from_bytes(data[position + 40 : position + 42], "big")
    factors = data[position + 42 : position + 42 + 3 * components]
    head = Jpeg2000Head(
        shape=Shape(y=height - y0, x=width - x0),
        components=components,
        depths=tuple(factors[::3]),
        is_subsampled=any(factors[at] > 1 or factors[at + 1] > 1 for at in range(1, len(factors) - 1, 3)),
    )
    return head, -(-(width - tile_x0) // tile_width) * -(-(height - tile_y0) // tile_height)


def _codestream(data: bytes) -> int:
    """Return where the codestream starts: at 0, or in the box `jp2c` of a JP2 file."""
    if data[:2] == b"\xff\x4f":
        return 0
    position = 0
    while position + 8 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 16 if length == 1 else 8
        if kind == b"jp2c":
            return position + head
        step = int.from_bytes(data[position + 8 : position + 16], "big") if length == 1 else length
        if step < head:
            break
        position += step
    raise DamagedError("JPEG 2000 stream has neither a codestream's start nor a box that holds one")


def check_size(name: str, shape: Shape, most: Shape | None) -> None:
    """Raise `DamagedError` when a stream declares more rows or columns than its image has."""
    if most is not None and (shape.y > most.y or shape.x > most.x):
        raise DamagedError(
            f"{name} stream declares {shape.y} x {shape.x} pixels, the image is stored in {most.y} x {most.x}"
        )


def check_webp(data: bytes, *, stored_bytes: int | None = None, most: Shape | None = None) -> WebpHead:
    """Return what a WebP stream declares, after checking that it is as long as its RIFF header says.

    Parameters
    ----------
    data : bytes
        The stream, or its first 30 bytes.
    stored_bytes : int, optional
        Length of the whole stream where `data` is only its start.
    most : Shape, optional
        Largest size that makes sense, px.

    Returns
    -------
    WebpHead
        Size and alpha.

    Raises
    ------
    DamagedError
        When it is cut, no still image, or too large.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise DamagedError("WebP stream does not start with its header (RIFF … WEBP)")
    size, stored = 8 + int.from_bytes(data[4:8], "little"), len(data) if stored_bytes is None else stored_bytes
    if size > stored or len(data) < 30:
        raise DamagedError(f"WebP stream of {stored:,} bytes is cut: its header says {size:,}")
    head = _webp_head(data)
    check_size("WebP", head.shape, most)
    return head


def _webp_head(data: bytes) -> WebpHead:
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & 0x02:
            raise DamagedError("WebP stream is an animation, not one image")
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return WebpHead(shape=Shape(y=height, x=width), has_alpha=bool(data[20] & 0x10))
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        shape = Shape(y=(bits >> 14 & 0x3FFF) + 1, x=(bits & 0x3FFF) + 1)
        return WebpHead(shape=shape, has_alpha=bool(bits >> 28 & 1))
    if kind == b"VP8 ":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return WebpHead(shape=Shape(y=height, x=width), has_alpha=False)
    raise DamagedError(f"WebP stream starts with chunk {kind!r}")


def check_jpegxl(data: bytes, most: Shape) -> None:
    """Raise `DamagedError` unless the stream is JPEG XL of at most a size; whether it is whole the decoder tells."""
    check_size("JPEG XL", declared_shape(data), Shape(y=max(most.yx), x=max(most.yx)))  # it may be turned
