"""The cut of a quadtree that gains most under a budget of tokens.

    maximise Σ gain(v) over the split nodes v, where
        count = leaves of the tree ≤ budget           (count="leaves": a split adds children - 1)
        count = all nodes of the tree ≤ budget        (count="nodes":  a split adds children)

gain(v) is what splitting node v into its children is worth, such as relevance mass × energy of the detail that the
finer level adds. Source: bottom-up pruning (see `tilestream.kernels.prune`), remainder by `tilestream.kernels.settle`.

Exact on the convex hull of (count, value) for gains rounded down to whole multiples of a power of two, some 2^-41 of
the largest (`tilestream.kernels.quadtree`). Everything is integer: CPU and CUDA, and any number of threads, agree bit
for bit; tolerance of the tests is 0, and that of values n · 2^-41 of the largest gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.allocate_cuda import cut_on_device, desk_for, make_whole, rows_on_device, value_on_device
from tilestream.kernels.checks import need, whole, whole_pair
from tilestream.kernels.cut_rows import rows_cpu
from tilestream.kernels.place import Array, Place, dtype_of, place
from tilestream.kernels.quadtree import (
    Geometry,
    exponent_of,
    factors_of,
    geometry_of,
    largest_cpu,
    layout_of,
    plant_cpu,
)
from tilestream.kernels.rows import flat_view
from tilestream.kernels.settle import Forest, cut_forest

EXACT_CELLS = 1 << 20
"""Of the table of dynamic programming by default: a tree, or a last block, of about 1,000 inner nodes."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A cut of a quadtree."""

    leaves: Array
    """`(n, 4)` int64: level, y, x, size of each leaf; corner and edge in level-0 pixels. Coarsest first, row by row."""
    nodes: Array | None
    """The same of all nodes of the cut, inner ones too, with `count="nodes"`; else None."""
    value: float
    """Σ gain over the nodes that were split."""
    slope: float
    """λ, the gain a unit of the budget at which it ran out; 0 where the whole tree was affordable."""
    count: int
    """What the cut takes of the budget: leaves or nodes."""


