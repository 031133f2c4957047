"""Reading less: the tokens of an image that a run reads under a budget, and what its store has to know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.fovea import Fovea
from tilestream.pipelines.cutting import AllUnits, Kept
from tilestream.pipelines.encoders import Encoders, Geometry
from tilestream.pipelines.relevance import relevance_of
from tilestream.plan.ground import square_grid
from tilestream.plan.levels import choose_level
from tilestream.plan.tiles import TilePlan
from tilestream.plan.tokens import TokenPlan, plan_tokens
from tilestream.pyramid.coarse import mask_level
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance import Relevance
from tilestream.sinks.depths import DepthFacts
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.features import SCALARS
from tilestream.sources.patchfiles import is_patch_file
from tilestream.types import ImageInfo, PlanLevel

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig

DEFAULT_RELEVANCE = "entropy"
"""What decides where to look closely when nothing is said: how much the values of a place vary. It needs no weights and
no words, is the same on slides and scenes, and finds texture, which is not always what a question is about."""
FOVEA_TOKENS = 8
"""Radius of the fovea in edges of the finest tokens, unless it is given: 2,048 px for tokens of 256."""
MOST_STEP = 3
"""Most halvings from one level of tokens to the next: a token is split into 64 then."""
COARSE_LOOK = 4
"""A coarse look that is reduced by more than this from what is stored decodes many times its own pixels."""


@dataclass(frozen=True, kw_only=True)
class TokenChoice:
    """How a run reads less, as a user says it."""

    budget: int
    """Most tokens of an image."""
    relevance: str | None = None
    """Terms that say how much each place matters, see `--relevance`; None = `entropy`, or with fixations nothing."""
    fixations_yx: tuple[tuple[float, float], ...] = ()
    """Points looked at, level-0 pixels."""
    e0_px: float | None = None
    """Radius of the fovea, level-0 pixels; None = eight of the finest tokens."""
    levels: tuple[int, ...] | None = None
    """Levels of tokens, the finest is 0; None = from 0 on in steps of those that the image stores."""
    is_progressive: bool = False
    """Whether what is read next is decided by what was seen, level by level."""

    @property
    def terms(self) -> str | None:
        """Return the terms of the relevance as text, None where all places matter alike."""
        return self.relevance or (None if self.fixations_yx else DEFAULT_RELEVANCE)


@dataclass(frozen=True, kw_only=True)
class TokenCut:
    """Tokens of several levels under a budget."""

    choice: TokenChoice
    """The budget, and what it is spent on."""
    encoders: Encoders
    """Say tile edge and resolution of the finest tokens."""
    config: EmbedConfig
    """The options."""
    where: str
    """`tissue`, `all`, or a mask or GeoJSON file."""
    image: ImageInfo
    """The image."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what decides the tokens, as JSON values."""
        choice, fovea = self.choice, self._fovea
        levels = None if choice.levels is None else list(choice.levels)
        return {
            "tokens": {
                "budget": choice.budget,
                "branching": branching_of(self.image, self.encoders.geometry, choice),
                "relevance": None if self._relevance is None else dict(self._relevance.recipe),
                "fovea": None if fovea is None else dict(fovea.recipe),
                "levels": levels,
                "progressive": choice.is_progressive,
            }
        }

    def plan(self, pyramid: Pyramid) -> TokenPlan:
        """Return the tokens of one image.

        Parameters
        ----------
        pyramid : Pyramid
            The image.

        Returns
        -------
        TokenPlan
            The plan; the coarse look that the relevance takes is read here.

        Raises
        ------
        ConfigError
            When the budget is smaller than the coarsest level, a fixation lies outside, or `where` lists patches.
        """
        require_areas(self.where)
        geometry = self.encoders.geometry
        return plan_tokens(
            pyramid,
            budget=self.choice.budget,
            relevance=self._relevance,
            fovea=self._fovea,
            patch_px=geometry.px,
            mpp=geometry.mpp,
            levels=self.choice.levels,
            branching=branching_of(self.image, geometry, self.choice),
            where=self.where,
            super_tile_px=self.config.super_tile_px,
            needs_mpp=geometry.needs_mpp,
        )

    def kept(self, plan: TokenPlan) -> Kept:
        """Return what the store has to know of a plan."""
        return Kept(
            facts=facts_of(plan),
            ending=AllUnits(keys=frozenset(unit.key for unit in plan.start())),
            selection=plan.selection,
            scalars=(*SCALARS, "relevance"),
            opened=np.asarray(~plan.is_leaf, np.uint8),
            notes=(
                *plan.notes,
                *notes_of_encoders(self.encoders, plan.levels),
                *self._notes_of_look(),
                *self._notes_of_rest(plan),
            ),
        )

    def alike(self, plan: TokenPlan) -> list[TilePlan]:
        """Return a plan of tiles for each level, all of it."""
        return tiles_of_levels(plan)

    def sent(self, plan: TokenPlan, *, begin_at: float) -> TokenPlan:
        """Return the plan without the mask behind it, which is on disk as an outline by then."""
        return replace(plan, selection=None, begin_at=begin_at)

    @cached_property
    def _relevance(self) -> Relevance | None:
        terms = self.choice.terms
        if terms is None:
            return None
        # a model is not asked about glass; a file may select places that are no tissue, and has another path elsewhere
        where = "tissue" if self.where == "tissue" else "all"
        return relevance_of(terms, encoders=self.config.encoders, where=where)

    @cached_property
    def _fovea(self) -> Fovea | None:
        choice = self.choice
        if not choice.fixations_yx:
            return None
        e0_px = choice.e0_px
        if e0_px is None:
            geometry = self.encoders.geometry
            base = choose_level(self.image, mpp=geometry.mpp, needs_mpp=geometry.needs_mpp).level
            e0_px = FOVEA_TOKENS * geometry.px * max(base.scale_yx)
        fovea = Fovea(fixations_yx=choice.fixations_yx, e0_px=e0_px)
        fovea.require_inside(self.image.shape)
        return fovea

    def _notes_of_rest(self, plan: TokenPlan) -> tuple[str, ...]:
        """Return a note where half of the budget or more is left, since a token is split into more than that."""
        count = branching_of(self.image, self.encoders.geometry, self.choice)
        rest = self.choice.budget - len(plan)
        coarser = int(np.count_nonzero(plan.tokens[:, 0]))  # those that can be split
        if count is None or not coarser or not len(plan) <= rest < count - 1:
            return ()
        left = f"{rest} of {self.choice.budget} tokens are left over"
        return (f"{left}: one is split into up to {count} finer ones, all or none",)

    def _notes_of_look(self) -> tuple[str, ...]:
        """Return a note where a coarse look has to decode an image that has no coarse levels."""
        if self._relevance is None:
            return ()
        look = mask_level(self.image)
        times = float(max(look.ratio_yx))
        if times <= COARSE_LOOK:
            return ()
        return (
            f"the coarse look is reduced {times:g} times from level {look.stored}, all of which is decoded for it, "
            "since the image stores none coarser; `ingest` writes all levels",
        )


