"""Chunks of a Zarr array that are tiles of a neural codec, checked against the array; without Zarr."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.codecs.tilecodec import Tile, unpack_tile
from tilestream.codecs.tilefront import answers, unpack_front
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.types import Array, Shape

NAME = "tilestream.neural"
"""Name of the codec in the metadata."""


def decode_chunk(data: bytes, *, shape: tuple[int, ...], dtype: np.dtype[Any], fill: float = 0) -> Array:
    """Return a whole chunk of an array of tiles, at the level of the array.

    Parameters
    ----------
    data : bytes
        A container.
    shape : tuple of int
        `(c, y, x)` of the chunk; `(y, x)` where there is one channel.
    dtype : dtype
        Type of the array.
    fill : float
        What the rest of a chunk at the edge of an image holds, where its tile is smaller.

    Returns
    -------
    ndarray
        Samples of that shape.

    Raises
    ------
    DamagedError
        When the bytes are not whole, no tile of such an array, or of a codec or version that is not known here: one
        such tile costs no others. Nothing is allocated by what they claim.
    """
    tile = checked_tile(data, shape=shape, dtype=dtype)
    out = np.empty((1,) * (3 - len(shape)) + tuple(shape), dtype)
    own = tile.picture.shape
    if own.yx == out.shape[1:]:
        tile.decode(out=out)
    else:
        out[...] = fill
        out[:, : own.y, : own.x] = tile.decode()
    return out.reshape(shape)


def checked_tile(data: bytes, *, shape: tuple[int, ...], dtype: np.dtype[Any], level: int = 0) -> Tile:
    """Return a tile of an array, unpacked.

    Parameters
    ----------
    data : bytes
        A container; for a coarser level than 0 a front of it is enough that has the level and is checked by itself.
    shape, dtype
        As for `decode_chunk`.
    level : int
        Which the tile is to answer, beside all coarser ones.

    Returns
    -------
    Tile
        Fits the array.

    Raises
    ------
    DamagedError
        As for `decode_chunk`.
    """
    try:
        tile = unpack_front(data) if level else unpack_tile(data)
    except (SourceError, ConfigError) as error:
        raise DamagedError(str(error)) from error
    if not answers(tile, level):
        raise DamagedError(f"{len(data):,} bytes of a tile, which do not reach to its level {level}")
    picture = tile.picture
    channels, most = (1 if len(shape) < 3 else shape[0]), Shape(y=shape[-2], x=shape[-1])
    fits = picture.shape.y <= most.y and picture.shape.x <= most.x
    if picture.channels != channels or picture.dtype != dtype.name or not fits:
        raise DamagedError(
            f"tile of {picture.channels} x {picture.shape.y} x {picture.shape.x} {picture.dtype}, "
            f"a chunk is {channels} x {most.y} x {most.x} {dtype.name}"
        )
    return tile
