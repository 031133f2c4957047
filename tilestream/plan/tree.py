"""The tree of tokens over an image: which nodes there are, what splitting each is worth, and which are split.

    gain(node) = 2^l · mean relevance of the node's square        l = level of the node

that is relevance mass (score × wanted area, in finest tokens) times detail 2^-l: pixels of a node of level l are 2^l
times as coarse as those of the finest, and where relevance is twice as high, tokens become one level finer. It is the
law of the fovea, of which the relevance is 1 / (1 + e / e0) (`tilestream.kernels.fovea`), so that both multiply.

Nothing is known of what no relevance is (glass, nodata): its mass is 0, and a node without mass is never split, also
where the budget would allow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.grid import Ints
from tilestream.kernels.allocate import EXACT_CELLS
from tilestream.kernels.quadtree import codes_cpu, exponent_of
from tilestream.kernels.settle import Forest, cut_forest

Mask = npt.NDArray[np.bool_]
Mass = npt.NDArray[np.float64]
_SUM_BITS, _FREE_BITS = 61, 7
"""Sums of whole gains stay below 2^61, and so do 2^7 times one: a chain of splits that cost nothing counts for one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenTree:
    """Grids of nodes, the finest first; each node of one has up to side² children on the one before."""

    levels: tuple[int, ...]
    """Token level of each grid."""
    side: int
    """Children of a full node along one axis."""
    wanted: tuple[Mask, ...]
    """`(y, x)` nodes of each grid that hold something wanted; the others do not exist."""

    @classmethod
    def over(cls, wanted: Mask, *, levels: tuple[int, ...], side: int) -> TokenTree:
        """Return the tree over its finest nodes.

        Parameters
        ----------
        wanted : ndarray of bool
            `(y, x)` finest nodes that are wanted.
        levels : tuple of int
            Token level of each grid, ascending.
        side : int
            Children along one axis.

        Returns
        -------
        TokenTree
            A coarser node is wanted if one below it is.
        """
        grids = [wanted]
        for _ in levels[1:]:
            grids.append(pooled(grids[-1], side) > 0)
        return cls(levels=levels, side=side, wanted=tuple(grids))

    @property
    def roots(self) -> int:
        """Return how many wanted nodes the coarsest grid has: the least tokens of a cut."""
        return int(np.count_nonzero(self.wanted[-1]))

    @cached_property
    def children(self) -> tuple[Ints, ...]:
        """Return how many wanted children each node has, from the second grid on."""
        return tuple(pooled(finer, self.side) for finer in self.wanted[:-1])

    def below(self, chosen: Mask, grid: int) -> Mask:
        """Return the wanted nodes of a grid that lie below chosen ones of the next coarser."""
        height, width = self.wanted[grid].shape
        spread = chosen.repeat(self.side, axis=0)[:height].repeat(self.side, axis=1)[:, :width]
        return np.asarray(spread & self.wanted[grid])