def branching_of(image: ImageInfo, geometry: Geometry, choice: TokenChoice) -> int | None:
    """Return into how many tokens one is split, None where levels are stated.

    Parameters
    ----------
    image : ImageInfo
        The image.
    geometry : Geometry
        Resolution of the finest tokens.
    choice : TokenChoice
        Says levels, where the user has.

    Returns
    -------
    int or None
        4, 16 or 64: as many as the next stored level is coarser. Slides often store every second level. Tokens of a
        level between two are reduced from the finer one, at four times the pixels, and save none.
    """
    if choice.levels is not None:
        return None
    base = choose_level(image, mpp=geometry.mpp, needs_mpp=geometry.needs_mpp).level
    edges = [max(level.scale_yx) / max(base.scale_yx) for level in image.levels[base.stored + 1 :]]
    steps = [round(log2(edge)) for edge in edges if edge > 1]
    halvings = min(MOST_STEP, max(1, steps[0] if steps else 1))
    return 1 << 2 * halvings


def facts_of(plan: TokenPlan) -> PlanFacts:
    """Return what a store has to know of tokens.

    Parameters
    ----------
    plan : TokenPlan
        The tokens.

    Returns
    -------
    PlanFacts
        With how many of them lie on each level.
    """
    depth, leaf = plan.tokens[:, 0], plan.is_leaf
    depths = tuple(
        DepthFacts(
            level=level,
            tokens=int(np.count_nonzero(depth == number)),
            leaves=int(np.count_nonzero(leaf & (depth == number))),
        )
        for number, level in enumerate(plan.levels)
    )
    return PlanFacts(
        digest=plan.digest,
        level=plan.base,
        grid=square_grid(plan.base.shape, plan.patch_px),
        super_tile_px=plan.super_tile_px,
        region_px=plan.super_tile_px,
        rows=len(plan),
        mpp_yx=plan.mpp_yx,
        where=plan.where,
        depths=depths,
    )


def tiles_of_levels(plan: TokenPlan) -> list[TilePlan]:
    """Return a plan of tiles for each level of tokens, all of it: what a unit takes is no more than one of these."""
    return [
        TilePlan(
            image=plan.image,
            level=level,
            grid=square_grid(level.shape, plan.patch_px),
            super_tile_px=plan.super_tile_px,
        )
        for level in plan.levels
    ]


def notes_of_encoders(encoders: Encoders, levels: Sequence[PlanLevel]) -> tuple[str, ...]:
    """Return which encoders are given tokens of another resolution than the one that they were made for.

    Parameters
    ----------
    encoders : Encoders
        Of the run.
    levels : sequence of PlanLevel
        Levels of tokens, finest first.

    Returns
    -------
    tuple of str
        None or one.
    """
    made = [f"`{one.name}`" for one in encoders.each if one.contract.mpp is not None]
    if not made or len(levels) < 2:
        return ()
    was, them = ("was", "it") if len(made) == 1 else ("were", "them")
    return (
        f"{' and '.join(made)} {was} made for one resolution; tokens of up to {2 ** (len(levels) - 1)} times coarser "
        f"pixels are given to {them} all the same, and what their vectors say has to be tried",
    )


def require_areas(where: str) -> None:
    """Refuse patches that another program has cut: they are tiles of one size, and leave a budget nothing to decide.

    Parameters
    ----------
    where : str
        `tissue`, `all`, or a file.

    Raises
    ------
    ConfigError
        When it lists patches.
    """
    if is_patch_file(where):
        raise ConfigError.of(
            "`--budget`",
            got=f"patches that another program has cut, `{where}`",
            expected="`tissue`, `all`, a mask image or a GeoJSON file, inside of which the budget decides",
            do="Leave out --budget or --where.",
        )
