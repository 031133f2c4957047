"""In which order the nodes of a tree are worth splitting, and how far a budget reaches: the CPU form.

The slope of a node is the best gain per unit of cost of any piece of tree that begins at it,

    slope(v) = max over pruned subtrees T with root v of Σ gain / Σ cost

and a node enters the cut when λ falls to entry(v) = min(slope(v), entry(parent)): S(λ) = {v: entry(v) ≥ λ} maximises
Σ gain - λ · Σ cost (bottom-up pruning: Breiman, Friedman, Olshen, Stone 1984; Chou, Lookabaugh, Gray 1989; Shukla
et al. 2005). A node together with the descendants that are worth more than it is a *block*; blocks in order of slope
are the corners of the convex hull of (cost, gain). Slopes come from one pass from the finest nodes up in which a block
swallows its best child block while that is worth more (Horn 1972), with a skew heap of the child blocks below:
O(n log n) at worst, O(n) where gains fall towards finer levels.

    order    by slope rounded down (largest first), then level (coarsest first), then Morton code, then along the block

λ is a whole number in units of the whole gains of `tilestream.kernels.quadtree`; all results are exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.language import core, cpu_kernel

FREE = np.int64(1 << 62)
"""Slope of a split that costs nothing, as that of a node with one child where leaves are counted."""
_DIGIT_BITS = 11


@core
def _worth_more_core(a: Any, b: Any, slope: Any, rest: Any, cost: Any) -> Any:
    """Return whether block a has a larger slope than block b; rest < cost, so the products are small."""
    if slope[a] != slope[b]:
        return slope[a] > slope[b]
    return rest[a] * cost[b] > rest[b] * cost[a]


@cpu_kernel
def _meld(a: Any, b: Any, slope: Any, rest: Any, cost: Any, left: Any, right: Any) -> Any:
    """Return the root of one skew heap made of two; -1 is the empty one."""
    if a < 0:
        return b
    if b < 0:
        return a
    if _worth_more_core(b, a, slope, rest, cost):
        a, b = b, a
    root = a
    while True:
        other = right[a]
        right[a] = left[a]
        if other < 0:
            left[a] = b
            return root
        if _worth_more_core(b, other, slope, rest, cost):
            b, other = other, b
        left[a] = other
        a = other


@cpu_kernel
def _heap_of(hanging: Any, slope: Any, rest: Any, cost: Any, left: Any, right: Any) -> Any:
    """Return the heap of what hangs below a node, which is made of a list when it is first wanted."""
    if hanging >= -1:
        return hanging
    heap, child = np.int64(-1), -2 - hanging
    while child >= 0:
        following = left[child]
        left[child] = -1
        heap = _meld(heap, child, slope, rest, cost, left, right)
        child = following
    return heap


@core
def _has_better_core(hanging: Any, v: Any, slope: Any, rest: Any, cost: Any, left: Any) -> Any:
    """Return whether a block in the list below v is worth more than v."""
    child = -2 - hanging
    while child >= 0 and not _worth_more_core(child, v, slope, rest, cost):
        child = left[child]
    return child >= 0


@cpu_kernel
def slopes_cpu(parent: Any, gain: Any, own_cost: Any, slope: Any, scratch: Any) -> None:
    """Write every node's slope, rounded down. `scratch` is `(5, n)`.

    What hangs below a node is -1 for nothing, the root of a heap, or -2 less the head of a list linked by `left`: where
    gains fall towards finer levels, lists stay lists.
    """
    rest, cost, left, right, hanging = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4]
    n = len(parent)
    hanging[:] = -1
    for v in range(n - 1, -1, -1):
        total, price = gain[v], own_cost[v]
        below, listed = hanging[v], True
        while True:
            cost[v] = price
            slope[v] = total // price if price > 0 else FREE
            rest[v] = total - slope[v] * price if price > 0 else total
            if listed:
                if not _has_better_core(below, v, slope, rest, cost, left):
                    break
                below, listed = _heap_of(below, slope, rest, cost, left, right), False
            elif below < 0 or not _worth_more_core(below, v, slope, rest, cost):
                break
            child = below
            total += slope[child] * cost[child] + rest[child] if cost[child] > 0 else rest[child]
            price += cost[child]
            below = _meld(left[child], right[child], slope, rest, cost, left, right)
            others = _heap_of(hanging[child], slope, rest, cost, left, right)
            below = _meld(below, others, slope, rest, cost, left, right)
        hanging[v] = below
        right[v] = -1
        left[v] = -1
        above = parent[v]
        if above >= 0:
            left[v] = -2 - hanging[above] if hanging[above] < -1 else -1
            hanging[above] = -2 - v


@cpu_kernel
def entries_cpu(parent: Any, slope: Any, entry: Any) -> None:
    """Write the λ at which each node enters; parents come first."""
    for v in range(len(parent)):
        entry[v] = slope[v] if parent[v] < 0 else min(slope[v], entry[parent[v]])


@cpu_kernel
def first_too_much_cpu(keys: Any, costs: Any, chosen: Any, budget: Any, bits: Any) -> Any:
    """Return the key at which the costs of `chosen`, summed from the largest key down, exceed `budget`, or -1."""
    bins = np.zeros(1 << _DIGIT_BITS, np.int64)
    low, width = np.int64(0), np.int64(bits)
    while width > 0:
        shift = width - _DIGIT_BITS if width > _DIGIT_BITS else np.int64(0)
        bins[:] = 0
        for v in range(len(keys)):
            if chosen[v] and keys[v] >= low and (keys[v] - low) >> width == 0:
                bins[(keys[v] - low) >> shift] += costs[v]
        width = shift
        digit = len(bins) - 1
        while digit >= 0 and bins[digit] <= budget:
            budget -= bins[digit]
            digit -= 1
        if digit < 0:
            return np.int64(-1)
        low += digit << shift
    return low