def pooled(grid: npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
    """Return the sums of side × side cells, fewer at the far edges; those of booleans are numbers.

    Parameters
    ----------
    grid : ndarray
        `(y, x)`.
    side : int
        Cells along an axis.

    Returns
    -------
    ndarray
        `(ceil(y / side), ceil(x / side))`, int64 or float64.
    """
    summed = grid if grid.dtype.kind == "f" else grid.astype(np.int64)
    for axis in (0, 1):  # slice by slice: many times as fast as `np.add.reduceat`
        across = np.moveaxis(summed, axis, 0)
        summed = across[::side].copy()
        for step in range(1, side):
            part = across[step::side]
            summed[: len(part)] += part
        summed = np.moveaxis(summed, 0, axis)
    return np.ascontiguousarray(summed)


def masses(tree: TokenTree, leaf_mass: Mass) -> tuple[Mass, ...]:
    """Return the relevance mass of the nodes of every grid, in squares of the finest, finest first.

    Parameters
    ----------
    tree : TokenTree
        The nodes.
    leaf_mass : ndarray of float64
        `(y, x)` of the finest.

    Returns
    -------
    tuple of ndarray of float64
        Sums; 0 where nothing is wanted.
    """
    found = [np.where(tree.wanted[0], leaf_mass, 0.0)]
    for _ in tree.levels[1:]:
        found.append(pooled(found[-1], tree.side))
    return tuple(found)


def gains_of(tree: TokenTree, mass: Sequence[Mass]) -> list[Mass]:
    """Return what splitting each node is worth, from the second grid on.

    Parameters
    ----------
    tree : TokenTree
        The nodes.
    mass : sequence of ndarray
        From `masses`.

    Returns
    -------
    list of ndarray of float64
        2^(l - finest l) times the mean relevance of a node's whole square.
    """
    return [one / float(tree.side) ** grid for grid, one in enumerate(mass[1:], 1)]


def best(mass: Mass, budget: int) -> Mask:
    """Return the `budget` squares of a grid with the most mass, fewer where the others have none.

    Parameters
    ----------
    mass : ndarray of float64
        `(y, x)`.
    budget : int
        Most squares.

    Returns
    -------
    ndarray of bool
        `(y, x)`; of equal ones (in float32) those of the smaller Morton code.
    """
    rounded = mass.astype(np.float32)
    some = int(np.count_nonzero(rounded > 0))
    if some <= budget:
        return np.asarray(rounded > 0)
    least = np.partition(rounded, rounded.size - budget, axis=None)[rounded.size - budget]
    chosen: Mask = np.asarray(rounded > least)
    y, x = np.nonzero(rounded == least)
    first = np.argsort(codes_cpu(y, x))[: budget - int(np.count_nonzero(chosen))]
    chosen[y[first], x[first]] = True
    return chosen


def cut(
    tree: TokenTree, gains: Sequence[npt.NDArray[np.floating[Any]]], budget: int, *, nodes: bool = False
) -> tuple[Mask, ...]:
    """Return which nodes are split, for the largest sum of gains with at most `budget` tokens.

    Parameters
    ----------
    tree : TokenTree
        The nodes.
    gains : sequence of ndarray
        Of each grid from the second on, rounded to float32, so that what differs in the last bits of sums only is
        equal; a node that gains nothing is not split.
    budget : int
        Most leaves, or nodes; at least `tree.roots`.
    nodes : bool
        Whether all nodes count, and not the leaves alone.

    Returns
    -------
    tuple of ndarray of bool
        One a grid from the second on. Where everything is wanted and gains are above 0 the same as of
        `kernels.allocate`.

    Notes
    -----
    About 200 ns and 150 bytes for each node that can be split.
    """
    rounded = [np.asarray(gain, np.float32) for gain in gains]
    openable = _openable(tree, rounded)
    splits = [np.zeros(one.shape, np.bool_) for one in openable]
    if not any(one.any() for one in openable):
        return tuple(splits)
    forest = _forest(tree, rounded, openable, nodes=nodes)
    split, _ = cut_forest(forest, budget - tree.roots, exact_cells=EXACT_CELLS)
    first = 0
    for one, target in zip(reversed(openable), reversed(splits), strict=True):
        last = first + int(np.count_nonzero(one))
        target[one] = split[first:last]
        first = last
    return tuple(splits)


def nodes_of(tree: TokenTree, splits: Sequence[Mask]) -> tuple[tuple[Mask, ...], tuple[Mask, ...]]:
    """Return the nodes of a cut, and which of them are its leaves, of each grid.

    Parameters
    ----------
    tree : TokenTree
        The nodes.
    splits : sequence of ndarray of bool
        From `cut`.

    Returns
    -------
    nodes : tuple of ndarray of bool
        Finest grid first.
    leaves : tuple of ndarray of bool
        The nodes that are not split.
    """
    found = [tree.wanted[-1]]
    for grid in range(len(tree.levels) - 2, -1, -1):
        found.insert(0, tree.below(splits[grid], grid))
    leaves = [found[0], *(node & ~split for node, split in zip(found[1:], splits, strict=True))]
    return tuple(found), tuple(leaves)


def _openable(tree: TokenTree, gains: Sequence[npt.NDArray[np.float32]]) -> list[Mask]:
    """Return the nodes that may be split: wanted ones with a gain all the way up."""
    found: list[Mask] = []
    for grid in range(len(tree.levels) - 1, 0, -1):
        able = tree.wanted[grid] & (gains[grid - 1] > 0)
        if found:
            able &= tree.below(found[0], grid)
        found.insert(0, able)
    return found


def _forest(
    tree: TokenTree, gains: Sequence[npt.NDArray[np.float32]], openable: Sequence[Mask], *, nodes: bool
) -> Forest:
    count = sum(int(np.count_nonzero(one)) for one in openable)
    bits = min(_SUM_BITS - count.bit_length(), _SUM_BITS - _FREE_BITS - (tree.side**2).bit_length())
    exponent = exponent_of(max(float(gain.max()) for gain in gains), bits)
    columns: list[tuple[Ints, ...]] = []
    above: Ints = np.empty((0, 0), np.int64)
    first = 0
    for step in range(len(openable), 0, -1):
        able = openable[step - 1]
        y, x = np.nonzero(able)
        number: Ints = np.full(able.shape, -1, np.int64)
        number[able] = first + np.arange(len(y))
        parent = above[y // tree.side, x // tree.side] if above.size else np.full(len(y), -1, np.int64)
        whole = np.ldexp(gains[step - 1][able].astype(np.float64), exponent).astype(np.int64)
        cost = tree.children[step - 1][able] - (0 if nodes else 1)
        columns.append((parent, whole, cost, np.full(len(y), step, np.int64), codes_cpu(y, x)))
        above, first = number, first + len(y)
    parent, whole, cost, level, code = (np.concatenate(one) for one in zip(*columns, strict=True))
    return Forest(
        parent=parent,
        gain=whole,
        cost=cost,
        level=level,
        code=code,
        slope_bits=bits + _FREE_BITS,
        code_bits=2 * max(1, int(max(openable[0].shape) - 1).bit_length()),
    )
