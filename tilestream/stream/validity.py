"""Where the maps of tiles are valid: from the pixels under them, and from their own values."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from tilestream.types import Array

Mask: TypeAlias = npt.NDArray[np.bool_]


def eroded(valid: Mask, reach_px: int) -> Mask:
    """Return where every pixel of the square of `reach_px` around a pixel is valid.

    Parameters
    ----------
    valid : ndarray of bool
        `(n, y, x)`; what lies outside does not matter.
    reach_px : int
        Half the edge of the square.

    Returns
    -------
    ndarray of bool
        `(n, y, x)`.
    """
    if not reach_px:
        return valid
    size = (1, 2 * reach_px + 1, 2 * reach_px + 1)
    return scipy.ndimage.minimum_filter(valid.view(np.uint8), size=size, mode="constant", cval=1).view(np.bool_)


def reduced(valid: Mask, stride: int) -> Mask:
    """Return which squares of `stride` pixels have a valid one.

    Parameters
    ----------
    valid : ndarray of bool
        `(n, y, x)`, both multiples of `stride`.
    stride : int
        Edge of a square, px.

    Returns
    -------
    ndarray of bool
        `(n, y / stride, x / stride)`.
    """
    if stride == 1:
        return valid
    n, height, width = valid.shape
    squares = valid.reshape(n, height // stride, stride, width // stride, stride)
    return np.asarray(squares.any(axis=(2, 4)))


def finite(values: Array) -> Mask | None:
    """Return where all channels of maps `(n, k, y, x)` are finite, None when they are throughout."""
    if values.dtype.kind != "f":
        return None
    found = np.asarray(np.isfinite(values).all(axis=1))
    return None if found.all() else found
