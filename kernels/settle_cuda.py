"""From λ to the cut on a device: what enters above it, the blocks at it in order, the nodes of the one too many.

The steps are those of `tilestream.kernels.settle`; sums are of integers, so atomics give one answer in any order. The
order of blocks, level and then Morton code, is found digit by digit from histograms of what they cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import cuda, cuda_core, cuda_kernel
from tilestream.kernels.prune_cuda import (
    BINS,
    COSTS,
    DIGITS,
    LAST,
    LAST_LEVEL,
    LEFT,
    MEMBERS,
    MOST_MEMBERS,
    PREFIX,
    SIZE,
    VALUE,
)
from tilestream.kernels.quadtree import FIRST, HEIGHT, WIDTH, children_core, morton_core

THREADS = 128
RUN = 16
"""Nodes of a thread that sums up."""
DIGIT_BITS = 6


@cuda_core
def _level_of(layout: Any, node: Any) -> Any:
    """Return the level of an inner node."""
    level = len(layout) - 1
    while node >= layout[level - 1, FIRST]:
        level -= 1
    return level


@cuda_core
def _code_of(layout: Any, level: Any, node: Any) -> Any:
    """Return the Morton code of a node."""
    inside = node - layout[level, FIRST]
    y = inside // layout[level, WIDTH]
    return morton_core(y, inside - y * layout[level, WIDTH])


@cuda_kernel("void(uint8[::1], int64[:,::1], int64, int64, int64[::1], int64, int64, uint8[::1])")
def mark_cuda(
    flags: Any, layout: Any, side: Any, spared: Any, book: Any, block: Any, block_cost: Any, split: Any
) -> None:
    """Split what enters above λ; write the block of what enters at it, and what each block costs.

    flags[2v] and flags[2v + 1] say whether F(v) ≥ 0 at the λ that is high enough and at the one below.
    """
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me >= layout[0, FIRST]:
        return
    level = _level_of(layout, me)
    inside = me - layout[level, FIRST]
    y = inside // layout[level, WIDTH]
    x = inside - y * layout[level, WIDTH]
    cost = children_core(layout[level - 1, HEIGHT], layout[level - 1, WIDTH], side, y, x) - spared
    root = np.int64(-1)
    entered = True
    while level < len(layout) and entered:
        node = layout[level, FIRST] + y * layout[level, WIDTH] + x
        entered = flags[2 * node + 1] != 0
        if flags[2 * node] == 0 and root < 0:
            root = node
        level += 1
        y //= side
        x //= side
    split[me] = entered and root < 0
    book[block + me] = root if entered else -1
    if entered and root >= 0:
        cuda.atomic.add(book, block_cost + root, cost)


@cuda_kernel("void(int64[::1], int64[:,::1], int64, int64, int64, int64)")
def tally_cuda(book: Any, layout: Any, block: Any, block_cost: Any, width: Any, shift: Any) -> None:
    """Add up what blocks cost by their next digit: bits shift to width of the code; at first (width 0) by level too."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me >= layout[0, FIRST] or book[block + me] != me:
        return
    level = _level_of(layout, me)
    code = _code_of(layout, level, me)
    if width == 0:
        cuda.atomic.add(book, BINS + level * DIGITS + (code >> shift), book[block_cost + me])
    elif level == book[LAST_LEVEL] and (code >> width) == book[PREFIX]:
        digit = (code >> shift) - (book[PREFIX] << (width - shift))
        cuda.atomic.add(book, BINS + level * DIGITS + digit, book[block_cost + me])


@cuda_kernel("void(int64[::1], int64, int64, int64)")
def pick_cuda(book: Any, top: Any, to_spend: Any, bits: Any) -> None:
    """Choose the digit at which the budget runs out; at first (to_spend not negative) the level too."""
    left, level = book[LEFT], book[LAST_LEVEL]
    if to_spend >= 0:
        left, level = to_spend - book[COSTS], top
        while True:
            here = np.int64(0)
            for digit in range(DIGITS):
                here += book[BINS + level * DIGITS + digit]
            if here > left:
                break
            left -= here
            level -= 1
        book[LAST_LEVEL] = level
    digit = 0
    while book[BINS + level * DIGITS + digit] <= left:
        left -= book[BINS + level * DIGITS + digit]
        digit += 1
    for i in range(DIGITS):
        book[BINS + level * DIGITS + i] = 0
    book[LEFT] = left
    book[PREFIX] = (book[PREFIX] << bits) | digit


@cuda_kernel("void(int64[::1], int64[:,::1], int64, int64, uint8[::1])")
def take_cuda(book: Any, layout: Any, block: Any, whole: Any, split: Any) -> None:
    """Split the blocks before the one too many; note that one's root, size, and first nodes."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me >= layout[0, FIRST] or book[block + me] < 0:
        return
    root = book[block + me]
    level = _level_of(layout, root)
    code = _code_of(layout, level, root)
    if level > book[LAST_LEVEL] or (level == book[LAST_LEVEL] and code < book[PREFIX]):
        split[me] = 1
    elif level == book[LAST_LEVEL] and code == book[PREFIX]:
        if me == root:
            book[LAST] = root
        place = cuda.atomic.add(book, SIZE, 1)
        if place < MOST_MEMBERS:
            book[MEMBERS + 2 * place] = me
            book[MEMBERS + 2 * place + 1] = book[whole + me]


@cuda_kernel("void(int64[::1], int64, int64, int64, int64[::1], int64[::1])")
def gather_cuda(book: Any, block: Any, whole: Any, n: Any, next_place: Any, members: Any) -> None:
    """Write number and whole gain of all nodes of the block that is one too many."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me < n and book[block + me] == book[LAST]:
        place = cuda.atomic.add(next_place, 0, 1)
        members[2 * place] = me
        members[2 * place + 1] = book[whole + me]


@cuda_kernel("void(int64[::1], int64, uint8[::1])")
def split_cuda(chosen: Any, n: Any, split: Any) -> None:
    """Split the chosen nodes."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me < n:
        split[chosen[me]] = 1


@cuda_kernel("void(int64[::1], int64, int64, uint8[::1])")
def value_cuda(book: Any, whole: Any, n: Any, split: Any) -> None:
    """Add up the whole gains of split nodes."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    mine = np.int64(0)
    for i in range(me * RUN, min(me * RUN + RUN, n)):
        if split[i] != 0:
            mine += book[whole + i]
    if mine != 0:
        cuda.atomic.add(book, VALUE, mine)


def digit_passes(code_bits: int) -> list[tuple[int, int]]:
    """Return which bits of a code each pass looks at: up to, and from."""
    passes, width = [], code_bits
    while width > 0:
        shift = max(width - DIGIT_BITS, 0)
        passes.append((width, shift))
        width = shift
    return passes
