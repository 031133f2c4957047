"""Plans of tokens: where an image is read finely and where coarsely, under a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tilestream.errors import ConfigError
from tilestream.fovea import Fovea
from tilestream.plan.ground import Ground, Squares, lay_ground
from tilestream.plan.mass import area_shares, score_mass
from tilestream.plan.selection import Selection
from tilestream.plan.tokenplan import TokenPlan, row_order
from tilestream.plan.tree import Mask, Mass, best, cut, gains_of, masses, nodes_of, pooled
from tilestream.pyramid import Pyramid
from tilestream.types import ScoreMap

__all__ = ["TokenPlan", "plan_tokens"]

Count = Literal["leaves", "nodes"]


def plan_tokens(  # noqa: PLR0913 - the public call: each option of a plan is one keyword
    pyr: Pyramid,
    *,
    budget: int,
    relevance: ScoreMap | Callable[[Pyramid], ScoreMap] | None = None,
    fovea: Fovea | None = None,
    patch_px: int = 16,
    mpp: float | None = None,
    count: Count = "leaves",
    branching: int | None = None,
    max_level: int | None = None,
    levels: Sequence[int] | None = None,
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
        Most tokens; at least as many as the coarsest level has wanted squares, unless there is one level only.
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
        most relevance mass and for nothing else.
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
    to the coarser square, then to the smaller Morton code.
    """
    squares = Squares(
        patch_px=patch_px,
        mpp=mpp,
        source_mpp=source_mpp,
        needs_mpp=needs_mpp,
        branching=branching,
        max_level=max_level,
        levels=levels,
        where=where,
        min_share=min_share,
        super_tile_px=super_tile_px,
    )
    if fovea is not None:
        _require(fovea, "fovea", Fovea, "ts.Fovea(fixations_yx=(y, x), e0_px=…)")
        fovea.require_inside(pyr.info.shape)
    if count not in ("leaves", "nodes"):
        raise ConfigError.of("`count`", got=repr(count), expected="`leaves` or `nodes`", do="Say what counts.")
    ground = lay_ground(pyr, squares)
    tree, seen = ground.tree, _seen(pyr, ground, relevance)
    mass = masses(tree, seen.mass)
    single = levels is not None and len(tree.levels) == 1
    falloff = None if fovea is None else _falloff(ground, fovea, single=single)
    if single:
        most = ground.require_budget(budget, least=1)
        chosen = (best(mass[0] if falloff is None else mass[0] * falloff[0], most),)
        return _plan(ground, seen, chosen, chosen, is_cut=False)
    gains = gains_of(tree, mass)
    if falloff is not None:
        gains = [gain * one for gain, one in zip(gains, falloff, strict=True)]
    splits = cut(tree, gains, ground.require_budget(budget), nodes=count == "nodes")
    nodes, leaves = nodes_of(tree, splits)
    return _plan(ground, seen, nodes if count == "nodes" else leaves, leaves)


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


def _falloff(ground: Ground, fovea: Fovea, *, single: bool) -> list[Mass]:
    """Return 2^-L of the nodes of each grid from the second on, or of the only one; L is the level asked for."""
    tree, (height, width) = ground.tree, ground.tree.wanted[0].shape
    leaf_px, (scale_y, scale_x) = ground.squares.patch_px << tree.levels[0], ground.levels[0].scale_yx
    if single:  # squares are the nodes above their quarters, in pixels half as large
        halved = fovea.scaled((scale_y / 2, scale_x / 2))
        gains = halved.gains((2 * height, 2 * width), leaf_px=leaf_px, levels=1)
        return [gains[0].astype(np.float64) / 2]
    gap = tree.side.bit_length() - 1
    gains = fovea.scaled((scale_y, scale_x)).gains(
        (height, width), leaf_px=leaf_px, levels=max(1, gap * (len(tree.levels) - 1))
    )
    steps = range(1, len(tree.levels))
    return [gains[gap * step - 1].astype(np.float64) / tree.side**step for step in steps]


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
