"""A cut of a forest at a budget, from the order of `tilestream.kernels.prune`: the CPU form, and its last step on CUDA.

    1. split every node whose entry is above the λ at which the budget would be exceeded
    2. of the blocks at that λ, take those that come first by level, then Morton code
    3. open the block that no longer fits: its root, then its own child blocks by slope, and so on

Steps 1 to 3 are the longest part of one fixed order that the budget pays for. Where the last block, or the whole
forest, is small, dynamic programming finds the best way to spend what is left on it, and wins where it is better.

The value never falls as the budget grows. Between two corners of the hull the last block is the same: parts of it along
a fixed order are nested, the best part found by dynamic programming can only gain from more budget, so can the larger
of both, and none is worth more than the whole block, which the next corner holds. Where the whole forest is small the
answer is the optimum, which is monotone.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.prune import entries_cpu, first_too_much_cpu, slopes_cpu
from tilestream.kernels.quadtree import Ints

_HEAP_NODES = 1024
"""A block of more nodes is opened as the forest below its root."""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Nodes that can be split, parents before their children."""

    parent: Ints
    """Position of the parent; -1 where that is split already or there is none."""
    gain: Ints
    """Whole gains."""
    cost: Ints
    """What a split adds to the count."""
    level: Ints
    """Level in the tree."""
    code: Ints
    """Morton code in the level."""
    slope_bits: int
    """Slopes are below 2 to this, but for those of free splits."""
    code_bits: int
    """Codes are below 2 to this."""

    def __len__(self) -> int:
        return len(self.parent)

    def part(self, members: Ints) -> Forest:
        """Return the forest of some nodes, whose positions ascend; a node whose parent is not among them is a root."""
        position = np.full(len(self) + 1, -1, np.int64)  # the last one is that of no parent
        position[members] = np.arange(len(members))
        return replace(
            self, parent=position[self.parent[members]], gain=self.gain[members], cost=self.cost[members],
            level=self.level[members], code=self.code[members],
        )  # fmt: skip


@cpu_kernel
def _blocks_cpu(parent: Any, slope: Any, entry: Any, cost: Any, mu: Any, split: Any, out: Any) -> Any:
    """Split what enters above mu and return its cost; write root and cost of each block that enters at mu."""
    block, block_cost = out
    spent = np.int64(0)
    for v in range(len(parent)):
        block[v] = -1
        block_cost[v] = 0
        if entry[v] < mu:
            continue
        if entry[v] > mu:
            split[v] = True
            spent += cost[v]
            continue
        block[v] = v if slope[v] == mu else block[parent[v]]
        block_cost[block[v]] += cost[v]
    return spent


@cpu_kernel
def _take_blocks_cpu(block: Any, block_cost: Any, level: Any, code: Any, last: Any, split: Any) -> Any:
    """Split the blocks that come before block `last` and return what they cost."""
    spent = np.int64(0)
    for v in range(len(block)):
        root = block[v]
        if root < 0 or root == last:
            continue
        if level[root] > level[last] or (level[root] == level[last] and code[root] < code[last]):
            split[v] = True
            spent += block_cost[v] if root == v else 0
    return spent


@cpu_kernel
def _optimal_cpu(parent: Any, gain: Any, cost: Any, budget: Any) -> Any:
    """Return which nodes to split for the largest sum of gains at a cost of at most `budget`, in O(n · budget)."""
    n = len(parent)
    best = np.zeros((n + 1, budget + 1), np.int64)  # of what hangs below a node; the last row is that of the roots
    reach = np.zeros(n + 1, np.int64)
    share = np.zeros((n, budget + 1), np.int32)
    row = np.zeros(budget + 1, np.int64)
    for v in range(n - 1, -1, -1):
        above = parent[v] if parent[v] >= 0 else n
        most, most_before = min(reach[v] + cost[v], budget), reach[above]
        reach[above] = min(most + most_before, budget)
        for w in range(reach[above] + 1):
            row[w] = -1
            for mine in range(max(w - most_before, 0), min(w, most) + 1):
                value = best[above, w - mine]
                if mine >= cost[v]:
                    value += gain[v] + best[v, mine - cost[v]]
                if value >= row[w]:
                    row[w], share[v, w] = value, mine
        best[above, : reach[above] + 1] = row[: reach[above] + 1]
    split = np.zeros(n, np.bool_)
    left = np.zeros(n + 1, np.int64)
    left[n] = min(budget, reach[n])
    spare = budget - left[n]
    for v in range(n):  # siblings were added last to first, so they are taken off first to last
        above = parent[v] if parent[v] >= 0 else n
        if above < n and not split[above]:
            continue
        mine = share[v, left[above]]
        left[above] -= mine
        split[v] = mine >= cost[v]
        if split[v]:
            left[v] = mine - cost[v]
        else:
            spare += mine
    return _filled(parent, cost, split, spare)


