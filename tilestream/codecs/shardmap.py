"""Which shards of a level were written, as a short text in the metadata: a shard that is absent may be empty or lost.

Zarr leaves out what holds nothing but the fill value, so that a file that was deleted reads as background. Writers who
record what they wrote let readers tell the two apart.
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError


def encode_shard_map(written: npt.NDArray[np.bool_]) -> str:
    """Return the shards that were written, as text.

    Parameters
    ----------
    written : ndarray of bool
        `(y, x)` grid of shards, True where a file was written.

    Returns
    -------
    str
        Base64 of the deflated bits in C order; about 0.2 bytes a shard at most, a few dozen for most images.
    """
    return base64.b64encode(zlib.compress(np.packbits(np.asarray(written, np.bool_)).tobytes(), 9)).decode("ascii")


def decode_shard_map(text: str, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the shards that were written.

    Parameters
    ----------
    text : str
        As `encode_shard_map` gives it.
    shape : tuple of int
        Shards along y and x.

    Returns
    -------
    ndarray of bool
        `(y, x)`, True where a file was written.

    Raises
    ------
    DamagedError
        When the text is no such map, or one of another shape; nothing larger than the map is allocated.
    """
    count = shape[0] * shape[1]
    nbytes = -(-count // 8)
    try:
        inflate = zlib.decompressobj()
        bits = inflate.decompress(base64.b64decode(text, validate=True), nbytes + 1)
        whole = inflate.eof and not inflate.unused_data
    except (binascii.Error, ValueError, zlib.error) as error:
        raise DamagedError(f"map of shards that cannot be read: {error}") from error
    if not whole or len(bits) != nbytes:
        raise DamagedError(f"map of shards that is not one of {shape[0]} x {shape[1]}")
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(np.bool_).reshape(shape)
