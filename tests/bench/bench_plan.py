"""Plans of tokens of a slide of 17 Gpixel: how long it takes to decide what is read, from scores that are there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.bench_allocate import fastest_ms
from tests.bench.table import at_least, make_row, rates
from tests.plan.build import described
from tilestream.kernels.allocate import allocate
from tilestream.plan import plan_tokens, plan_walk
from tilestream.pyramid import Pyramid
from tilestream.types import Receipt, ScoreMap

EDGE_PX, PATCH_PX, BUDGET, CELLS = 131_072, 256, 2_620, 1_024
PLAN_BAR_MS = 50.0
"""Tens of milliseconds, with gains from the scores, records and their order."""
WALK_BAR_MS = 200.0
"""All decisions of a walk together; reading what they decide on takes minutes."""
CUT_BAR = 0.1
"""Rate of whole plans to that of the kernel's cut alone."""


def slide(edge_px: int = EDGE_PX) -> Pyramid:
    """Return the description of a slide with every level."""
    return described(edge_px, edge_px, scales=tuple(2.0**level for level in range(10)))


def scores(edge_px: int = EDGE_PX, cells: int = CELLS) -> ScoreMap:
    """Return scores with few high ones, as queries give."""
    values = np.random.default_rng(0).random((cells, cells), np.float32) ** 8
    cell = edge_px / cells
    pyr = slide(edge_px)
    return ScoreMap(
        name="made", values=values, valid=np.ones(values.shape, np.bool_), cell_yx=(cell, cell), shape=pyr.info.shape
    )


def flat_top(found: ScoreMap, budget: int) -> Callable[[], npt.NDArray[np.int64]]:
    """Return what takes the best of all finest tiles with NumPy, without a tree: cells are four to a tile."""

    def run() -> npt.NDArray[np.int64]:
        sums = np.add.reduce(found.values.reshape(CELLS // 2, 2, CELLS // 2, 2), axis=(1, 3)).ravel()
        return np.argpartition(sums, sums.size - budget)[-budget:].astype(np.int64)

    return run


def walk_ms(pyr: Pyramid, budget: int) -> tuple[float, int]:
    """Return how long all decisions of a walk take, and how many tokens it has."""
    plan, generator, spent = (
        plan_walk(pyr, budget=budget, patch_px=PATCH_PX, where="all"),
        np.random.default_rng(0),
        0.0,
    )
    waiting = list(plan.start())
    while waiting:
        unit = waiting.pop()
        drawn = tuple(generator.random(len(unit.tile_yx)).tolist())
        receipt = Receipt(key=unit.key, recipe="", outputs={}, tiles=len(drawn), scores=drawn)
        start = time.perf_counter()
        waiting += plan.after(receipt)
        spent += time.perf_counter() - start
    return spent * 1e3, len(plan)


def plan_rows(budget: int = BUDGET) -> list[dict[str, Any]]:
    """Return how long plans from a map of scores take."""
    pyr, found = slide(), scores()
    planned: dict[str, dict[str, Any]] = {
        "leaves of the tree": {},
        "nodes, every second level": {"count": "nodes", "branching": 16},
        "the best finest tiles": {"levels": (0,)},
    }
    flat = fastest_ms(flat_top(found, budget))
    rows = [
        make_row(
            f"plan_tokens of {EDGE_PX:,}²: {name}",
            fastest_ms(lambda options=options: plan_tokens(  # type: ignore[misc]
                pyr, budget=budget, patch_px=PATCH_PX, relevance=found, **options
            )),
            "ms", bar=(0.0, PLAN_BAR_MS),
            note=f"{budget:,} of 262,144 tokens from {CELLS}² scores, best of 7; the best tiles by NumPy, no tree, no "
            f"areas, no records: {flat:.1f} ms",
        )
        for name, options in planned.items()
    ]  # fmt: skip
    spent, tokens = min(walk_ms(pyr, budget) for _ in range(3))
    rows.append(
        make_row(
            f"decisions of a walk over {EDGE_PX:,}²", spent, "ms", bar=(0.0, WALK_BAR_MS),
            note=f"{tokens:,} tokens on 10 levels, all receipts together, best of 3",
        )
    )  # fmt: skip
    return rows


def cut_row(bar: float = CUT_BAR, *, rounds: int = 5) -> dict[str, Any]:
    """Return how many plans a second there are beside cuts of the kernel alone, which is given the gains."""
    pyr, found = slide(), scores()
    gains = [one.astype(np.float32) for one in np_gains(found)]

    def ours() -> float:
        plan_tokens(pyr, budget=BUDGET, patch_px=PATCH_PX, relevance=found)
        return 1.0

    def theirs() -> float:
        allocate(gains, BUDGET, leaf_px=PATCH_PX, threads=1)
        return 1.0

    value, rival = rates([ours, theirs], rounds=rounds)
    return make_row(
        "plan_tokens from scores", value, "plans/s", rival=("kernels.allocate from gains", rival), bar=at_least(bar),
        note="what areas of scores, selection, records and their order cost besides the cut",
    )  # fmt: skip


def np_gains(found: ScoreMap) -> list[npt.NDArray[np.float64]]:
    """Return gains of nodes from cells that are four to a tile."""
    sums, gains = found.values.astype(np.float64), []
    for level in range(10):
        half = len(sums) // 2
        sums = sums.reshape(half, 2, half, 2).sum(axis=(1, 3))
        if level:
            gains.append(sums / 2.0**level)
    return gains


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [*plan_rows(), cut_row()]
