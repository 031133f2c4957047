"""Plans that look coarse to fine: what is seen of a square decides whether it is opened; nothing else is decoded.

All wanted squares of the coarsest level are decoded. Once every unit of a level has its receipt, squares of it are
opened, and their children are the tokens of the next level.

    budget   counts every token that is decoded, on whatever level
    share    what is left of it is shared evenly among the levels that are left, but is never less than what opens one
             square: a beam of even width, and what a level cannot use goes to the finer ones
    order    by score, the highest first, then by Morton code, until the children of the next one no longer fit

A square that is empty, or on which a stage has failed, has no score and stays closed. A damaged one counts as much as
the median of its level: one block that cannot be decoded hides how much there is in the rest of the square, which for
the coarsest ones is most of the image. What is open is a function of the receipts since `start()` as a set: neither
their order nor repetitions make a difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Self

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, StageError
from tilestream.grid import Ints
from tilestream.kernels.quadtree import codes_cpu
from tilestream.plan.ground import Ground, Squares, lay_ground
from tilestream.plan.selection import Selection
from tilestream.plan.tokenplan import TokenPlan, row_order
from tilestream.plan.tree import Mask
from tilestream.pyramid import Pyramid
from tilestream.types import PlanLevel, Receipt, SuperTile

FORMAT = 1
"""Version of what a digest is made of and of the rules by which squares are opened."""
UNIT_TILES = 8
"""Most tiles along the edge of a unit: their scores travel in its receipt, of which there are at most 64."""


@dataclass(kw_only=True, eq=False)
class _Step:
    """The tokens of one level."""

    grid: int
    """Number of its grid in the tree."""
    plan: TokenPlan
    """Its tokens, rows from 0."""
    first_row: int
    """Row of the first of them in the walk."""
    scores: npt.NDArray[np.float64]
    """`(n,)` NaN where nothing is known."""
    damaged: npt.NDArray[np.bool_]
    """`(n,)` whether a token could not be decoded."""
    opened: npt.NDArray[np.bool_]
    """`(n,)` whether the children of a token are tokens."""
    missing: dict[str, range]
    """Own rows of each unit that has no receipt yet."""
    keys: frozenset[str]
    """Of all its units."""


@dataclass(kw_only=True, eq=False)
class WalkPlan:
    """A plan that grows while it is carried out; picklable, and started anew by `start`."""

    ground: Ground
    """The tree of squares over the image."""
    budget: int
    """Most tokens that are decoded."""
    begin_at: float = 0.0
    """Share of the way along each level's curve at which units begin, for runs that share the work."""
    _steps: list[_Step] = field(default_factory=list)
    _receipts: dict[str, Receipt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start()

    @cached_property
    def digest(self) -> str:
        """Return the hex digest of all that decides tokens, rows and units, but for scores."""
        ground, tree = self.ground, self.ground.tree
        known = {
            "format": FORMAT,
            "image": ground.image,
            "levels": [asdict(ground.levels[level]) for level in tree.levels],
            "steps": tree.levels,
            "patch_px": self.patch_px,
            "super_tile_px": ground.super_tile_px,
            "where": ground.where,
            "budget": self.budget,
        }
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), default=str)
        digest = blake2b(text.encode(), digest_size=16)
        digest.update(np.packbits(tree.wanted[0]).tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return the number of tokens known so far."""
        return sum(len(step.plan) for step in self._steps)

    @property
    def patch_px(self) -> int:
        """Return the edge of a token as a stage sees it."""
        return self.ground.squares.patch_px

    @property
    def base(self) -> PlanLevel:
        """Return the resolution of level 0 of the plan."""
        return self.ground.levels[0]

    @property
    def units(self) -> int:
        """Return the number of units known so far."""
        return sum(step.plan.units for step in self._steps)

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys of the units known so far."""
        return frozenset().union(*(step.keys for step in self._steps))

    @property
    def is_complete(self) -> bool:
        """Return whether every unit has its receipt, so that nothing more will be opened."""
        return not self._steps or not self._steps[-1].missing

    @property
    def tokens(self) -> Ints:
        """Return the tokens known so far, `(n, 4)`: level, y, x, size in pixels of `base`, in the order of rows."""
        return np.concatenate([np.empty((0, 4), np.int64), *(step.plan.tokens for step in self._steps)])

    @property
    def opened(self) -> npt.NDArray[np.bool_]:
        """Return `(n,)` which of them are opened: finer tokens cover their places."""
        return np.concatenate([np.empty(0, np.bool_), *(step.opened for step in self._steps)])

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Return `(n,)` the score of each of them, NaN where it has none or none yet."""
        return np.concatenate([np.empty(0), *(step.scores for step in self._steps)]).astype(np.float32)

    def level_of(self, depth: int) -> PlanLevel:
        """Return the resolution of the tokens of a level."""
        return self.ground.levels[depth]

    def walked(self) -> TokenPlan:
        """Return the tokens known so far as a plan by itself, for files, pictures and batches."""
        return self.ground.plan(self.tokens, is_leaf=~self.opened, scores=self.scores)

    def start(self) -> Iterator[SuperTile]:
        """Return the units of the coarsest level along a Hilbert curve, and forget all receipts."""
        self._steps, self._receipts = [], {}
        roots = self.ground.tree.wanted[-1]
        if not roots.any():
            return iter(())
        return iter(self._step(len(self.ground.tree.levels) - 1, roots))

    def after(self, receipt: Receipt) -> Iterable[SuperTile]:
        """Return the units that a finished one opens: none until it is the last of its level.

        Parameters
        ----------
        receipt : Receipt
            With a score for each tile of its unit; a receipt of a level that is not open yet is kept until it is.

        Returns
        -------
        list of SuperTile
            All units that are new; nothing for a receipt that was given before.

        Raises
        ------
        StageError
            When there is not one score a tile.
        """
        if receipt.key in self._receipts:
            return []
        self._receipts[receipt.key] = Receipt(  # all that it takes of it
            key=receipt.key, recipe="", outputs={}, tiles=receipt.tiles, damaged=receipt.damaged, scores=receipt.scores
        )
        opened: list[SuperTile] = []
        self._take(receipt.key)
        while self._steps and not self._steps[-1].missing:
            units = self._open()
            if not units:
                break
            opened += units
            for key in list(self._steps[-1].missing):
                self._take(key)
        return opened

    def replay(self, receipts: Iterable[Receipt]) -> Self:
        """Return the plan as it is after some receipts, from its start.

        Parameters
        ----------
        receipts : iterable of Receipt
            In any order.

        Returns
        -------
        WalkPlan
            This one.
        """
        self.start()
        for receipt in receipts:
            self.after(receipt)
        return self

    def _take(self, key: str) -> None:
        """Enter the scores of a unit, once both are there."""
        step = self._steps[-1] if self._steps else None
        if step is None or key not in step.missing or key not in self._receipts:
            return
        rows, receipt = step.missing[key], self._receipts[key]
        scores = receipt.scores
        if len(scores) != len(rows):
            raise StageError.of(
                f"receipt of unit {key}",
                got=f"{len(scores)} scores",
                expected=f"{len(rows)}, one a tile",
                do="Use a stage with one output a tile, and remove receipts of other runs.",
            )
        del step.missing[key]
        found = np.array([np.nan if score is None else score for score in scores], np.float64)
        step.scores[rows.start : rows.stop] = np.where(np.isfinite(found), found, np.nan)
        for damaged in receipt.damaged.values():
            step.damaged[np.asarray(damaged, np.int64) - step.first_row] = True

    def _open(self) -> list[SuperTile]:
        """Open squares of the last level, all of which are seen, and return the units of their children."""
        step = self._steps[-1]
        if step.grid == 0 or step.opened.any():
            return []
        tree, left = self.ground.tree, self.budget - len(self)
        limit = min(left, max(left // step.grid, tree.side**2))
        y, x = (np.ascontiguousarray(one) for one in (step.plan.tokens[:, 1:3] // step.plan.tokens[:, 3:]).T)
        scores = step.scores.copy()
        hidden = step.damaged & np.isnan(scores)
        scores[hidden] = 0.0 if np.isnan(scores).all() else np.nanmedian(scores)
        known = np.flatnonzero(~np.isnan(scores))
        order = known[np.lexsort((codes_cpu(y, x)[known], -scores[known]))]
        cost = np.cumsum(tree.children[step.grid - 1][y[order], x[order]])
        chosen = order[: np.searchsorted(cost, limit, side="right")]
        if not len(chosen):
            return []
        step.opened[chosen] = True
        parents = np.zeros(tree.wanted[step.grid].shape, np.bool_)
        parents[y[chosen], x[chosen]] = True
        return self._step(step.grid - 1, tree.below(parents, step.grid - 1))

    def _step(self, grid: int, nodes: Mask) -> list[SuperTile]:
        """Add the tokens of a level and return its units."""
        first_row = len(self)
        tokens = self.ground.tokens(self.ground.tree.levels[grid], nodes)
        tokens = tokens[row_order(tokens, self.ground.super_tile_px)]
        n = len(tokens)
        unknown = np.full(n, np.nan)
        plan = self.ground.plan(tokens, is_leaf=np.ones(n, np.bool_), scores=unknown.astype(np.float32))
        own = list(replace(plan, begin_at=self.begin_at).start())
        units = [replace(unit, plan=self.digest, first_row=first_row + unit.first_row, known={}) for unit in own]
        missing = {unit.key: part.rows for unit, part in zip(units, own, strict=True)}
        self._steps.append(
            _Step(
                grid=grid,
                plan=plan,
                first_row=first_row,
                scores=unknown,
                damaged=np.zeros(n, np.bool_),
                opened=np.zeros(n, np.bool_),
                missing=missing,
                keys=frozenset(missing),
            )
        )
        return units


def plan_walk(  # noqa: PLR0913 - the public call: each option of a plan is one keyword
    pyr: Pyramid,
    *,
    budget: int,
    patch_px: int = 256,
    mpp: float | None = None,
    branching: int | None = None,
    max_level: int | None = None,
    levels: Sequence[int] | None = None,
    where: str | Selection = "tissue",
    min_share: float | None = None,
    super_tile_px: int | None = None,
    source_mpp: float | None = None,
    needs_mpp: bool = False,
) -> WalkPlan:
    """Return the plan of a walk from coarse to fine that decodes at most `budget` tokens.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    budget : int
        Most tokens that are decoded on all levels together; at least as many as the coarsest has wanted squares.
    patch_px : int
        Pixels of a token along an edge.
    mpp, branching, max_level, levels, where, min_share
        As in `plan_tokens`; the largest of `levels` is where the walk begins.
    super_tile_px : int, optional
        Edge of a unit, pixels of its level; at most 8 tokens, which it is unless given.
    source_mpp, needs_mpp
        As in `plan_tokens`.

    Returns
    -------
    WalkPlan
        At its start.

    Raises
    ------
    ConfigError
        When arguments contradict each other or the image, or the budget is too small; the message says how small it
        can be.
    """
    most = UNIT_TILES * patch_px
    if super_tile_px is not None and super_tile_px > most:
        raise ConfigError.of(
            "`super_tile_px` (`--super-tile`) of a walk",
            got=f"{super_tile_px} px",
            expected=f"at most {most} px, {UNIT_TILES} tokens: the scores of a unit travel in its receipt",
            do="Leave it out.",
        )
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
        super_tile_px=most if super_tile_px is None else super_tile_px,
    )
    ground = lay_ground(pyr, squares)
    return WalkPlan(ground=ground, budget=ground.require_budget(budget))