def allocate(
    gains: Sequence[Array],
    budget: int,
    *,
    count: Literal["leaves", "nodes"] = "leaves",
    branching: int = 4,
    leaf_px: int = 1,
    leaf_grid: tuple[int, int] | None = None,
    exact_cells: int = EXACT_CELLS,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Allocation:
    """Return the cut of a quadtree that gains most with at most `budget` tokens.

    Parameters
    ----------
    gains : sequence of array of float32 or float64
        `(h, w)` each, finest first: `gains[0]` of the nodes whose children are the finest nodes, the last of the roots.
        Each grid is the one before divided by the square root of `branching`, rounded up; the last may hold several
        roots. Finite and not negative, all in one place, any strides.
    budget : int
        Most leaves, or nodes; at least as many as there are roots.
    count : {"leaves", "nodes"}
        What the budget counts.
    branching : int
        Children of a full node: 4, 9, 16, …
    leaf_px : int
        Edge of a finest node in level-0 pixels.
    leaf_grid : tuple of int, optional
        Rows and columns of the finest nodes; by default every node of `gains[0]` has all its children.
    exact_cells : int
        Largest table, nodes × cost, with which what remains of the budget is spent optimally; 0 leaves it to the order.
    out : array of int64, optional
        `(m, 4)`, contiguous, of at least as many rows as leaves come out; `leaves` is its beginning.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one. The host waits for it, since it must know how many
        tokens there are.
    threads : int, optional
        Most CPU threads; the CPU form is serial whatever it is.

    Returns
    -------
    Allocation
        Leaves tile the grid of finest nodes once. With costs of c at most for a split (3 with quadtrees and leaves),
        budget - c < count ≤ budget while a split is possible, ragged edges included. The value never falls as the
        budget grows. A node of tree level l covers `leaf_px` · branching^(l/2) pixels and is read from the pyramid
        level l · log2(branching)/2, rounded down where that is no whole number; edges may reach out of the image.

    Raises
    ------
    ConfigError
        When gains are negative, not finite, of another type or of shapes that are no tree, when the budget is smaller
        than the number of roots, or `branching` is no square.

    Notes
    -----
    110 bytes and 50 to 200 ns an inner node on the CPU, most where finer levels gain more than coarser ones. On a
    device four small copies to the host: λ with the last block that did not fit, which is opened there, that block if
    it is large, the value, and the number of leaves.
    """
    tree = _checked(gains, branching, leaf_grid)
    _check_choices(tree, budget, count, leaf_px, exact_cells)
    named = {f"gains[{i}]": gain for i, gain in enumerate(gains)}
    where = place("allocate", backend=backend, stream=stream, threads=threads, out=out, **named)
    need("allocate", "out", out, dtypes=("int64",), ndim=2, empty=True, contiguous=True)
    wanted = _Wanted(
        tree=tree, budget=int(budget), nodes=count == "nodes", leaf_px=leaf_px, exact_cells=exact_cells, out=out
    )
    if where.backend == "cpu":
        return _on_host(gains, wanted)
    return _on_device(gains, wanted, where)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What one call asks for."""

    tree: Geometry
    budget: int
    nodes: bool
    leaf_px: int
    exact_cells: int
    out: Array | None

    @property
    def to_spend(self) -> int:
        return self.budget - self.tree.roots


def _checked(gains: Any, branching: int, leaf_grid: tuple[int, int] | None) -> Geometry:
    if isinstance(gains, np.ndarray) or not isinstance(gains, Sequence) or not gains:
        got = type(gains).__name__ if not isinstance(gains, Sequence) or gains else "no level"
        raise ConfigError.of(
            "`gains` of `allocate`", got=got, expected="a list of arrays, finest first", do="One array a level."
        )
    branching = whole("allocate", "branching", branching, least=0, most=2**40)
    side = math.isqrt(branching)
    if side < 2 or side * side != branching:
        raise ConfigError.of(
            "`branching` of `allocate`", got=branching, expected="4, 9, 16, …: a square", do="Use 4 for a quadtree."
        )
    for i, gain in enumerate(gains):
        if gain is None:
            raise ConfigError.of(f"`gains[{i}]` of `allocate`", got="None", expected="an array", do="Leave none out.")
        place("allocate", backend=None, stream=0, threads=1, **{f"gains[{i}]": gain})
        need("allocate", f"gains[{i}]", gain, dtypes=("float32", "float64"), ndim=2)
        need("allocate", f"gains[{i}]", gain, dtypes=(dtype_of(gains[0]).name,))
    shapes = [(int(gain.shape[0]), int(gain.shape[1])) for gain in gains]
    finest = leaf_grid if leaf_grid is not None else (shapes[0][0] * side, shapes[0][1] * side)
    return geometry_of([whole_pair("allocate", "leaf_grid", finest), *shapes], side)


def _check_choices(tree: Geometry, budget: int, count: str, leaf_px: int, exact_cells: int) -> None:
    if count not in ("leaves", "nodes"):
        raise ConfigError.of(
            "`count` of `allocate`", got=repr(count), expected="'leaves' or 'nodes'", do="Say what the budget counts."
        )
    whole("allocate", "budget", budget)
    for name, number, least in (("leaf_px", leaf_px, 1), ("exact_cells", exact_cells, 0)):
        whole("allocate", name, number, most=2**40)
        if number < least:
            raise ConfigError.of(f"`{name}` of `allocate`", got=number, expected=f"at least {least}", do="Raise it.")
    if budget < tree.roots:
        raise ConfigError.of(
            "`budget` of `allocate`",
            got=budget,
            expected=f"at least {tree.roots}, the number of roots",
            do="Raise it, or add coarser levels.",
        )


def _on_host(gains: Sequence[npt.NDArray[Any]], wanted: _Wanted) -> Allocation:
    tree = wanted.tree
    views = [flat_view(gain) for gain in gains]
    peaks = [largest_cpu(*view, gain.shape) for view, gain in zip(views, gains, strict=True)]
    for i, peak in enumerate(peaks):
        if not peak >= 0:
            _refuse_gain(f"gains[{i}]")
    exponent = exponent_of(float(max(peaks)), tree.gain_bits)
    factors = factors_of(exponent, gains[0].dtype)
    parent, whole, children, level, code = np.empty((5, tree.inner), np.int64)
    for i, view in enumerate(views):
        shape = (tree.side, tree.shapes, tree.offsets)
        plant_cpu(view, factors, i + 1, shape, (parent, whole, children, level, code))
    forest = Forest(
        parent=parent, gain=whole, cost=children if wanted.nodes else children - 1, level=level, code=code,
        slope_bits=tree.slope_bits_of(not wanted.nodes), code_bits=tree.code_bits,
    )  # fmt: skip
    split, slope = cut_forest(forest, wanted.to_spend, exact_cells=wanted.exact_cells)
    found = tree.roots + int(forest.cost[split].sum())
    leaves = wanted.out if wanted.out is not None else np.empty((found, 4), np.int64)
    nodes = np.empty((found if wanted.nodes else 0, 4), np.int64)
    many = tree.roots + int((children[split] - 1).sum())
    _check_room(wanted.out, many)
    rows_cpu(split, tree.side, layout_of(tree, wanted.leaf_px), leaves, nodes)
    return Allocation(
        leaves=leaves[:many],
        nodes=nodes if wanted.nodes else None,
        value=float(np.ldexp(float(whole[split].sum()), -exponent)),
        slope=float(np.ldexp(float(slope), -exponent)),
        count=found,
    )


def _on_device(gains: Sequence[Array], wanted: _Wanted, where: Place) -> Allocation:
    desk = desk_for(wanted.tree, where, gains[0], leaf_px=wanted.leaf_px, nodes=wanted.nodes)
    make_whole(desk, gains)
    slope, exponent = cut_on_device(desk, wanted.to_spend, exact_cells=wanted.exact_cells)
    if slope < 0:
        _refuse_gain("gains")
    value = value_on_device(desk)
    nodes, many_nodes = rows_on_device(desk, inner=True, out=None) if wanted.nodes else (None, 0)
    leaves, many = rows_on_device(desk, inner=False, out=wanted.out)
    _check_room(wanted.out, many)
    return Allocation(
        leaves=leaves[:many],
        nodes=nodes,
        value=float(np.ldexp(float(value), -exponent)),
        slope=float(np.ldexp(float(slope), -exponent)),
        count=many_nodes if wanted.nodes else many,
    )


def _refuse_gain(name: str) -> None:
    """Raise the error of a gain that is none."""
    raise ConfigError.of(
        f"`{name}` of `allocate`", got="gains that are negative or not finite", expected="finite gains of at least 0",
        do="Replace NaN and infinity, and clip at 0: a split that loses is one that gains nothing.",
    )  # fmt: skip


def _check_room(out: Array | None, many: int) -> None:
    """Raise unless `out` has room for so many leaves."""
    if out is not None and (int(out.shape[1]) != 4 or int(out.shape[0]) < many):
        raise ConfigError.of(
            "`out` of `allocate`", got=f"shape {tuple(out.shape)}", expected=f"at least {many} rows of 4",
            do="Give it as many rows as the budget.",
        )  # fmt: skip
