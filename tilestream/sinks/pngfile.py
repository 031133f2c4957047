"""An image as a PNG file that says what it was made of, so that a run knows the files of the one before."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types import Array

MOST_CHANNELS = 4
DTYPES = "uint8", "uint16"
HEADER_BYTES = 8 + 25
"""Signature and `IHDR`, which come first in every PNG; a text chunk may follow."""
KEYWORD = b"Software\0"
_OURS = re.compile(rb"tilestream \S+ decompress ([0-9a-f]{32})")


def can_be_png(dtype: np.dtype[np.generic], channels: int, *, has_mask: bool) -> bool:
    """Return whether PNG holds an image: 8 or 16 bits, grey or colour, and what is not valid as transparency.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the samples.
    channels : int
        How many.
    has_mask : bool
        Whether something may not be valid.

    Returns
    -------
    bool
        Of two or four channels the last is transparency, which then cannot be a mask too.
    """
    return dtype.name in DTYPES and channels in ((1, 3) if has_mask else (1, 2, 3, 4))


def encode_png(pixels: Array, valid: npt.NDArray[np.bool_] | None, *, software: str) -> bytes:
    """Return a PNG file.

    Parameters
    ----------
    pixels : ndarray of uint8 or uint16
        `(c, y, x)` of 1 to 4 channels.
    valid : ndarray of bool, optional
        `(y, x)`; what is not valid is transparent.
    software : str
        Latin-1 text of the chunk `tEXt`, keyword `Software` (PNG, third edition, 11.3.3).

    Returns
    -------
    bytes
        Without loss.

    Raises
    ------
    ConfigError
        When PNG has no such image.
    """
    if not can_be_png(pixels.dtype, len(pixels), has_mask=valid is not None):
        mask = "" if valid is None else " and a mask"
        raise ConfigError.of(
            "an image as PNG",
            got=f"{len(pixels)} channels of {pixels.dtype}{mask}",
            expected=f"grey or colour of {' or '.join(DTYPES)}",
            do="Write a TIFF.",
        )
    planes = list(pixels)
    if valid is not None:
        planes.append(np.where(valid, np.iinfo(pixels.dtype).max, 0).astype(pixels.dtype))
    interleaved = np.ascontiguousarray(np.stack(planes, axis=-1))
    plain = bytes(imagecodecs.png_encode(interleaved[..., 0] if len(planes) == 1 else interleaved))
    body = b"tEXt" + KEYWORD + software.encode("latin-1")
    text = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:HEADER_BYTES] + text + plain[HEADER_BYTES:]


def png_by_us(path: Path) -> str | None:
    """Return the digest of the recipe of a PNG that `decompress` has written, None for any other file.

    Parameters
    ----------
    path : Path
        Existing file.

    Returns
    -------
    str or None
        32 hex digits.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return None
    found = _OURS.search(start) if start.startswith(b"\x89PNG\r\n\x1a\n") and b"tEXt" + KEYWORD in start else None
    return found[1].decode() if found else None
