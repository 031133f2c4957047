"""The allocator on a device: launches one after the other on the caller's stream, and what the host must know.

Gains → whole gains → λ → the cut but for one block, which the host opens as the CPU form would → rows. A tree, or that
block, small enough for dynamic programming is cut on the host altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels import prune_cuda as prune
from tilestream.kernels import settle_cuda as settle
from tilestream.kernels.constants import constant
from tilestream.kernels.cut_rows import RUN, count_rows, write_rows
from tilestream.kernels.language import SIMULATED, cuda
from tilestream.kernels.place import Array, Place, dtype_of, empty_like
from tilestream.kernels.quadtree import Geometry, Ints, codes_cpu, layout_of
from tilestream.kernels.rows import flat_view
from tilestream.kernels.scratch import fetched, zeros
from tilestream.kernels.settle import Forest, cut_forest


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What one call works with on a device."""

    tree: Geometry
    """The tree."""
    here: Place
    """A CUDA place."""
    like: Array
    """Whose library makes arrays."""
    spared: int
    """What a split adds to the count less than its children: 1 where leaves are counted."""
    layout: Array
    """See `layout_of`."""
    book: Array
    """int64: what `prune_cuda` names, then whole gains, blocks, what they cost, and results of stages."""
    tables: tuple[int, ...]
    """Where the results of each stage begin in the book."""
    split: Array
    """uint8, one an inner node."""

    @property
    def whole(self) -> int:
        """Where whole gains begin in the book."""
        return _head(self.tree)

    @property
    def block(self) -> int:
        """Where the blocks of nodes begin."""
        return self.whole + self.tree.inner

    @property
    def block_cost(self) -> int:
        """Where the costs of blocks begin."""
        return self.whole + 2 * self.tree.inner

    def over(self, kernel: Any, n: int, threads: int, *arguments: Any) -> None:
        """Launch a kernel of at least n threads, in blocks of `threads`, or one smaller block."""
        self.here.launch(kernel, max(1, -(-n // threads)), max(1, min(n, threads)), *arguments)

    def send(self, values: npt.NDArray[Any]) -> Array:
        """Return host values on the device, in the order of the stream."""
        there = flat_view(empty_like(self.like, values.shape, values.dtype), writable=True)[0]
        self.put(values, there)
        return there

    def put(self, values: npt.NDArray[Any], there: Array) -> None:
        """Copy host values to a device array, in the order of the stream."""
        if SIMULATED:
            there.copy_to_device(values)
            return
        with cuda.gpus[self.here.device]:
            there.copy_to_device(values, stream=cuda.external_stream(self.here.stream) if self.here.stream else 0)


def desk_for(tree: Geometry, here: Place, like: Array, *, leaf_px: int, nodes: bool) -> Desk:
    """Return the memory for one call.

    Parameters
    ----------
    tree : Geometry
        The tree.
    here : Place
        A CUDA place.
    like : array
        Whose library makes arrays.
    leaf_px : int
        Edge of a finest node.
    nodes : bool
        Whether the budget counts nodes.

    Returns
    -------
    Desk
        The book is zero.
    """
    tables = [_head(tree) + 3 * tree.inner]
    for _, top in prune.stages_of(tree.top, tree.side):
        # threads of a block that reach beyond the last node write nothing
        tables.append(tables[-1] + 2 * prune.K * int(tree.shapes[top].prod()))
    layout = layout_of(tree, leaf_px)
    return Desk(
        tree=tree, here=here, like=like, spared=0 if nodes else 1, tables=tuple(tables),
        layout=constant(here, layout).reshape(layout.shape),
        book=flat_view(zeros(here, like, (tables[-1],)), writable=True)[0],
        split=flat_view(empty_like(like, (tree.inner,), np.uint8), writable=True)[0],
    )  # fmt: skip


def make_whole(desk: Desk, gains: Sequence[Array]) -> None:
    """Put on the stream: whole gains, and the first λ to try, are in the book.

    Parameters
    ----------
    desk : Desk
        Of this call.
    gains : sequence of array
        Finest first, any strides.
    """
    tree, dtype = desk.tree, dtype_of(gains[0])
    reals = desk.send(np.zeros(4, dtype))
    values = flat_view(empty_like(desk.like, (tree.inner,), dtype), writable=True)[0]
    for level, gain in enumerate(gains, start=1):
        n, width = int(tree.shapes[level].prod()), int(tree.shapes[level, 1])
        flat, start, steps = flat_view(gain)
        first = int(tree.offsets[level])
        runs = -(-n // prune.RUN)
        desk.over(
            prune.collect_cuda, runs, prune.THREADS, flat, start, steps, width, n, first, values, reals, desk.book
        )
    bits = tree.slope_bits_of(desk.spared == 1)
    desk.here.launch(prune.begin_cuda, 1, prune.K, reals, tree.gain_bits, bits, desk.book)
    desk.over(prune.whole_cuda, tree.inner, prune.THREADS, values, reals, tree.inner, desk.whole, desk.book)


def cut_on_device(desk: Desk, to_spend: int, *, exact_cells: int) -> tuple[int, int]:
    """Write which nodes to split; wait for the device once or twice.

    Parameters
    ----------
    desk : Desk
        With whole gains.
    to_spend : int
        Most that the splits may cost together.
    exact_cells : int
        Largest table of dynamic programming.

    Returns
    -------
    slope : int
        As `cut_forest` returns it.
    exponent : int
        Whole gains are gains times two to the power of this; -1 with a slope of -1 where a gain is none.
    """
    tree, leaves = desk.tree, desk.spared == 1
    if tree.cost_of_all(leaves) <= to_spend:
        state, slope = _read(desk, 0, prune.MEMBERS), 0
        desk.put(np.ones(tree.inner, np.uint8), desk.split)
    elif tree.cells(leaves) <= exact_cells:
        state = _read(desk, 0, prune.MEMBERS)
        forest = _forest(desk, np.arange(tree.inner), _read(desk, desk.whole, tree.inner))
        split, slope = cut_forest(forest, to_spend, exact_cells=exact_cells)
        desk.put(split.astype(np.uint8), desk.split)
    else:
        _search(desk, to_spend)
        _take(desk, to_spend)
        state = _read(desk, 0, prune.LAMBDAS)
        slope = int(state[prune.LOW])
        if not state[prune.BAD]:
            _open_last(desk, state, exact_cells)
    return (-1, -1) if state[prune.BAD] else (slope, int(state[prune.EXPONENT]))


def value_on_device(desk: Desk) -> int:
    """Return the sum of the whole gains of split nodes; waits for the device.

    Parameters
    ----------
    desk : Desk
        With a cut.

    Returns
    -------
    int
        At most 2^61.
    """
    n = desk.tree.inner
    desk.over(settle.value_cuda, -(-n // settle.RUN), settle.THREADS, desk.book, desk.whole, n, desk.split)
    return int(_read(desk, prune.VALUE, 1)[0])


def rows_on_device(desk: Desk, *, inner: bool, out: Array | None) -> tuple[Array, int]:
    """Return the tokens of a cut and how many there are; waits for the device, not for the rows themselves.

    Parameters
    ----------
    desk : Desk
        With a cut.
    inner : bool
        Whether split nodes are tokens too.
    out : array of int64 or None
        Where to write if there is room; otherwise nothing is written and it is returned as it is.

    Returns
    -------
    rows : array of int64
        `(n, 4)`, or `out`.
    n : int
        How many.
    """
    tree = desk.tree
    total = tree.inner + int(tree.shapes[0].prod())
    counts = flat_view(empty_like(desk.like, (1 + -(-total // RUN),), np.int64), writable=True)[0]
    count_rows(desk.here, desk.split, tree.side, desk.layout, total, inner=inner, counts=counts)
    n = int(fetched(desk.here, counts[:1])[0])
    rows = empty_like(desk.like, (n, 4), np.int64) if out is None else out
    if int(rows.shape[0]) >= n:
        flat = flat_view(rows, writable=True)[0]
        write_rows(desk.here, desk.split, tree.side, desk.layout, total, inner=inner, counts=counts, rows=flat)
    return rows, n


def _head(tree: Geometry) -> int:
    return prune.BINS + (tree.top + 1) * prune.DIGITS


def _read(desk: Desk, start: int, n: int) -> Ints:
    return np.asarray(fetched(desk.here, desk.book[start : start + n]), np.int64)


def _evaluate(desk: Desk, k: int, flags: Array, *, keep: bool) -> None:
    tree = desk.tree
    for i, (bottom, top) in enumerate(prune.stages_of(tree.top, tree.side)):
        before = desk.tables[max(i - 1, 0)]
        desk.over(
            prune.evaluate_cuda, int(tree.shapes[top].prod()) * k, prune.THREADS, desk.book, desk.layout, tree.side,
            desk.spared, bottom, top, k, desk.whole, before, desk.tables[i], flags, keep,
        )  # fmt: skip


def _search(desk: Desk, to_spend: int) -> None:
    """Find the two neighbouring λ, and mark and cost what enters above them."""
    tree = desk.tree
    flags = flat_view(empty_like(desk.like, (2 * tree.inner,), np.uint8), writable=True)[0]
    rounds = prune.rounds_of(tree.slope_bits_of(desk.spared == 1))
    for i in range(rounds):
        _evaluate(desk, prune.K, flags, keep=False)
        desk.here.launch(prune.narrow_cuda, 1, prune.K, desk.book, to_spend, i == rounds - 1)
    _evaluate(desk, 2, flags, keep=True)
    desk.over(
        settle.mark_cuda, tree.inner, settle.THREADS, flags, desk.layout, tree.side, desk.spared, desk.book,
        desk.block, desk.block_cost, desk.split,
    )  # fmt: skip


def _take(desk: Desk, to_spend: int) -> None:
    """Split the blocks that the budget pays for, in order."""
    n, here = desk.tree.inner, desk.here
    for i, (width, shift) in enumerate(settle.digit_passes(desk.tree.code_bits)):
        desk.over(
            settle.tally_cuda, n, settle.THREADS, desk.book, desk.layout, desk.block, desk.block_cost,
            width if i else 0, shift,
        )  # fmt: skip
        here.launch(settle.pick_cuda, 1, 1, desk.book, desk.tree.top, -1 if i else to_spend, width - shift)
    desk.over(settle.take_cuda, n, settle.THREADS, desk.book, desk.layout, desk.block, desk.whole, desk.split)


def _open_last(desk: Desk, state: Ints, exact_cells: int) -> None:
    """Split what the rest of the budget pays for in the block that is too much for it, found on the host."""
    size, left = int(state[prune.SIZE]), int(state[prune.LEFT])
    if size == 1:
        return
    pairs = state[prune.MEMBERS : prune.MEMBERS + 2 * size]
    if size > prune.MOST_MEMBERS:
        members, place = zeros(desk.here, desk.like, (2 * size,)), zeros(desk.here, desk.like, (1,))
        desk.over(
            settle.gather_cuda, desk.tree.inner, settle.THREADS, desk.book, desk.block, desk.whole, desk.tree.inner,
            flat_view(place, writable=True)[0], flat_view(members, writable=True)[0],
        )  # fmt: skip
        pairs = fetched(desk.here, members)
    pairs = pairs.reshape(-1, 2)
    pairs = pairs[np.argsort(pairs[:, 0])]  # atomics put them in any order
    split, _ = cut_forest(_forest(desk, pairs[:, 0], pairs[:, 1].copy()), left, exact_cells=exact_cells)
    chosen = pairs[split, 0].copy()
    if len(chosen):
        desk.over(settle.split_cuda, len(chosen), settle.THREADS, desk.send(chosen), len(chosen), desk.split)


def _forest(desk: Desk, numbers: Ints, whole: Ints) -> Forest:
    """Return inner nodes as a forest, from their numbers, which ascend."""
    tree = desk.tree
    starts = tree.offsets[::-1]
    level = tree.top - (np.searchsorted(starts, numbers, side="right") - 1)
    y, x = np.divmod(numbers - tree.offsets[level], tree.shapes[level, 1])
    finer = tree.shapes[level - 1]
    children = np.minimum(tree.side, finer[:, 0] - tree.side * y) * np.minimum(tree.side, finer[:, 1] - tree.side * x)
    above = np.minimum(level + 1, tree.top)
    parents = tree.offsets[above] + (y // tree.side) * tree.shapes[above, 1] + x // tree.side
    at = np.minimum(np.searchsorted(numbers, parents), len(numbers) - 1)
    here = (level < tree.top) & (numbers[at] == parents)
    return Forest(
        parent=np.where(here, at, -1), gain=whole, cost=children - desk.spared, level=level, code=codes_cpu(y, x),
        slope_bits=tree.slope_bits_of(desk.spared == 1), code_bits=tree.code_bits,
    )  # fmt: skip
