"""The λ of a budget on a device: what S(λ) costs, at many λ in one launch, until two neighbours hold the budget.

    F(v, λ) = gain(v) - λ · cost(v) + Σ over children max(0, F(child, λ))        v is in S(λ) when F ≥ 0 from it upwards

which says the same as `entry(v) ≥ λ` in `tilestream.kernels.prune`. One thread follows one λ through the subtree of one
node, some levels at a time; the next launch goes on from its results. Everything stays on the device: each round
narrows the λ between which the budget lies by K + 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import SIMULATED, cuda, cuda_core, cuda_kernel
from tilestream.kernels.quadtree import FIRST, HEIGHT, WIDTH, children_core, is_gain_core, whole_core

BAD, EXPONENT, LOW, HIGH, LEFT, LAST, SIZE, LAST_LEVEL, PREFIX, VALUE = range(10)
"""Places in the book: whether a gain is none, the exponent of whole gains, λ too low and high enough, what is left of
the budget, the block it does not pay for (root, size, level, leading digits of its code), sum of whole gains."""
MEMBERS = 16
"""Where the nodes of that block begin in the book, two values each: number and whole gain."""
MOST_MEMBERS = 256
LAMBDAS = MEMBERS + 2 * MOST_MEMBERS
K = 8 if SIMULATED else 64
"""λ that are tried at once; the answer does not depend on it, and the simulator pays for every thread."""
COSTS = LAMBDAS + K
BINS = COSTS + K
DIGITS = 64
"""Bins of a level."""
THREADS = 128
RUN = 8
"""Gains of a thread."""
_DEEPEST = 8


@cuda_kernel(
    *(
        f"void({real}[::1], int64, UniTuple(int64, 2), int64, int64, int64, {real}[::1], {real}[::1], int64[::1])"
        for real in ("float32", "float64")
    )
)
def collect_cuda(
    flat: Any, start: Any, steps: Any, width: Any, n: Any, first: Any, gains: Any, reals: Any, book: Any
) -> None:
    """Copy one level's gains to where all are, and note the largest and whether one is no gain."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me * RUN >= n:
        return
    largest = reals[3]  # stays 0
    usable = True
    for i in range(me * RUN, min(me * RUN + RUN, n)):
        y = i // width
        gain = flat[start + y * steps[0] + (i - y * width) * steps[1]]
        gains[first + i] = gain
        if is_gain_core(gain):
            largest = max(largest, gain)
        else:
            usable = False
    if not usable:
        book[BAD] = 1
    if largest > reals[0]:  # may be an old value: it only saves an atomic
        cuda.atomic.max(reals, 0, largest)


@cuda_core
def _spread(book: Any, me: Any) -> None:
    """Write the λ of this thread for the next round."""
    low, high = book[LOW], book[HIGH]
    step = (high - low + K) // (K + 1)
    book[LAMBDAS + me] = min(low + step * (me + 1), high)
    book[COSTS + me] = 0


@cuda_kernel(*(f"void({real}[::1], int64, int64, int64[::1])" for real in ("float32", "float64")))
def begin_cuda(reals: Any, gain_bits: Any, lambda_bits: Any, book: Any) -> None:
    """Find the exponent of the largest gain, powers of two that make gains whole, and the first λ to try."""
    me = cuda.threadIdx.x
    if me == 0:
        rest, exponent = reals[0], 0
        half, one = reals.dtype.type(0.5), reals.dtype.type(1)
        while rest >= one:
            rest *= half
            exponent += 1
        while rest > reals[3] and rest < half:
            rest += rest
            exponent -= 1
        exponent = gain_bits - exponent if reals[0] > reals[3] else 0
        book[EXPONENT] = exponent
        first = exponent // 2
        for at, power in ((1, first), (2, exponent - first)):
            factor = one
            for _ in range(abs(power)):
                factor = factor + factor if power > 0 else factor * half
            reals[at] = factor
        book[LOW] = 0
        book[HIGH] = np.int64(1) << lambda_bits
    cuda.syncthreads()
    _spread(book, me)


