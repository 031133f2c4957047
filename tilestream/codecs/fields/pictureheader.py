"""A picture in the header of a container: a few bytes, and read back with every number checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.codecs.container import Packed
from tilestream.codecs.fields.picture import DTYPES, MOST_CHANNELS, Picture
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Shape

MOST_EDGE_PX = 1 << 24
"""Of a picture in a file: positions are float32, which count pixels up to there."""
_SIZE, _RANGE = "p", "r"


def picture_header(picture: Picture) -> dict[str, Any]:
    """Return the entries of a header from which `picture_of` returns the picture.

    Parameters
    ----------
    picture : Picture
        What a field stands for.

    Returns
    -------
    dict
        Size, channels, type and levels; the range of samples where it is not that of an 8-bit type.
    """
    number = DTYPES.index(picture.dtype)
    found: dict[str, Any] = {_SIZE: [*picture.shape.yx, picture.channels, number, picture.levels]}
    low, high = _whole_range(picture.dtype, picture.channels)
    if (picture.low, picture.high) != (low, high):
        ends = (*picture.low, *picture.high)
        found[_RANGE] = [int(end) if float(end).is_integer() else end for end in ends]  # whole ones take fewer bytes
    return found


def picture_of(packed: Packed) -> Picture:
    """Return the picture that a header describes.

    Parameters
    ----------
    packed : Packed
        Container with the entries of `picture_header`.

    Returns
    -------
    Picture
        As it was written.

    Raises
    ------
    DamagedError
        When the entries are missing or describe no picture.
    """
    sizes = packed.numbers(_SIZE, least=0, most=MOST_EDGE_PX, count=5)
    if not all(type(size) is int for size in sizes):
        raise DamagedError(f"a container of kind `{packed.kind}`: `{_SIZE}` is {sizes}, expected whole numbers")
    y, x, channels, number, levels = (int(size) for size in sizes)
    if not (1 <= channels <= MOST_CHANNELS and number < len(DTYPES)):
        raise DamagedError(f"a container of kind `{packed.kind}`: {channels} channels of type {number}")
    low, high = _whole_range(DTYPES[number], channels)
    ends = tuple(map(float, packed.numbers(_RANGE, count=2 * channels, default=[*low, *high])))
    try:
        return Picture(
            shape=Shape(y=y, x=x),
            channels=channels,
            dtype=DTYPES[number],
            low=ends[:channels],
            high=ends[channels:],
            levels=levels,
        )
    except ConfigError as error:
        raise DamagedError(f"a container of kind `{packed.kind}`: {error}") from error


def _whole_range(dtype: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return both ends of the range that 8-bit samples have, and 0 to 1 of others."""
    limits = np.iinfo(dtype) if np.dtype(dtype).itemsize == 1 else None
    low, high = (0.0, 1.0) if limits is None else (float(limits.min), float(limits.max))
    return (low,) * channels, (high,) * channels