@cpu_kernel
def _filled(parent: Any, cost: Any, split: Any, spare: Any) -> Any:
    """Return `split` with what else the spare budget pays for, coarsest first: gains that are 0."""
    for v in range(len(parent)):
        if not split[v] and cost[v] <= spare and (parent[v] < 0 or split[parent[v]]):
            split[v] = True
            spare -= cost[v]
    return split


def cut_forest(forest: Forest, budget: int, *, exact_cells: int) -> tuple[npt.NDArray[np.bool_], int]:
    """Return which nodes of a forest to split.

    Parameters
    ----------
    forest : Forest
        Nodes and gains.
    budget : int
        Most that the splits may cost together.
    exact_cells : int
        Largest table of dynamic programming, nodes × cost.

    Returns
    -------
    split : ndarray of bool
        One a node; the parent of a node that is split is split.
    slope : int
        That of the first block that did not fit, rounded down; 0 where all of them did.
    """
    n, exact = len(forest), _cells(forest.cost) <= exact_cells
    if int(forest.cost.sum()) <= budget:
        return np.ones(n, np.bool_), 0
    slope, entry = np.empty(n, np.int64), np.empty(n, np.int64)
    scratch = np.empty((5, n), np.int64)
    slopes_cpu(forest.parent, forest.gain, forest.cost, slope, scratch)
    entries_cpu(forest.parent, slope, entry)
    split, last, members, left = _cut_once(forest, slope, entry, budget, (scratch[0], scratch[1]))
    if n <= _HEAP_NODES and len(members) == n:
        split[_in_order(forest, slope, last, left)] = True
    elif 1 < len(members) < n:
        split[members], _ = cut_forest(forest.part(members), left, exact_cells=0 if exact else exact_cells)
    elif len(members) == n and forest.cost[last] <= left:
        split[last] = True
        rest = np.delete(members, np.searchsorted(members, last))
        left -= int(forest.cost[last])
        split[rest], _ = cut_forest(forest.part(rest), left, exact_cells=0 if exact else exact_cells)
    if exact:
        _improve(forest, split, budget)
    return split, int(slope[last])


def _cut_once(
    forest: Forest, slope: Ints, entry: Ints, budget: int, blocks: tuple[Ints, Ints]
) -> tuple[npt.NDArray[np.bool_], int, Ints, int]:
    """Return what is split before the first block that does not fit, that block's root and nodes, what is left."""
    split, active = np.zeros(len(forest), np.bool_), np.ones(len(forest), np.bool_)
    mu = first_too_much_cpu(entry, forest.cost, active, budget, forest.slope_bits)
    budget -= int(_blocks_cpu(forest.parent, slope, entry, forest.cost, mu, split, blocks))
    block, block_cost = blocks
    roots = np.flatnonzero(block_cost)
    left = budget
    for level in range(int(forest.level[roots].max()), -1, -1):
        here = roots[forest.level[roots] == level]
        together = int(block_cost[here].sum())
        if together > left:
            break
        left -= together
    flipped = (1 << forest.code_bits) - 1 - forest.code[here]  # the smallest code is the first
    found = first_too_much_cpu(flipped, block_cost[here], np.ones(len(here), np.bool_), left, forest.code_bits)
    last = int(here[flipped == found][0])
    budget -= int(_take_blocks_cpu(block, block_cost, forest.level, forest.code, last, split))
    return split, last, np.flatnonzero(block == last), budget


def _in_order(forest: Forest, slope: Ints, root: int, budget: int) -> list[int]:
    """Return the nodes of a forest of one block that are split, by slope along the frontier, until one costs too much.

    A node's own block consists of what has a larger slope than the node, so it comes out in one piece.
    """
    below: dict[int, list[int]] = {}
    for v, parent in enumerate(forest.parent.tolist()):
        below.setdefault(parent, []).append(v)
    frontier, taken = [_rank(forest, slope, root)], []
    while frontier:
        v = heapq.heappop(frontier)[-1]
        budget -= int(forest.cost[v])
        if budget < 0:
            break
        taken.append(v)
        for child in below.get(v, ()):
            heapq.heappush(frontier, _rank(forest, slope, child))
    return taken


def _rank(forest: Forest, slope: Ints, v: int) -> tuple[int, int, int, int]:
    return -int(slope[v]), -int(forest.level[v]), int(forest.code[v]), v


def _cells(cost: Ints) -> int:
    return len(cost) * (int(cost.sum()) // max(1, int(np.gcd.reduce(cost))) + 1)


def _improve(forest: Forest, split: Any, budget: int) -> None:
    """Write the best choice over `split`, where that is worth more."""
    unit = max(1, int(np.gcd.reduce(forest.cost)))
    best = _optimal_cpu(forest.parent, forest.gain, forest.cost // unit, budget // unit)
    if int(forest.gain[best].sum()) > int(forest.gain[split].sum()):
        split[:] = best