@cuda_kernel(*(f"void({real}[::1], {real}[::1], int64, int64, int64[::1])" for real in ("float32", "float64")))
def whole_cuda(gains: Any, reals: Any, n: Any, whole: Any, book: Any) -> None:
    """Write the whole gains into the book, from place `whole`."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if me < n:
        book[whole + me] = whole_core(gains[me], reals[1], reals[2])


@cuda_core
def _below(book: Any, layout: Any, side: Any, below: Any, y: Any, x: Any, k: Any, table: Any) -> Any:
    """Return the sums over the children of a node, on level `below`, of what the launch before found for them."""
    worth, price = np.int64(0), np.int64(0)
    width = layout[below, WIDTH]
    for i in range(y * side, min(y * side + side, layout[below, HEIGHT])):
        for m in range(x * side, min(x * side + side, width)):
            at = table + (i * width + m) * k * 2
            worth += book[at]
            price += book[at + 1]
    return worth, price


@cuda_core
def _node(layout: Any, side: Any, level: Any, y: Any, x: Any) -> Any:
    """Return number and children of a node; -1 where the grid has none."""
    width, below = layout[level, WIDTH], level - 1
    found = layout[level, FIRST] + y * width + x if y < layout[level, HEIGHT] and x < width else -1
    return found, children_core(layout[below, HEIGHT], layout[below, WIDTH], side, y, x)


@cuda_core
def _advance(at_y: Any, at_x: Any, side: Any, d: Any) -> Any:
    """Go on to the parent when all its children are done, else to the finest first descendant of the next child."""
    at_x[d] += 1
    if at_x[d] == (at_x[d + 1] + 1) * side:
        at_x[d] = at_x[d + 1] * side
        at_y[d] += 1
    if at_y[d] == (at_y[d + 1] + 1) * side:
        return d + 1
    while d > 0:
        d -= 1
        at_y[d], at_x[d] = at_y[d + 1] * side, at_x[d + 1] * side
    return d


@cuda_kernel(
    "void(int64[::1], int64[:,::1], int64, int64, int64, int64, int64, int64, int64, int64, uint8[::1], boolean)"
)
def evaluate_cuda(
    book: Any, layout: Any, side: Any, spared: Any, bottom: Any, top: Any, k: Any, whole: Any, before: Any, after: Any,
    flags: Any, keep: Any,
) -> None:  # fmt: skip
    """Follow one of k λ from level `bottom` to one node of level `top`; there write max(0, F) and what S(λ) costs."""
    me = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    root = me // k
    j = me - root * k
    if root >= layout[top, HEIGHT] * layout[top, WIDTH]:
        return
    worth = cuda.local.array(_DEEPEST, np.int64)
    price = cuda.local.array(_DEEPEST, np.int64)
    at_y = cuda.local.array(_DEEPEST, np.int64)
    at_x = cuda.local.array(_DEEPEST, np.int64)
    last = top - bottom
    at_y[last] = root // layout[top, WIDTH]
    at_x[last] = root - at_y[last] * layout[top, WIDTH]
    worth[last], price[last] = 0, 0
    for d in range(last - 1, -1, -1):
        at_y[d], at_x[d] = at_y[d + 1] * side, at_x[d + 1] * side
        worth[d], price[d] = 0, 0
    lam = book[LAMBDAS + j]
    d = 0
    while True:
        y, x = at_y[d], at_x[d]
        if d == 0 and bottom > 1:
            worth[0], price[0] = _below(book, layout, side, bottom - 1, y, x, k, before + 2 * j)
        node, cost = _node(layout, side, bottom + d, y, x)
        f, n = np.int64(0), np.int64(0)
        if node >= 0:
            f = book[whole + node] - lam * (cost - spared) + worth[d]
            n = cost - spared + price[d]
            if keep:
                flags[node * k + j] = f >= 0
        n = n if f >= 0 else np.int64(0)
        f = max(f, np.int64(0))
        worth[d], price[d] = 0, 0
        if d == last:
            book[after + me * 2], book[after + me * 2 + 1] = f, n
            if top == len(layout) - 1:
                cuda.atomic.add(book, COSTS + j, n)
            return
        worth[d + 1] += f
        price[d + 1] += n
        d = _advance(at_y, at_x, side, d)


@cuda_kernel("void(int64[::1], int64, boolean)")
def narrow_cuda(book: Any, to_spend: Any, final: Any) -> None:
    """Find between which two λ the budget lies, and write those to try next; at last the two, high enough first."""
    me = cuda.threadIdx.x
    cost, lam = book[COSTS + me], book[LAMBDAS + me]
    enough = cost <= to_spend
    first = enough and (me == 0 or book[COSTS + max(me - 1, 0)] > to_spend)
    one_lower = book[LAMBDAS + max(me - 1, 0)]
    cuda.syncthreads()
    if first:
        book[HIGH] = lam
        if me > 0:
            book[LOW] = one_lower
    if me == K - 1 and not enough:
        book[LOW] = lam
    cuda.syncthreads()
    _spread(book, me)
    cuda.syncthreads()
    if final and me == 0:
        book[LAMBDAS] = book[HIGH]
        book[LAMBDAS + 1] = book[LOW]


def stages_of(levels: int, side: int) -> list[tuple[int, int]]:
    """Return which levels a launch follows, first and last: some 128 nodes a thread at most.

    Parameters
    ----------
    levels : int
        The coarsest level.
    side : int
        Children of a full node along one axis.

    Returns
    -------
    list of tuple of int
        From level 1 up.
    """
    depth = 1
    while depth < _DEEPEST and sum(side ** (2 * d) for d in range(depth + 1)) <= 128:
        depth += 1
    return [(bottom, min(bottom + depth - 1, levels)) for bottom in range(1, levels + 1, depth)]


def rounds_of(lambda_bits: int) -> int:
    """Return how often λ must be narrowed until two neighbours are left."""
    width, rounds = 1 << lambda_bits, 0
    while width > 1:
        width = -(-width // (K + 1))
        rounds += 1
    return rounds
