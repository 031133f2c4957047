"""Means of weighted sums: integers to nearest with ties to even, exactly; floats as they are.

    mean = total / weight

Sums of samples of up to 16 bits fit int32 down a column of total weight 2¹⁵ and are divided as float64, which is exact
as shown below; sums of 32-bit samples are int64 and divided as integers; floats are summed and divided as float64.
Tolerance of the tests: 0.

Numba's cache of a kernel in another file does not notice a change here: clear `__pycache__` of kernels after one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.kernels.language import core

_ACCUMULATORS = {
    "u1": "i4", "i1": "i4", "b1": "i4", "u2": "i4", "i2": "i4", "u4": "i8", "i4": "i8", "f4": "f8", "f8": "f8",
}  # fmt: skip

_DIVIDE, _ROUND, _EXACT = 0, 1, 2


def can_average(dtype: npt.DTypeLike) -> bool:
    """Return whether samples of this type can be averaged exactly."""
    return np.dtype(dtype).str[1:] in _ACCUMULATORS


def accumulator_of(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return the type that sums of such samples are held in."""
    return np.dtype(_ACCUMULATORS[np.dtype(dtype).str[1:]])


def rounding_of(dtype: npt.DTypeLike) -> int:
    """Return how `mean_core` divides sums of such samples."""
    accumulator = accumulator_of(dtype)
    if accumulator.kind == "f":
        return _DIVIDE
    return _ROUND if accumulator.itemsize == 4 else _EXACT


@njit(nogil=True, cache=True)
def mean_core(total: Any, weight: Any, how: int) -> float:
    """Return `total / weight`, for integers rounded to nearest with ties to even.

    Parameters
    ----------
    total : int64 or float64
        Weighted sum.
    weight : int64
        Sum of the weights, 1 to 2³⁰.
    how : int
        What `rounding_of` says for the type of the samples.

    Returns
    -------
    float64
        The mean; an integer value for integers, which float64 holds exactly.
    """
    if how == _DIVIDE:
        return float(total / weight)
    if how == _ROUND:
        # Exact for samples of up to 16 bits: total < 2**46 converts exactly, and a quotient that is no tie is at least
        # 1 / (2 * weight) >= 2**-31 away from one, which the rounding error of the division (2**-38) cannot bridge.
        return float(np.rint(total / weight))
    quotient = total // weight
    twice = 2 * (total - quotient * weight)
    if twice > weight or (twice == weight and quotient % 2 != 0):
        quotient += 1
    return float(quotient)


@core
def ties_even_core(total: Any, count: Any) -> Any:
    """Return an integer sum over a positive count, rounded to nearest with ties to even, in integers alone."""
    quotient = total // count
    twice = 2 * (total - quotient * count)
    return quotient + (1 if twice > count or (twice == count and quotient & 1) else 0)


@core
def ties_even_shift_core(total: Any, shift: Any) -> Any:
    """Return an integer sum over 2^shift, shift at least 1, rounded to nearest with ties to even."""
    return (total + ((1 << (shift - 1)) - 1) + ((total >> shift) & 1)) >> shift


@core
def integer_mean_core(total: Any, count: Any, levels: Any) -> Any:
    """Return an integer sum over a positive count; 4^levels, the count of most pixels, needs no division."""
    if count == 1 << (2 * levels):
        return ties_even_shift_core(total, 2 * levels)
    return ties_even_core(total, count)


@core
def float_mean_core(total: Any, count: Any, levels: Any) -> Any:
    """Return a float sum over a count of its type; the levels are what `integer_mean_core` needs."""
    return total / count


@core
def quotient_core(total: Any, count: Any) -> Any:
    """Return a float sum over a count."""
    return total / count


@core
def finite_core(sample: Any) -> Any:
    """Return whether a float is a number: the others differ from themselves by NaN."""
    return sample - sample == sample - sample


@core
def always_core(sample: Any) -> bool:
    """Return True: what stands for `finite_core` where samples are integers."""
    return True
