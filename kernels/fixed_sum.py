"""Sums of float terms that do not depend on their order: in whole numbers of int64.

    sum = 2^−k · Σ round(2^k · term),  k = 62 − ceil(log2 n) − e,  every |term| < 2^e

n terms of that size fit, so nothing overflows, and what rounding loses is at most n · 2^−(k + 1): for a million terms
2^−23 of the largest in all, and less than 2^−42 of it for each. Whole numbers may be added in any order, so threads add
with atomics and every run, on every target, gives the same bits. One term that is not finite makes all sums NaN.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.kernels.language import core, cuda, cuda_kernel, floor
from tilestream.kernels.place import Array, Place, empty_like
from tilestream.kernels.rows import flat_view

THREADS = 256
_BLOCKS = 1024
_HELD_BITS = 62
_HALF = np.float32(0.5)
_ONE = np.float32(1)
_ZERO = np.float32(0)
_INFINITY = np.float32(np.inf)
_ldexp: Any = math.ldexp  # of an int32, which its types do not know
_NAN = np.float32(np.nan)


def headroom_bits(terms: int) -> int:
    """Return the bits of a sum that are left for its terms."""
    return _HELD_BITS - math.ceil(math.log2(max(terms, 2)))


@core
def size_core(term: Any) -> Any:
    """Return the absolute value of a term as float32, infinity for NaN."""
    size = np.float32(abs(term))
    return size if size < _INFINITY else _INFINITY


@core
def binary_places_core(largest: Any, headroom: Any) -> Any:
    """Return k for terms that are no larger than this finite number, or have rounded to it."""
    return np.int32(headroom) - np.int32(math.frexp(np.float32(largest))[1]) - np.int32(1)


@core
def power_core(exponent: Any) -> Any:
    """Return 2 to half an exponent, rounded down, as float32: the whole power need not be one."""
    return _ldexp(_ONE, np.int32(np.int32(exponent) >> np.int32(1)))


@core
def fixed_core(weight: Any, value: Any, places: Any) -> Any:
    """Return 2^k · weight · value as a whole number."""
    return fixed_with_core(weight, value, power_core(places), power_core(places + 1))


@core
def fixed_with_core(weight: Any, value: Any, half: Any, other_half: Any) -> Any:
    """Return 2^k · weight · value as a whole number, given the two powers whose product is 2^k: for inner loops."""
    return np.int64(floor(weight * value * half * other_half + _HALF))


@core
def scaled_core(total: Any, largest: Any, places: Any) -> Any:
    """Return 2^−k · total, a whole number as float; NaN when a term was not finite."""
    value = total * power_core(-places) * power_core(1 - places)
    return value if largest < _INFINITY else _NAN * value


@cuda_kernel("void(float32[::1])", "void(int64[::1])")
def _clear_cuda(out: Any) -> None:
    """Write zeros, one a thread."""
    k = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if k < out.size:
        out[k] = 0


@cuda_kernel("void(float32[::1], int64, UniTuple(int64, 2), UniTuple(int64, 2), float32[::1])")
def _largest_cuda(terms: Any, start: Any, steps: Any, shape: Any, largest: Any) -> None:
    """Raise `largest[0]` to the largest absolute value; each thread looks at many."""
    found = _ZERO
    for k in range(cuda.blockIdx.x * THREADS + cuda.threadIdx.x, shape[0] * shape[1], cuda.gridDim.x * THREADS):
        found = max(found, size_core(terms[start + (k // shape[1]) * steps[0] + (k % shape[1]) * steps[1]]))
    cuda.atomic.max(largest, 0, found)


@cuda_kernel("void(int64[::1], float32[::1], int64, float32[::1])")
def _finish_cuda(totals: Any, largest: Any, headroom: Any, out: Any) -> None:
    """Write one sum a thread."""
    k = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if k < out.size:
        out[k] = totals[k]
        out[k] = scaled_core(out[k], largest[0], binary_places_core(largest[0], headroom))


def clear(here: Place, out: Any) -> None:
    """Put the clearing of a run of device memory on the stream."""
    here.launch(_clear_cuda, -(-out.size // THREADS), THREADS, out)


def largest_on_device(here: Place, terms: Array) -> Any:
    """Return one float32 on a device: the largest absolute value of a strided array of two axes."""
    found, _, _ = flat_view(empty_like(terms, (1,), np.float32), writable=True)
    clear(here, found)
    shape = (int(terms.shape[0]), int(terms.shape[1]))
    blocks = min(_BLOCKS, -(-shape[0] * shape[1] // THREADS))
    here.launch(_largest_cuda, blocks, THREADS, *flat_view(terms), shape, found)
    return found


def finish(here: Place, totals: Any, largest: Any, headroom: int, out: Any) -> None:
    """Put the conversion of totals to sums on the stream."""
    here.launch(_finish_cuda, -(-out.size // THREADS), THREADS, totals, largest, headroom, out)


def largest_on_host(terms: Any) -> np.float32:
    """Return the largest absolute value as float32, infinity where a term is not finite."""
    high, low = np.max(terms), np.min(terms)  # no copy, and NaN comes through both
    size = np.float32(max(abs(high), abs(low)))
    return size if np.isfinite(size) else _INFINITY
