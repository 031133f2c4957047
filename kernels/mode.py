"""The value that covers most of an output pixel: how class numbers are reduced, since their mean is no class.

    out = argmax_v Σ_i w_i [x_i = v],  w_i = overlap of stored pixel i with the output pixel; ties to the smaller v

Weights are integers (see `tilestream.kernels.resample`), so the result is exact: the tolerance of its tests is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.kernels.rows import flat_rows


@njit(nogil=True, cache=True)
def _mode_core(values: npt.NDArray[Any], weights: npt.NDArray[np.int64], n: int) -> int:
    best = 0
    for k in range(1, n):
        if weights[k] > weights[best] or (weights[k] == weights[best] and values[k] < values[best]):
            best = k
    return best


@njit(nogil=True, cache=True)
def _add_core(values: npt.NDArray[Any], weights: npt.NDArray[np.int64], n: int, value: Any, weight: int) -> int:
    for k in range(n):
        if values[k] == value:
            weights[k] += weight
            return n
    values[n] = value
    weights[n] = weight
    return n + 1


@njit(nogil=True, cache=True)
def _mode_cpu(source: Any, taps_y: Any, taps_x: Any, scratch: Any, out: Any, out_valid: Any) -> None:
    flat, row_step, channels, valid, masked = source
    first_y, weight_y = taps_y
    first_x, weight_x = taps_x
    values, weights = scratch
    for oy in range(out.shape[0]):
        for ox in range(out.shape[1]):
            any_valid = False
            for ch in range(channels):
                n = 0
                for ty in range(weight_y.shape[1]):
                    wy = weight_y[oy, ty]
                    if wy == 0:
                        continue
                    iy = first_y[oy] + ty
                    for tx in range(weight_x.shape[1]):
                        ix = first_x[ox] + tx
                        weight = wy * weight_x[ox, tx]
                        if weight == 0 or (masked and not valid[iy, ix]):
                            continue
                        n = _add_core(values, weights, n, flat[iy * row_step + ix * channels + ch], weight)
                if n == 0:
                    out[oy, ox, ch] = 0
                else:
                    any_valid = True
                    out[oy, ox, ch] = values[_mode_core(values, weights, n)]
            out_valid[oy, ox] = any_valid


def mode(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None,
    *,
    taps_yx: tuple[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], ...],
    out: npt.NDArray[Any],
    out_valid: npt.NDArray[np.bool_],
) -> None:
    """Write into `out` the value with the largest weight under each output pixel.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)` class numbers.
    valid : ndarray of bool or None
        `(y, x)`; pixels that are False weigh nothing.
    taps_yx : pair of (first, weight)
        For each axis the first stored pixel under each output pixel and the weights from there, as
        `tilestream.kernels.resample.taps` returns them.
    out : ndarray
        `(y, x, c)` of the dtype of `pixels`; 0 where nothing is valid.
    out_valid : ndarray of bool
        `(y, x)`, False where nothing is valid.
    """
    flat, (row_step,) = flat_rows(pixels)
    masked = valid is not None
    mask = np.ascontiguousarray(valid) if valid is not None else np.ones((1, 1), np.bool_)
    most = taps_yx[0][1].shape[1] * taps_yx[1][1].shape[1]
    scratch = (np.empty(most, pixels.dtype), np.empty(most, np.int64))
    _mode_cpu((flat, row_step, pixels.shape[2], mask, masked), taps_yx[0], taps_yx[1], scratch, out, out_valid)
