"""What the pixels of a pyramid, 0 to 16,320, are as samples of a picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.pyramid.nets import PIXEL_MOST
from tilestream.kernels.pyramid_synthesis import pixel_samples
from tilestream.types import Array


def sample_table(picture: Picture) -> Array:
    """Return the sample of each pixel; whole ones exact and rounded halves up, others in float64, rounded to float32.

    Parameters
    ----------
    picture : Picture
        Without a fault.

    Returns
    -------
    ndarray
        `(channels, 16321)` of the type of the picture; not to be written.
    """
    return _table(picture.dtype, picture.low, picture.high)


@lru_cache(maxsize=64)
def _table(dtype: str, low: tuple[float, ...], high: tuple[float, ...]) -> Array:
    if dtype == "float32":
        lows, highs = (np.array(ends).reshape(-1, 1) for ends in (low, high))
        found = lows + np.arange(PIXEL_MOST + 1) / PIXEL_MOST * (highs - lows)
        table: Array = np.clip(found, lows, highs).astype(np.float32)
    else:
        table = pixel_samples(low, high, dtype)
    table.setflags(write=False)
    return table


def range_fault(picture: Picture) -> str | None:
    """Return what is wrong about the range of samples of a picture, None where nothing is."""
    ends = (*picture.low, *picture.high)
    if picture.dtype == "float32":
        most = float(np.finfo(np.float32).max)
        return None if all(abs(end) <= most for end in ends) else "samples beyond float32"
    limits = np.iinfo(picture.dtype)
    if all(float(end).is_integer() and limits.min <= end <= limits.max for end in ends):
        return None
    return f"{picture.dtype} samples of {min(picture.low):g} to {max(picture.high):g}"
