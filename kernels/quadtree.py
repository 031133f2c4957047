"""Trees over grids: where nodes are, how many children each has, and gains as whole numbers.

Level 0 holds the finest nodes; a node of level l + 1 has up to k × k children on level l, fewer at the lower and right
edges of grids that are not multiples of k. The coarsest level may hold several roots. Nodes are numbered coarsest level
first and row by row, so parents come before their children, and the finest, which alone cannot be split, come last;
the others are "inner" nodes.

Gains become integers, floor(gain · 2^e) with one e for the tree, so that sums and comparisons are exact: they depend
neither on order nor on contraction to fused multiply-adds, and CPU and CUDA give the same bits. e is chosen so that the
sum over all nodes stays below 2^61; the largest of 10^6 gains still has 41 bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.language import core, cpu_kernel

Ints = npt.NDArray[np.int64]
HEIGHT, WIDTH, FIRST, LEVEL, EDGE = range(5)
"""Columns of a layout: rows and columns of nodes, number of the first one, pyramid level, edge in level-0 pixels."""
_SUM_BITS = 61
_FREE_BITS = 7
"""A node with one child costs no leaf: blocks of one costly node and chains of such nodes are worth that much more."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The shape of one tree or forest."""

    side: int
    """Children of a full node along one axis."""
    shapes: Ints
    """`(levels, 2)`: rows and columns of nodes, level 0 first."""
    offsets: Ints
    """`(levels,)`: number of the first node of each level; that of level 0 is how many can be split."""

    @property
    def top(self) -> int:
        """The coarsest level."""
        return len(self.shapes) - 1

    @property
    def inner(self) -> int:
        """How many nodes can be split."""
        return int(self.offsets[0])

    @property
    def roots(self) -> int:
        """How many nodes the coarsest level has."""
        return int(self.shapes[-1].prod())

    @property
    def gain_bits(self) -> int:
        """Every whole gain is below 2 to this: sums stay below 2^61, and so does the price of a node at any λ."""
        most = _SUM_BITS - _FREE_BITS - (self.side**2).bit_length()
        return min(_SUM_BITS - self.inner.bit_length(), most)

    def slope_bits_of(self, leaves: bool) -> int:
        """Return b such that every gain per unit of cost, and so every λ, is below 2^b."""
        free = leaves and any(h % self.side == 1 and w % self.side == 1 for h, w in self.shapes[:-1])
        return self.gain_bits + (_FREE_BITS if free else 0)

    def cost_of_all(self, leaves: bool) -> int:
        """Return what splitting every node costs."""
        added = int(self.shapes[:-1].prod(axis=1).sum())
        return added - self.inner if leaves else added

    def cells(self, leaves: bool) -> int:
        """Return nodes times cost, in units of the costs' common divisor, of a table for the whole tree."""
        counts = {
            rows * columns - leaves
            for height, width in self.shapes[:-1].tolist()
            for rows in _parts(height, self.side)
            for columns in _parts(width, self.side)
        }
        return self.inner * (self.cost_of_all(leaves) // max(1, math.gcd(*counts)) + 1)

    @property
    def code_bits(self) -> int:
        """Every Morton code of an inner node is below 2 to this."""
        return 2 * max(1, int(self.shapes[1].max() - 1).bit_length())


def _parts(n: int, side: int) -> set[int]:
    """Return how many of n nodes in a row lie below one coarser node."""
    return ({side} if n >= side else set()) | ({n % side} if n % side else set())


def layout_of(tree: Geometry, leaf_px: int) -> Ints:
    """Return what kernels need to know of a tree: `(levels, 5)`, see `HEIGHT` to `EDGE`.

    Parameters
    ----------
    tree : Geometry
        The tree.
    leaf_px : int
        Edge of a finest node.

    Returns
    -------
    ndarray of int64
        A node that covers e × e finest ones is read from the pyramid level log2(e), rounded down.
    """
    edges = [tree.side**level for level in range(tree.top + 1)]
    rest = [(edge.bit_length() - 1, leaf_px * edge) for edge in edges]
    return np.column_stack([tree.shapes, tree.offsets, rest]).astype(np.int64)


def geometry_of(shapes: Sequence[tuple[int, int]], side: int) -> Geometry:
    """Return the geometry of grids, level 0 first.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Rows and columns, from the finest nodes to the roots; at least two levels.
    side : int
        Children of a full node along one axis.

    Returns
    -------
    Geometry
        Checked.

    Raises
    ------
    ConfigError
        When a grid is not the one below it divided by `side`, rounded up.
    """
    for level, (finer, coarser) in enumerate(itertools.pairwise(shapes)):
        expected = tuple(-(-n // side) for n in finer)
        if tuple(coarser) != expected:
            raise ConfigError.of(
                f"`gains[{level}]` of `allocate`",
                got=f"shape {tuple(coarser)} above a grid of {tuple(finer)} nodes",
                expected=f"shape {expected}: the grid below divided by {side}, rounded up",
                do="Hand in gains finest first; give `leaf_grid` where the finest grid is ragged.",
            )
    sizes = [h * w for h, w in shapes[1:]]
    offsets = [sum(sizes[level:]) for level in range(len(shapes))]
    return Geometry(side=side, shapes=np.array(shapes, np.int64), offsets=np.array(offsets, np.int64))


@core
def _spread_core(v: Any) -> Any:
    """Return the lower 31 bits of v with a zero bit between each two."""
    v = v & 0x7FFFFFFF
    v = (v | (v << 16)) & 0x0000FFFF0000FFFF
    v = (v | (v << 8)) & 0x00FF00FF00FF00FF
    v = (v | (v << 4)) & 0x0F0F0F0F0F0F0F0F
    v = (v | (v << 2)) & 0x3333333333333333
    return (v | (v << 1)) & 0x5555555555555555


@core
def morton_core(y: Any, x: Any) -> Any:
    """Return the Morton code of a node: bits of y and x interleaved, y above x."""
    return (_spread_core(y) << 1) | _spread_core(x)


@cpu_kernel
def codes_cpu(y: Any, x: Any) -> Any:
    """Return the Morton codes of nodes."""
    found = np.empty(len(y), np.int64)
    for i in range(len(y)):
        found[i] = morton_core(y[i], x[i])
    return found


@core
def children_core(height: Any, width: Any, side: Any, y: Any, x: Any) -> Any:
    """Return how many children the node at (y, x) has on a grid of height × width."""
    return min(side, height - side * y) * min(side, width - side * x)


@core
def whole_core(gain: Any, first: Any, second: Any) -> Any:
    """Return a gain times two powers of two, rounded down: exact in float32 and float64."""
    return np.int64(gain * first * second)


@core
def is_gain_core(gain: Any) -> Any:
    """Return whether a number can be a gain: not negative, not infinite, not NaN."""
    return gain >= 0 and gain - gain == 0


def exponent_of(peak: float, bits: int) -> int:
    """Return e so that a gain of at most `peak` times 2^e is below 2^bits."""
    return bits - int(np.frexp(peak)[1]) if peak > 0 else 0


def factors_of(exponent: int, dtype: Any) -> tuple[Any, Any]:
    """Return 2^exponent as two factors of `dtype`, since float32 holds no power of two above 2^127."""
    first = exponent // 2
    return np.ldexp(dtype.type(1), first), np.ldexp(dtype.type(1), exponent - first)


@cpu_kernel
def largest_cpu(flat: Any, start: Any, steps: Any, shape: Any) -> Any:
    """Return the largest gain of a level; -1 if one of them can be no gain."""
    largest = flat[start]
    usable = True
    for y in range(shape[0]):
        for x in range(shape[1]):
            gain = flat[start + y * steps[0] + x * steps[1]]
            usable = usable and is_gain_core(gain)
            largest = max(largest, gain)
    return np.float64(largest) if usable else -1.0


@cpu_kernel
def plant_cpu(gains: Any, factors: Any, level: Any, tree: Any, nodes: Any) -> None:
    """Write the nodes of one level: parent, whole gain, children, level, Morton code."""
    flat, start, steps = gains
    side, shapes, offsets = tree
    parent, whole, children, levels, codes = nodes
    top = len(shapes) - 1
    for y in range(shapes[level, 0]):
        for x in range(shapes[level, 1]):
            me = offsets[level] + y * shapes[level, 1] + x
            above = -1
            if level < top:
                above = offsets[level + 1] + (y // side) * shapes[level + 1, 1] + x // side
            parent[me] = above
            whole[me] = whole_core(flat[start + y * steps[0] + x * steps[1]], factors[0], factors[1])
            children[me] = children_core(shapes[level - 1, 0], shapes[level - 1, 1], side, y, x)
            levels[me] = level
            codes[me] = morton_core(y, x)
