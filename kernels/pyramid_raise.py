"""Grids of the pyramid codec at twice their size, by a filter of four taps that serves both axes.

    even rows 2i = Σ_k t[3−k] · x[i−2+k],  odd rows 2i+1 = Σ_k t[k] · x[i−1+k],  k = 0 … 3;  columns the same after them

Taps are in 1/1,024; each axis ends with rounding, halves up, and a clamp to what a feature holds. Places outside the
grid are those of its edge. Bilinear is 0, 768, 256, 0. Every form gives the same bits.

Only a window of each grid is raised: one that reaches two places further than what is asked of it, so that a window's
edge is either never seen or the grid's own.

Source: the learned upsampling of Cool-chic (Ladune et al. 2023, arXiv 2212.05458; symmetric since version 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array
from tilestream.kernels.pyramid_layers import clamp_core, feature_core, round_shift_core
from tilestream.kernels.pyramid_numbers import FEATURE_BITS, FILTER_BITS, TAPS

THREADS = 128
Window = tuple[int, int, int, int]
"""First row and column, rows, columns."""


def windows_of(grids: Sequence[Array], window: Window, margin: int) -> list[Window]:
    """Return what is needed of each grid for a window of the finest."""
    shapes = [(int(grid.shape[0]), int(grid.shape[1])) for grid in grids]
    found = [_around(window, margin, shapes[0])]
    for shape in shapes[1:]:
        found.append(_coarser_window(found[-1], shape))
    return found


def _around(window: Window, margin: int, shape: tuple[int, ...]) -> Window:
    """Return a window with a margin, as far as there are places."""
    y, x = max(0, window[0] - margin), max(0, window[1] - margin)
    stop_y, stop_x = min(shape[0], window[0] + window[2] + margin), min(shape[1], window[1] + window[3] + margin)
    return y, x, stop_y - y, stop_x - x


def _coarser_window(window: Window, shape: tuple[int, int]) -> Window:
    """Return what of a coarser grid of some shape is needed for a window of the next finer one."""
    y, high = _coarser_span(window[0], window[2], shape[0])
    x, wide = _coarser_span(window[1], window[3], shape[1])
    return y, x, high, wide


def _coarser_span(first: int, count: int, size: int) -> tuple[int, int]:
    start, stop = max(0, first // 2 - 2), min(size, (first + count - 1) // 2 + 3)
    return start, stop - start


@core
def _raised_core(a: Any, b: Any, c: Any, d: Any, taps: Any, odd: Any) -> Any:
    """Return the filter at an odd or an even place, from what lies from two before to one after, or one further on."""
    if odd:
        total = np.int32(taps[0] * a + taps[1] * b + taps[2] * c + taps[3] * d)
    else:
        total = np.int32(taps[3] * a + taps[2] * b + taps[1] * c + taps[0] * d)
    return np.int32(feature_core(round_shift_core(total, FILTER_BITS)))


@cpu_kernel
def raise_cpu(coarse: Any, grid: Any, start: Any, steps: Any, taps: Any, origins: Any, out: Any) -> None:
    """Write a window of a grid as features to `out[0]`, and `coarse`, raised, after it.

    `coarse` is `(n, y, x)` of a window of the next coarser grid; `out` is `(n + 1, y, x)`. `origins` are first row
    and column of the window of `coarse` and of that of `out`; `start` is that of the whole grid.
    """
    count, high, wide = coarse.shape
    _, height, width = out.shape
    coarse_y, coarse_x, first_y, first_x = origins
    for y in range(height):
        at = start + (first_y + y) * steps[0] + first_x * steps[1]
        row = out[0, y]
        for x in range(width):
            row[x] = grid[at + x * steps[1]] << FEATURE_BITS
    padded = np.empty(wide + TAPS, np.int32)  # two of the edge on either side
    even, odd = np.empty(wide, np.int16), np.empty(wide, np.int16)
    line = np.empty(2 * wide, np.int16)
    skipped = first_x - 2 * coarse_x
    for n in range(count):
        source = coarse[n]
        for y in range(height):
            is_odd = (first_y + y) & 1
            i = (first_y + y) // 2 - 2 + is_odd - coarse_y
            a, b = source[clamp_core(i, 0, high - 1)], source[clamp_core(i + 1, 0, high - 1)]
            c, d = source[clamp_core(i + 2, 0, high - 1)], source[clamp_core(i + 3, 0, high - 1)]
            for x in range(wide):
                padded[2 + x] = _raised_core(a[x], b[x], c[x], d[x], taps, is_odd)
            padded[:2], padded[wide + 2 :] = padded[2], padded[wide + 1]
            for x in range(wide):
                even[x] = _raised_core(padded[x], padded[x + 1], padded[x + 2], padded[x + 3], taps, 0)
                odd[x] = _raised_core(padded[x + 1], padded[x + 2], padded[x + 3], padded[x + 4], taps, 1)
            for x in range(wide):
                line[2 * x], line[2 * x + 1] = even[x], odd[x]
            out[n + 1, y] = line[skipped : skipped + width]


@cuda_kernel(
    "void(int16[::1], UniTuple(int64, 3), int16[::1], int64, UniTuple(int64, 2), int32[::1], int64, "
    "UniTuple(int64, 4), int16[::1], UniTuple(int64, 2))"
)
def raise_cuda(
    coarse: Any, shape: Any, grid: Any, start: Any, steps: Any, filters: Any, number: Any, origins: Any, out: Any,
    size: Any,
) -> None:  # fmt: skip
    """Do as `raise_cpu` with a place and grid a thread, from runs; the taps are those of filter `number`."""
    _, high, wide = shape
    height, width = size
    p, n = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x, cuda.blockIdx.y
    if p >= height * width:
        return
    coarse_y, coarse_x, first_y, first_x = origins
    y, x = first_y + p // width, first_x + p % width
    if n == 0:
        out[p] = grid[start + y * steps[0] + x * steps[1]] << FEATURE_BITS
        return
    at = TAPS * number
    taps = (filters[at], filters[at + 1], filters[at + 2], filters[at + 3])
    i, j = y // 2 - 2 + (y & 1) - coarse_y, x // 2 - 2 + (x & 1) - coarse_x
    found = cuda.local.array(TAPS, np.int32)
    for k in range(TAPS):
        column = (n - 1) * high * wide + clamp_core(j + k, 0, wide - 1)
        a, b = column + clamp_core(i, 0, high - 1) * wide, column + clamp_core(i + 1, 0, high - 1) * wide
        c, d = column + clamp_core(i + 2, 0, high - 1) * wide, column + clamp_core(i + 3, 0, high - 1) * wide
        found[k] = _raised_core(coarse[a], coarse[b], coarse[c], coarse[d], taps, y & 1)
    out[n * height * width + p] = _raised_core(found[0], found[1], found[2], found[3], taps, x & 1)
