"""Interleaved pixels as one run of memory with a step between rows, so that any strided view compiles to one kernel.

A kernel that takes a strided array cannot be vectorised, and each memory order costs one more compilation. Tiles and
windows are views whose rows are contiguous and whose rows lie apart: the run from the first to the last sample is a
contiguous one-dimensional view of the same memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided


def flat_rows(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], tuple[int, ...]]:
    """Return the memory of `pixels` as one run and the steps of its outer axes.

    Parameters
    ----------
    pixels : ndarray
        `(…, y, x, c)`, any dtype. No copy is made when `x, c` are contiguous and the outer steps are not negative;
        otherwise, and for a foreign byte order, a contiguous copy is.

    Returns
    -------
    flat : ndarray
        Read-only, one-dimensional, contiguous; sample `k` of row `(i…, y)` is `flat[i·step + … + y·step + k]`.
    steps : tuple of int
        Steps of all axes but the last two, in samples.
    """
    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    item = pixels.itemsize
    steps = pixels.strides[:-2]
    *outer, width, channels = pixels.shape
    contiguous = (channels == 1 or pixels.strides[-1] == item) and (width <= 1 or pixels.strides[-2] == channels * item)
    if pixels.size == 0 or not contiguous or any(s < 0 or s % item for s in steps):
        pixels = np.ascontiguousarray(pixels)
        steps = pixels.strides[:-2]
    span = (
        width * channels + sum((n - 1) * (s // item) for n, s in zip(outer, steps, strict=True)) if pixels.size else 0
    )
    # always read-only, because Numba compiles a second time for an array that may be written to
    flat = as_strided(pixels, shape=(span,), strides=(item,), writeable=False)
    return flat, tuple(s // item for s in steps)
