"""The leaves and nodes of a cut as tokens: rows of level, y, x, size in level-0 pixels, coarsest first, row by row.

A node is in the cut when its parent is split or it is a root; it is a leaf when it is not split itself. On CUDA each
thread owns a run of nodes: it counts its tokens, one block sums the counts up, and each thread writes its rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import SIMULATED, core, cpu_kernel, cuda, cuda_core, cuda_kernel
from tilestream.kernels.quadtree import EDGE, FIRST, HEIGHT, LEVEL, WIDTH

RUN = 16
"""Nodes of a thread."""
THREADS = 128
SUM_THREADS = 8 if SIMULATED else 256
"""Of the one block that sums up; the simulator pays for each."""


@core
def _row_core(column: Any, level: Any, y: Any, x: Any, size: Any) -> Any:
    """Return one value of a token."""
    if column == 0:
        return level
    if column == 3:
        return size
    return (y if column == 1 else x) * size


@cpu_kernel
def rows_cpu(split: Any, side: Any, layout: Any, leaves: Any, nodes: Any) -> None:
    """Write the tokens; `nodes` of no rows leaves the nodes out."""
    found, all_found, top = 0, 0, len(layout) - 1
    for level in range(top, -1, -1):
        height, width, edge = layout[level, HEIGHT], layout[level, WIDTH], layout[level, EDGE]
        for y in range(height):
            for x in range(width):
                if level < top:
                    above = layout[level + 1, FIRST] + (y // side) * layout[level + 1, WIDTH] + x // side
                    if not split[above]:
                        continue
                leaf = level == 0 or not split[layout[level, FIRST] + y * width + x]
                for column in range(4):
                    value = _row_core(column, layout[level, LEVEL], y, x, edge)
                    if leaf:
                        leaves[found, column] = value
                    if len(nodes) > 0:
                        nodes[all_found, column] = value
                found += leaf
                all_found += 1


@cuda_core
def _level_of(layout: Any, position: Any) -> Any:
    """Return the level of the node of a number."""
    level = len(layout) - 1
    while level > 0 and position >= layout[level - 1, FIRST]:
        level -= 1
    return level


@cuda_core
def _is_token(split: Any, side: Any, layout: Any, inner: Any, level: Any, position: Any) -> Any:
    """Return whether a node of the cut is wanted: every one, or leaves only."""
    inside = position - layout[level, FIRST]
    y = inside // layout[level, WIDTH]
    x = inside - y * layout[level, WIDTH]
    if level < len(layout) - 1:
        above = layout[level + 1, FIRST] + (y // side) * layout[level + 1, WIDTH] + x // side
        if split[above] == 0:
            return False
    return inner or level == 0 or split[layout[level, FIRST] + inside] == 0


@cuda_kernel("void(uint8[::1], int64, int64[:,::1], int64, boolean, int64[::1])")
def _count_cuda(split: Any, side: Any, layout: Any, total: Any, inner: Any, counts: Any) -> None:
    """Count the tokens in the run of each thread."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me * RUN >= total:
        return
    found = np.int64(0)
    level = _level_of(layout, me * RUN)
    for position in range(me * RUN, min(me * RUN + RUN, total)):
        while level > 0 and position >= layout[level - 1, FIRST]:
            level -= 1
        if _is_token(split, side, layout, inner, level, position):
            found += 1
    counts[1 + me] = found


@cuda_kernel("void(int64[::1], int64)")
def _sum_up_cuda(counts: Any, n: Any) -> None:
    """Turn counts[1:] into how many come before, in one block, and write their sum to counts[0]."""
    sums = cuda.shared.array(SUM_THREADS, np.int64)
    me = cuda.threadIdx.x
    share = (n + SUM_THREADS - 1) // SUM_THREADS
    mine = np.int64(0)
    for i in range(me * share, min(me * share + share, n)):
        mine += counts[1 + i]
    sums[me] = mine
    cuda.syncthreads()
    before = np.int64(0)
    for other in range(me):
        before += sums[other]
    if me == SUM_THREADS - 1:
        counts[0] = before + mine
    for i in range(me * share, min(me * share + share, n)):
        found = counts[1 + i]
        counts[1 + i] = before
        before += found


@cuda_kernel("void(uint8[::1], int64, int64[:,::1], int64, boolean, int64[::1], int64[::1])")
def _write_cuda(split: Any, side: Any, layout: Any, total: Any, inner: Any, counts: Any, rows: Any) -> None:
    """Write the tokens in the run of each thread."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me * RUN >= total:
        return
    at = counts[1 + me] * 4
    level = _level_of(layout, me * RUN)
    for position in range(me * RUN, min(me * RUN + RUN, total)):
        while level > 0 and position >= layout[level - 1, FIRST]:
            level -= 1
        if _is_token(split, side, layout, inner, level, position):
            inside = position - layout[level, FIRST]
            y = inside // layout[level, WIDTH]
            x = inside - y * layout[level, WIDTH]
            for column in range(4):
                rows[at + column] = _row_core(column, layout[level, LEVEL], y, x, layout[level, EDGE])
            at += 4


def count_rows(here: Any, split: Any, side: int, layout: Any, total: int, *, inner: bool, counts: Any) -> None:
    """Put on the stream: counts[0] becomes how many tokens there are, counts[1:] what the threads need to write them.

    Parameters
    ----------
    here : Place
        A CUDA place.
    split : array of uint8
        One an inner node.
    side : int
        Children of a full node along one axis.
    layout : array of int64
        See `tilestream.kernels.quadtree.layout_of`.
    total : int
        Nodes of the whole tree.
    inner : bool
        Whether split nodes are tokens too.
    counts : array of int64
        `(1 + ceil(total / RUN),)`, overwritten.
    """
    runs = -(-total // RUN)
    here.launch(_count_cuda, -(-runs // THREADS), THREADS, split, side, layout, total, inner, counts)
    here.launch(_sum_up_cuda, 1, SUM_THREADS, counts, runs)


def write_rows(
    here: Any, split: Any, side: int, layout: Any, total: int, *, inner: bool, counts: Any, rows: Any
) -> None:
    """Put on the stream: the tokens that `count_rows` counted, one after the other in `rows`.

    Parameters
    ----------
    here, split, side, layout, total, inner : object
        As for `count_rows`.
    counts : array of int64
        What it wrote.
    rows : array of int64
        One-dimensional, four values a token.
    """
    runs = -(-total // RUN)
    here.launch(_write_cuda, -(-runs // THREADS), THREADS, split, side, layout, total, inner, counts, rows)
