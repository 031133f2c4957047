"""Ways to choose which tiles of an image are read: what the learned scorer is measured beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tilestream.pipelines.relevance import relevance_of
from tilestream.plan.tokenplan import TokenPlan
from tilestream.plan.tokens import plan_tokens
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance import Relevance
from tilestream.types import ScoreMap

Term = Callable[[Pyramid], ScoreMap]

BUDGETS = (0.01, 0.05, 0.10, 0.20)
"""Shares of the tiles of level 0."""
LEARNED, FROM_FIELDS = "learned scorer", "learned scorer, field labels"
FULL, THUMBNAIL, STAGED = "full pass", "thumbnail only", "staged dropping"
FLAT, TREE = "", ", quadtree"
"""What is added to the name of a way whose tiles are the best ones, or the leaves of a tree."""
SALIENCY = ("entropy", "gradient", "residual", "itti")
"""Terms that know nothing of what is looked for."""


def terms(scorers: Mapping[str, Path], *, tile_px: int, seed: int) -> dict[str, Term]:
    """Return what says where to look, by name.

    Parameters
    ----------
    scorers : Mapping
        Files of trained scorers by name.
    tile_px : int
        Edge of the tiles that are chosen, in pixels of level 0.
    seed : int
        Of what is random.

    Returns
    -------
    dict
        Callables from an image to a map of scores.
    """
    found: dict[str, Term] = {name: relevance_of(f"scorer:{file}") for name, file in scorers.items()}
    found |= {name: Relevance.of(name) for name in SALIENCY}

    def random(pyr: Pyramid) -> ScoreMap:
        return _map(pyr, "random", np.random.default_rng((seed, 9)).random(_grid(pyr, tile_px)), tile_px)

    found["uniform"] = lambda pyr: _map(pyr, "uniform", lattice(_grid(pyr, tile_px)), tile_px)
    found["random"] = random
    return found


def lattice(grid: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return scores whose largest k are spread evenly over a grid for every k: a Bayer matrix, as in ordered dither."""
    y, x = (np.arange(edge) for edge in grid)
    scores = np.zeros(grid)
    for bit in range(max(1, (max(grid) - 1).bit_length())):
        odd_y, odd_x = (y >> bit & 1)[:, None], (x >> bit & 1)[None, :]
        scores -= 4.0 ** -(bit + 1) * (2 * (odd_y ^ odd_x) + odd_x)  # what lies far apart comes first
    return np.asarray(scores - scores.min())


def flat_plan(pyr: Pyramid, relevance: Term | ScoreMap, *, share: float, tile_px: int) -> TokenPlan:
    """Return the plan of the fine tiles of the highest score, and of nothing else."""
    return plan_tokens(pyr, budget=budget_of(pyr, share, tile_px), relevance=relevance, patch_px=tile_px, levels=(0,))


def tree_plan(pyr: Pyramid, relevance: Term | ScoreMap, *, share: float, tile_px: int) -> TokenPlan:
    """Return the cut of the quadtree: coarse tiles where there is little to see, and four fine ones at a time."""
    return plan_tokens(pyr, budget=budget_of(pyr, share, tile_px), relevance=relevance, patch_px=tile_px)


PLANNERS = {FLAT: flat_plan, TREE: tree_plan}


def planners_of(way: str) -> tuple[str, ...]:
    """Return by which plans a way is tried."""
    return (FLAT, TREE) if way == LEARNED else (FLAT,)


def budget_of(pyr: Pyramid, share: float, tile_px: int) -> int:
    """Return how many tiles are a share of those of level 0."""
    rows, columns = _grid(pyr, tile_px)
    return round(share * rows * columns)


def fine_tiles(plan: TokenPlan, grid: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return which tiles of level 0 a plan reads, `(y, x)`."""
    found = np.zeros(grid, np.bool_)
    level, y, x, size = plan.tokens.T
    fine = level == 0
    found[y[fine] // size[fine], x[fine] // size[fine]] = True
    return found


def _grid(pyr: Pyramid, tile_px: int) -> tuple[int, int]:
    shape = pyr.info.shape
    return -(-shape.y // tile_px), -(-shape.x // tile_px)


def _map(pyr: Pyramid, name: str, values: npt.NDArray[np.float64], tile_px: int) -> ScoreMap:
    return ScoreMap(
        name=name,
        values=(1e-3 + values).astype(np.float32),
        valid=np.ones(values.shape, np.bool_),
        cell_yx=(float(tile_px), float(tile_px)),
        shape=pyr.info.shape,
    )
