"""Tells a cut JPEG 2000 or WebP stream before it is decoded, because their decoders accept one.

References
----------
ITU-T T.800 annex A (JPEG 2000 codestream) and I (JP2 boxes); WebP container specification, RIFF header.
"""

from __future__ import annotations

from tilestream.errors import DamagedError


def check_jpeg2000(data: bytes) -> bool:
    """Return whether components are subsampled, after checking that the codestream holds every tile-part whole.

    Parameters
    ----------
    data : bytes
        A codestream or a JP2 file.

    Returns
    -------
    bool
        Whether a component has fewer samples than the image has pixels.

    Raises
    ------
    DamagedError
        When a marker is missing or a tile-part reaches beyond the end.
    """
    position = _codestream(data)
    if data[position : position + 4] != b"\xff\x4f\xff\x51":
        raise DamagedError("JPEG 2000 stream does not start with its markers (FF 4F FF 51)")
    size = [int.from_bytes(data[position + at : position + at + 4], "big") for at in range(8, 40, 4)]
    width, height, x0, y0, tile_width, tile_height, tile_x0, tile_y0 = size
    if not tile_width or not tile_height or width <= x0 or height <= y0:
        raise DamagedError("JPEG 2000 stream declares an empty image")
    components = int.from_bytes(data[position + 40 : position + 42], "big")
    factors = data[position + 42 : position + 42 + 3 * components]
    tiles = -(-(width - tile_x0) // tile_width) * -(-(height - tile_y0) // tile_height)
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
    return any(factors[at] > 1 or factors[at + 1] > 1 for at in range(1, len(factors) - 1, 3))


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


def check_webp(data: bytes) -> None:
    """Raise `DamagedError` unless the stream is as long as its RIFF header says."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise DamagedError("WebP stream does not start with its header (RIFF … WEBP)")
    size = 8 + int.from_bytes(data[4:8], "little")
    if size > len(data):
        raise DamagedError(f"WebP stream of {len(data)} bytes is cut: its header says {size}")
