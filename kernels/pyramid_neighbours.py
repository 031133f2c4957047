"""Places of a pass of the pyramid codec, and the nine latents around each: 4 of its own grid, 4 and 1 of coarser ones.

A pass has a place in every second column of its rows. So the CPU takes runs of a row: where a neighbour's row is and
whether it has one is found once a run, and only its ends look at borders. CUDA takes one place a thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, cpu_kernel, device
from tilestream.kernels.pyramid_layers import clamp_core
from tilestream.kernels.pyramid_numbers import FEATURE_BITS, PASSES

EVEN, ODD, REST = range(PASSES)
_OWN = 4
"""Of its own grid, and as many of the next coarser one."""


@core
def _row_core(p: Any, width: Any, turn: Any) -> Any:
    """Return the row of place p of a pass."""
    if turn == REST:
        return 2 * (p // width) + (p % width >= width // 2)
    return 2 * (p // ((width + 1 - turn) // 2)) + turn


@core
def _column_core(p: Any, width: Any, turn: Any) -> Any:
    """Return the column of place p of a pass."""
    if turn == REST:
        k, half = p % width, width // 2
        return 2 * k + 1 if k < half else 2 * (k - half)
    return 2 * (p % ((width + 1 - turn) // 2)) + turn


@core
def _down_core(n: Any, turn: Any) -> Any:
    """Return rows from a place to neighbour n of its own grid: diagonals row by row, or above, below, left, right."""
    if turn == ODD:
        return 2 * (n // 2) - 1
    return 2 * n - 1 if n < 2 else 0


@core
def _right_core(n: Any, turn: Any) -> Any:
    """Return columns from a place to neighbour n of its own grid."""
    if turn == ODD:
        return 2 * (n % 2) - 1
    return 2 * n - 5 if n >= 2 else 0


@core
def _mirrored_core(k: Any, step: Any, n: Any) -> Any:
    """Return k + step, or k − step where that is outside of n, or -1 where both are."""
    there = k + step
    if there < 0 or there >= n:
        there = k - step
    return there if 0 <= there < n else -1


@core
def _near_core(k: Any) -> Any:
    """Return the step of a coarser grid from the parent of k to the one that k is nearer to than the rest."""
    return 2 * (k & 1) - 1


@cpu_kernel
def _fill(run: Any, base: Any, step: Any, columns: Any, mirrored: Any, line: Any) -> None:
    """Write a run of a row as features.

    `columns` are the first column, its distance from the next, and how many the row has. Only the first and the last
    may be outside, by one: they are mirrored, so taken from two further in, or clamped.
    """
    first, stride, size = columns
    n = len(line)
    last = first + stride * (n - 1)
    start, stop = int(first < 0), n - int(last >= size)
    for p in range(start, stop):
        line[p] = np.int32(run[base + (first + stride * p) * step]) << FEATURE_BITS
    if start:
        at = first + 2 if mirrored else 0
        line[0] = np.int32(run[base + at * step]) << FEATURE_BITS if at < size else 0
    if stop < n:
        at = last - 2 if mirrored else size - 1
        line[n - 1] = np.int32(run[base + at * step]) << FEATURE_BITS if at >= 0 else 0


@cpu_kernel
def _gather_row(run: Any, views: Any, turn: Any, i: Any, j: Any, block: Any) -> None:
    """Write the inputs of places of row i from column j on."""
    starts, steps, sizes = views
    for n in range(_OWN):
        y = _mirrored_core(i, _down_core(n, turn), sizes[0])
        if turn == EVEN or y < 0:
            block[n] = 0
        else:
            columns = (j + _right_core(n, turn), 2, sizes[1])
            _fill(run, starts[0] + y * steps[0], steps[1], columns, True, block[n])
    for n in range(_OWN):
        if sizes[2]:
            y = clamp_core((i >> 1) + _near_core(i) * (n & 1), 0, sizes[2] - 1)
            columns = ((j >> 1) + _near_core(j) * (n >> 1), 1, sizes[3])
            _fill(run, starts[1] + y * steps[2], steps[3], columns, False, block[_OWN + n])
        else:
            block[_OWN + n] = 0
    coarsest, base = block[2 * _OWN], starts[2] + (i >> 2) * steps[4]
    for p in range(len(coarsest)):
        coarsest[p] = np.int32(run[base + ((j + 2 * p) >> 2) * steps[5]]) << FEATURE_BITS if sizes[4] else 0


@cpu_kernel
def gather_cpu(run: Any, views: Any, turn: Any, first: Any, n: Any, block: Any) -> None:
    """Write the 9 inputs of n places of a pass, from place `first` on, to rows of a block.

    `views` are start, two steps and two sizes in `run` of the grid and of the two coarser ones, 0 for those missing.
    """
    width = views[2][1]
    p = 0
    while p < n:
        i, j = _row_core(first + p, width, turn), _column_core(first + p, width, turn)
        count = min(n - p, (width - j + 1) // 2)
        _gather_row(run, views, turn, i, j, block[: 2 * _OWN + 1, p : p + count])
        p += count


@device
def gather_cuda(run: Any, views: Any, turn: Any, p: Any, held: Any, at: Any, stride: Any) -> None:
    """Write the 9 inputs of place p of a pass to `held[at + n · stride]`; `views` as for `gather_cpu`."""
    starts, steps, sizes = views
    height, width = sizes[0], sizes[1]
    i, j = _row_core(p, width, turn), _column_core(p, width, turn)
    for n in range(_OWN):
        value = np.int32(0)
        y, x = _mirrored_core(i, _down_core(n, turn), height), _mirrored_core(j, _right_core(n, turn), width)
        if turn != EVEN and y >= 0 and x >= 0:
            value = np.int32(run[starts[0] + y * steps[0] + x * steps[1]]) << FEATURE_BITS
        held[at + n * stride] = value
    for n in range(_OWN):
        value = np.int32(0)
        if sizes[2]:
            y = clamp_core((i >> 1) + _near_core(i) * (n & 1), 0, sizes[2] - 1)
            x = clamp_core((j >> 1) + _near_core(j) * (n >> 1), 0, sizes[3] - 1)
            value = np.int32(run[starts[1] + y * steps[2] + x * steps[3]]) << FEATURE_BITS
        held[at + (_OWN + n) * stride] = value
    value = np.int32(0)
    if sizes[4]:
        value = np.int32(run[starts[2] + (i >> 2) * steps[4] + (j >> 2) * steps[5]]) << FEATURE_BITS
    held[at + 2 * _OWN * stride] = value
