"""Plans of tokens: where an image is read finely and where coarsely, under a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from tilestream.errors import ConfigError
from tilestream.fovea import Fovea
from tilestream.kernels.checks import need_kind
from tilestream.plan.ground import Ground, Squares, lay_ground
from tilestream.plan.mass import area_shares, score_mass
from tilestream.plan.selection import Selection
from tilestream.plan.tokenplan import TokenPlan, row_order
from tilestream.plan.tree import Mask, Mass, best, cut, gains_of, masses, nodes_of, pooled
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid
from tilestream.types import ScoreMap

__all__ = ["TokenPlan", "plan_tokens"]

Count = Literal["leaves", "nodes"]
Policy = Literal["founding"]
FOUNDING = (128, 256)
"""Tokens from which on the founding documents add medium and fine levels."""


def plan_tokens(  # noqa: PLR0913 - the public call: each option of a plan is one keyword
    pyr: Pyramid,
    *,
    budget: int | None = None,
    relevance: ScoreMap | Callable[[Pyramid], ScoreMap] | None = None,
    fovea: Fovea | None = None,
    patch_px: int = 16,
    mpp: float | None = None,
    count: Count = "leaves",
    branching: int | None = None,
    max_level: int | None = None,
    levels: Sequence[int] | None = None,
    level_budgets: Mapping[int, int] | None = None,
    policy: Policy | None = None,
    where: str | Selection = "all",
    min_share: float | None = None,
    super_tile_px: int | None = None,
    source_mpp: float | None = None,
    needs_mpp: bool = False,
) -> TokenPlan:
    """Return the plan of squares that see most of what matters with at most `budget` tokens.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    budget : int
        Most tokens; at least as many as the coarsest level has wanted squares, unless `levels` is a single one. Left
        out with `level_budgets`.
    relevance : ScoreMap or callable, optional
        How much each place matters, at least 0, or what says so of the image; None = everything alike.
    fovea : Fovea, optional
        Where somebody looks; multiplies the relevance.
    patch_px : int
        Pixels of a token along an edge, whatever its size on the image.
    mpp : float, optional
        Micrometres per pixel of the finest tokens; None = native resolution.
    count : str
        `leaves`: tokens are the leaves of the tree, which cover all that is wanted, each place once. `nodes`: coarse
        squares stay tokens when finer ones are read inside them.
    branching : int, optional
        4 unless given; 16 or 64 skip levels.
    max_level : int, optional
        Coarsest token level; by default the first at which one square covers the image.
    levels : sequence of int, optional
        Token levels, evenly spaced: (0, 2, 4). A single one, (0,), asks for the `budget` squares of that level with the
        most relevance mass and for nothing else: so many tiles at an encoder's own resolution, chosen by a coarse look.
    level_budgets : Mapping, optional
        Most tokens of each level: {0: 100, 2: 50} asks for the 50 squares of level 2 with the most relevance mass and
        for the 100 best of level 0 that lie inside these. All of them are tokens; nothing else is read.
    policy : str, optional
        `founding`: levels by budget as this project's founding documents have it: the coarser third of the levels below
        128 tokens, two thirds below 256, all above. They give no measurement for it, and no plan of it is worth more
        than the one without, which may choose the same tokens; it is here to be compared with.
    where : str or Selection
        `all`, `tissue`, a file, or a selection: squares with less of it than `min_share` are no tokens, and a coarse
        square is one only if a finest one inside it is.
    min_share : float, optional
        Share of a finest square's part inside the image that must be selected, in (0, 1]; 0.1 unless given.
    super_tile_px : int, optional
        Edge of a unit of work, pixels of the level that it lies on.
    source_mpp : float, optional
        Micrometres per pixel of level 0 that the user states.
    needs_mpp : bool
        Whether an image of unknown resolution is refused.

    Returns
    -------
    TokenPlan
        The plan; `len` is the number of tokens. With leaves, budget - 3 < len ≤ budget (branching - 1 in place of 3)
        while a square with relevance can be split; with nodes, budget - branching < len ≤ budget.

    Raises
    ------
    ConfigError
        When arguments contradict each other or the image, or the budget is too small; the message says how small it
        can be.

    Notes
    -----
    What a split is worth, and why nothing is read where the relevance is 0 or unknown: `tilestream.plan.tree`. Ties go
    to the coarser square, then to the smaller Morton code. Inside a finest square, relevance and selection are taken to
    be independent: its mass is its mean relevance times its selected area.

    Examples
    --------
    >>> import numpy as np
    >>> import tilestream as ts
    >>> pyr = ts.open_pyramid(np.zeros((4096, 4096), np.uint8))
    >>> plan = ts.plan_tokens(pyr, budget=273, count="nodes", branching=16, patch_px=256)
    >>> np.unique(plan.tokens[:, 0], return_counts=True)[1].tolist()
    [256, 16, 1]
    """
    need_kind("plan_tokens", "pyr", pyr, Pyramid, do=OPEN_FIRST)
    squares = Squares(
        patch_px=patch_px,
        mpp=mpp,
        source_mpp=source_mpp,
        needs_mpp=needs_mpp,
        branching=branching,
        max_level=max_level,
        levels=levels if level_budgets is None else tuple(level_budgets),
        where=where,
        min_share=min_share,
        super_tile_px=super_tile_px,
    )
    if fovea is not None:
        _require(fovea, "fovea", Fovea, "ts.Fovea(fixations_yx=(y, x), e0_px=…)")
        fovea.require_inside(pyr.info.shape)
    _require_sense(count, policy, level_budgets, budget=budget, levels=levels)
    ground = lay_ground(pyr, squares, steps=founding_levels(budget) if policy == "founding" else None)
    seen = _seen(pyr, ground, relevance)
    mass = masses(ground.tree, seen.mass)
    if level_budgets is not None or (levels is not None and len(ground.tree.levels) == 1):
        if fovea is not None:
            mass = tuple(one * fall for one, fall in zip(mass, _falloff(ground, fovea, finest=True), strict=True))
        counts = {ground.tree.levels[0]: budget} if level_budgets is None else level_budgets
        return _plan(ground, seen, *_best(ground, mass, counts), is_cut=False)
    gains = gains_of(ground.tree, mass)
    if fovea is not None:
        gains = [gain * fall for gain, fall in zip(gains, _falloff(ground, fovea), strict=True)]
    splits = cut(ground.tree, gains, ground.require_budget(budget), nodes=count == "nodes")
    nodes, leaves = nodes_of(ground.tree, splits)
    return _plan(ground, seen, nodes if count == "nodes" else leaves, leaves)


def founding_levels(budget: object) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """Return which of all levels the policy of the founding documents allows: see `plan_tokens`.

    Parameters
    ----------
    budget : int
        Most tokens.

    Returns
    -------
    callable
        From all levels, ascending, to those allowed; thirds are rounded up, so that the coarsest is always there.
    """

    def allowed(levels: Sequence[int]) -> tuple[int, ...]:
        thirds = 3 if not isinstance(budget, int) or budget >= FOUNDING[1] else 2 if budget >= FOUNDING[0] else 1
        return tuple(levels[len(levels) - -(-thirds * len(levels) // 3) :])

    return allowed


def _require_sense(
    count: str, policy: str | None, level_budgets: Mapping[int, int] | None, *, budget: object, levels: object
) -> None:
    """Refuse options that contradict each other."""
    if count not in ("leaves", "nodes"):
        raise ConfigError.of("`count`", got=repr(count), expected="`leaves` or `nodes`", do="Say what counts.")
    if policy not in (None, "founding"):
        raise ConfigError.of("`policy`", got=repr(policy), expected="`founding` or none", do="Correct it.")
    if level_budgets is not None and (budget is not None or levels is not None or policy is not None):
        raise ConfigError.of(
            "`level_budgets`",
            got=f"{dict(level_budgets)} with budget={budget}, levels={levels}, policy={policy}",
            expected="neither of them, since it says both",
            do="Leave out the others.",
        )
    if policy is not None and levels is not None:
        raise ConfigError.of("`policy`", got=f"levels={levels}", expected="no `levels`", do="Leave out one of them.")


def _best(
    ground: Ground, mass: Sequence[Mass], counts: Mapping[int, object]
) -> tuple[tuple[Mask, ...], tuple[Mask, ...]]:
    """Return the best nodes of each grid inside those of the next coarser, and which have none inside them."""
    tree = ground.tree
    chosen: list[Mask] = []
    for grid in range(len(tree.levels) - 1, -1, -1):
        most = ground.require_budget(counts[tree.levels[grid]], least=1)
        inside = tree.below(chosen[0], grid) if chosen else tree.wanted[grid]
        chosen.insert(0, best(np.where(inside, mass[grid], 0.0), most))
    leaves = [chosen[0], *(one & (pooled(finer, tree.side) == 0) for finer, one in pairwise(chosen))]
    return tuple(chosen), tuple(leaves)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """What is known of the finest squares, `(y, x)` each, in squares."""

    mass: Mass
    """Relevance × wanted area."""
    relevance: Mass
    """Relevance × area, wanted or not."""
    area: Mass
    """Area inside the image."""
    notes: tuple[str, ...] = ()
    """What the relevance has to say."""


def _seen(pyr: Pyramid, ground: Ground, relevance: ScoreMap | Callable[[Pyramid], ScoreMap] | None) -> _Seen:
    finest = ground.tree.levels[0]
    level, grid = ground.levels[finest], ground.grid(finest)
    area = area_shares(level, grid)
    share = ground.shares(finest)
    if relevance is None:
        return _Seen(mass=area if share is None else area * share, relevance=area, area=area)
    if not isinstance(relevance, ScoreMap):
        _require(
            relevance, "relevance", Callable, 'ts.Relevance.of("entropy,gradient"), or anything that returns a map'
        )
    scores = relevance if isinstance(relevance, ScoreMap) else relevance(pyr)
    _require(scores, "relevance", ScoreMap, "a map of scores")
    if scores.shape != pyr.info.shape:
        raise ConfigError.of(
            f"score map `{scores.name}`",
            got=f"one of an image of {scores.shape.y} x {scores.shape.x} px",
            expected=f"one of this image, {pyr.info.shape.y} x {pyr.info.shape.x} px",
            do="Compute it on this very image.",
        )
    found = score_mass(scores, level, grid)
    mass = found if share is None else found * share
    notes = scores.notes
    if ground.tree.roots and not (mass[ground.tree.wanted[0]] > 0).any():
        notes += ("nothing relevant found where tokens are wanted: the coarsest level is read and nothing else",)
    return _Seen(mass=mass, relevance=found, area=area, notes=notes)


def _require(value: object, name: str, kind: Any, expected: str) -> None:
    if not isinstance(value, kind):
        raise ConfigError.of(
            f"`{name}` of `plan_tokens`",
            got=f"a {type(value).__name__}",
            expected=expected,
            do="Give that, or leave it out.",
        )


def _falloff(ground: Ground, fovea: Fovea, *, finest: bool = False) -> list[Mass]:
    """Return 2^-L of the nodes of each grid from the second on, or from the first; L is the level asked for."""
    tree, (height, width) = ground.tree, ground.tree.wanted[0].shape
    leaf_px, (scale_y, scale_x) = ground.squares.patch_px << tree.levels[0], ground.levels[0].scale_yx
    found: list[Mass] = []
    if finest:  # the finest squares are the nodes above their quarters, in pixels half as large
        halved = fovea.scaled((scale_y / 2, scale_x / 2))
        found.append(halved.gains((2 * height, 2 * width), leaf_px=leaf_px, levels=1)[0].astype(np.float64) / 2)
    gap, steps = tree.side.bit_length() - 1, len(tree.levels) - 1
    if steps:
        gains = fovea.scaled((scale_y, scale_x)).gains((height, width), leaf_px=leaf_px, levels=gap * steps)
        found += [gains[gap * step - 1].astype(np.float64) / tree.side**step for step in range(1, steps + 1)]
    return found


def _plan(
    ground: Ground, seen: _Seen, nodes: Sequence[Mask], leaves: Sequence[Mask], *, is_cut: bool = True
) -> TokenPlan:
    """Return the plan of some nodes, in the order of its rows."""
    tokens, is_leaf, scores = [], [], []
    relevance, area = seen.relevance, seen.area
    for number, (level, here, leaf) in enumerate(zip(ground.tree.levels, nodes, leaves, strict=True)):
        if number:
            relevance, area = pooled(relevance, ground.tree.side), pooled(area, ground.tree.side)
        tokens.append(ground.tokens(level, here))
        is_leaf.append(leaf[here])
        scores.append((relevance[here] / area[here]).astype(np.float32))
    rows = np.concatenate(tokens)
    order = row_order(rows, ground.super_tile_px)
    found = ground.plan(
        rows[order], is_leaf=np.concatenate(is_leaf)[order], scores=np.concatenate(scores)[order], is_cut=is_cut
    )
    return replace(found, notes=found.notes + seen.notes)
