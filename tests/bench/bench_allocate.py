"""The allocator on trees of a million nodes, against the loop over a heap that users write, and against the optimum."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.allocate import allocate
from tilestream.kernels.fovea import fovea_gains
from tilestream.kernels.fovea_tree import fovea_tokens

ALLOCATE_BAR_MS = 100.0
"""On a million nodes."""
FOVEA_BAR_MS = 10.0
"""A plan of 131072²."""
HEAP_BAR = 1.0
QUALITY_BAR = 0.98
LEAVES = 1024
"""Finest nodes along one axis: 1,398,101 nodes in all, of which 349,525 have gains."""

Gains = list[npt.NDArray[np.float32]]


def gains_of(kind: str, leaves: int) -> Gains:
    """Return gains of a full quadtree, finest first.

    relevance: heavy-tailed mass that falls from coarse to fine, as on slides; noise: no level is worth more than
    another; fine: only the finest level is worth anything, the worst case, in which the whole tree is one block.
    """
    noise, gains, edge = np.random.default_rng(4), [], leaves // 2
    while edge:
        level = len(gains)
        found = noise.gamma(0.5, 1, (edge, edge)) * 3.0**level if kind == "relevance" else noise.random((edge, edge))
        gains.append((found * (kind != "fine" or level == 0)).astype(np.float32))
        edge //= 2
    return gains


def heap_greedy(gains: Gains, budget: int) -> tuple[list[tuple[int, int, int]], float]:
    """Return leaves and value of what users write: split the leaf of the largest gain while the budget lasts."""
    top = len(gains)
    rows, columns = gains[-1].shape
    heap = [(-float(gains[-1][y, x]), top, y, x) for y in range(rows) for x in range(columns)]
    heapq.heapify(heap)
    leaves, value, count = [], 0.0, len(heap)
    while heap and count + 3 <= budget:
        gain, level, y, x = heapq.heappop(heap)
        value -= gain
        count += 3
        for child_y, child_x in ((2 * y, 2 * x), (2 * y, 2 * x + 1), (2 * y + 1, 2 * x), (2 * y + 1, 2 * x + 1)):
            if level == 1:
                leaves.append((0, child_y, child_x))
            else:
                heapq.heappush(heap, (-float(gains[level - 2][child_y, child_x]), level - 1, child_y, child_x))
    return leaves + [(level, y, x) for _, level, y, x in heap], value


def optimum(gains: Gains) -> npt.NDArray[np.float64]:
    """Return the best value of each number of splits of a quadtree with one root, by trying all."""
    tables = [[np.array([0.0, gain]) for gain in row] for row in gains[0].astype(float)]
    for level in gains[1:]:
        tables = [
            [
                np.concatenate([[0.0], level[y, x] + _together(_together(a, b), _together(c, d))])
                for x, (a, b, c, d) in enumerate(
                    zip(tables[2 * y][::2], tables[2 * y][1::2], tables[2 * y + 1][::2], tables[2 * y + 1][1::2],
                        strict=True)
                )
            ]
            for y in range(len(tables) // 2)
        ]  # fmt: skip
    return tables[0][0]


def _together(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found = np.full(len(a) + len(b) - 1, -np.inf)
    for i, value in enumerate(a):
        np.maximum(found[i : i + len(b)], value + b, out=found[i : i + len(b)])
    return found


def fastest_ms(work: Callable[[], object], rounds: int = 7) -> float:
    """Return the shortest of several times, after one to compile."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def size_row(kind: str, *, leaves: int = LEAVES, budget: int = 20_000, bar: float | None = None) -> dict[str, Any]:
    """Return how long one cut takes."""
    gains = gains_of(kind, leaves)
    nodes = (4 * leaves * leaves - 1) // 3
    value = fastest_ms(lambda: allocate(gains, budget, threads=1))
    return make_row(
        f"allocate, {nodes / 1e6:.1f} M nodes, {kind}", value, "ms", bar=None if bar is None else (0.0, bar),
        note=f"serial, best of 7, {budget:,} tokens; {nodes / value / 1e3:.0f} M nodes/s, "
        f"{sum(gain.size for gain in gains):,} of them with gains",
    )  # fmt: skip


def heap_row(*, rounds: int = 3, bar: float | None = None) -> dict[str, Any]:
    """Return the rate against the heap, on a tree and a budget with which that takes its time but ends."""
    gains, budget = gains_of("noise", 256), 20_000
    nodes = (4 * 256 * 256 - 1) // 3
    value = allocate(gains, budget, threads=1).value

    def ours() -> float:
        for _ in range(8):
            allocate(gains, budget, threads=1)
        return 8 * nodes

    def theirs() -> float:
        heap_greedy(gains, budget)
        return nodes

    found, rival = rates([ours, theirs], rounds=rounds)
    better = value / heap_greedy(gains, budget)[1]
    return make_row(
        "allocate, 87 k nodes, noise", found / 1e6, "M nodes/s", rival=("heapq loop in Python", rival / 1e6),
        bar=None if bar is None else at_least(bar),
        note=f"20,000 tokens; its value is {better:.3f} times that of the heap, which sees one level ahead",
    )  # fmt: skip


def quality_row(kind: str, *, bar: float | None = None) -> dict[str, Any]:
    """Return the least share of the optimum over budgets, on a tree too large for exact search to step in."""
    gains = gains_of(kind, 64)
    best = optimum(gains)
    budgets = range(64, 4096, 31)
    shares = [allocate(gains, budget, threads=1).value / best[(budget - 1) // 3] for budget in budgets]
    heap = min(heap_greedy(gains, budget)[1] / best[(budget - 1) // 3] for budget in budgets[::8])
    return make_row(
        f"allocate, share of the optimum, {kind}", min(shares), "of 1", rival=("exhaustive search", 1.0),
        bar=None if bar is None else at_least(bar),
        note=f"5,461 nodes, worst of budgets 64 to 4,096, mean {np.mean(shares):.4f}; the heap's worst is {heap:.3f}",
    )  # fmt: skip


def fovea_row(*, bar: float | None = None) -> dict[str, Any]:
    """Return how long a foveated plan of 17 gigapixels takes."""
    gaze = np.array([[70_000.0, 60_000.0]])
    value = fastest_ms(lambda: fovea_tokens(gaze, (131_072, 131_072), e0_px=2048, patch_px=256, max_level=9), 20)
    return make_row(
        "foveated tree of 131072²", value, "ms", bar=None if bar is None else (0.0, bar),
        note="tiles of 256 px, e0 2048 px, some 2,600 tokens",
    )  # fmt: skip


def fovea_budget_row() -> dict[str, Any]:
    """Return how long gains around a fixation and the cut under a budget take together."""
    gaze = np.array([[70_000.0, 60_000.0]], np.float32)

    def work() -> object:
        gains = fovea_gains(gaze, (512, 512), e0_px=2048, leaf_px=256, levels=9, threads=1)
        return allocate(gains, 2620, leaf_px=256, threads=1)

    return make_row("fovea gains and cut of 131072² to 2,620 tokens", fastest_ms(work), "ms", note="serial, best of 7")


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [
        size_row("relevance", bar=ALLOCATE_BAR_MS),
        size_row("noise"),
        size_row("fine"),
        size_row("relevance", leaves=2 * LEAVES),
        heap_row(bar=HEAP_BAR),
        quality_row("relevance", bar=QUALITY_BAR),
        quality_row("noise", bar=QUALITY_BAR),
        fovea_row(bar=FOVEA_BAR_MS),
        fovea_budget_row(),
    ]
