"""Reading less step by step: a walk from coarse to fine, in which what was seen decides what is read next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.pipelines.cutting import ENTROPY, Kept, Whole
from tilestream.pipelines.encoders import EncoderChoice, Encoders
from tilestream.pipelines.relevance import relevance_of, scoring_spec
from tilestream.pipelines.tokens import (
    DEFAULT_RELEVANCE,
    TokenChoice,
    branching_of,
    facts_of,
    notes_of_encoders,
    require_areas,
    tiles_of_levels,
)
from tilestream.plan.tiles import TilePlan
from tilestream.plan.walk import WalkPlan, plan_walk
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance.query import Query
from tilestream.sinks.features import SCALARS, FeatureSink
from tilestream.stream.stageterm import StageTerm
from tilestream.stream.work import make_stage
from tilestream.types import Receipt, StageSpec

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig


@dataclass(frozen=True, kw_only=True)
class WalkCut:
    """Tokens of several levels, decided level by level; `budget` counts all that are decoded."""

    choice: TokenChoice
    """The budget, and what scores a tile."""
    encoders: Encoders
    """Say tile edge and resolution of the finest tokens."""
    config: EmbedConfig
    """The options."""
    where: str
    """`tissue`, `all`, or a mask or GeoJSON file."""
    pyramid: Pyramid
    """The image, on which examples of a query lie."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what decides the tokens, as JSON values."""
        levels, terms = self.choice.levels, self._terms
        scorer = relevance_of(terms, encoders=self.config.encoders).recipe
        return {
            "tokens": {
                "budget": self.choice.budget,
                "branching": branching_of(self.pyramid.info, self.encoders.geometry, self.choice),
                "relevance": {"stage": "entropy"} if terms == DEFAULT_RELEVANCE else dict(scorer),
                "fovea": None,
                "levels": None if levels is None else list(levels),
                "progressive": True,
            }
        }

    def plan(self, pyramid: Pyramid) -> WalkPlan:
        """Return the walk through one image, at its start.

        Parameters
        ----------
        pyramid : Pyramid
            The image.

        Returns
        -------
        WalkPlan
            The plan.

        Raises
        ------
        ConfigError
            When the budget is smaller than the coarsest level, or `where` lists patches.
        """
        require_areas(self.where)
        geometry = self.encoders.geometry
        return plan_walk(
            pyramid,
            budget=self.choice.budget,
            patch_px=geometry.px,
            mpp=geometry.mpp,
            levels=self.choice.levels,
            branching=branching_of(pyramid.info, geometry, self.choice),
            where=self.where,
            super_tile_px=self.config.super_tile_px,
            needs_mpp=geometry.needs_mpp,
        )

    def kept(self, plan: WalkPlan) -> Kept:
        """Return what the store has to know of a plan; how many tokens there are is known at the end."""
        walked = plan.walked()
        facts = facts_of(walked)
        return Kept(
            facts=replace(facts, digest=plan.digest, rows=plan.budget if len(plan) else 0),
            ending=WalkEnding(walk=plan),
            selection=walked.selection,
            scalars=(*SCALARS, "relevance"),
            notes=(*walked.notes, *notes_of_encoders(self.encoders, walked.levels)),
            scorer=self._scorer,
        )

    def alike(self, plan: WalkPlan) -> list[TilePlan]:
        """Return a plan of tiles for each level, all of it."""
        return tiles_of_levels(plan.walked())

    def sent(self, plan: WalkPlan, *, begin_at: float) -> WalkPlan:
        """Return the plan at its start."""
        return replace(plan, begin_at=begin_at)

    @property
    def _terms(self) -> str:
        return self.choice.relevance or DEFAULT_RELEVANCE

    @property
    def _scorer(self) -> StageSpec:
        if self._terms == DEFAULT_RELEVANCE:
            return ENTROPY
        spec = scoring_spec(self._terms, self.pyramid, encoders=self.config.encoders)
        outputs = len(make_stage(spec).output_names(self.pyramid.info))
        if outputs != 1:
            raise ConfigError.of(
                f"scorer `{self._terms}`",
                got=f"{outputs} numbers a tile",
                expected="one number a tile, by which it is opened or not",
                do="Take a stage of one output.",
            )
        return spec


def require_scorer(terms: str, *, encoders: Sequence[EncoderChoice]) -> None:
    """Refuse a relevance that needs more than a tile: a walk has no coarse picture of the whole image.

    Parameters
    ----------
    terms : str
        As `--relevance` takes them.
    encoders : sequence of EncoderChoice
        Encoders of the run.

    Raises
    ------
    ConfigError
        When it is not one term that a stage computes.
    """
    if terms == DEFAULT_RELEVANCE:
        return
    found = relevance_of(terms, encoders=encoders).terms
    if len(found) > 1 or not isinstance(next(iter(found.values())), Query | StageTerm):
        raise ConfigError.of(
            "`--relevance` with --progressive",
            got=f"`{terms}`",
            expected="one term that scores a tile by itself: entropy, query or scorer",
            do="Give one of these alone, or leave out --progressive.",
        )


@dataclass(frozen=True, kw_only=True)
class WalkEnding:
    """An image whose units follow from the receipts of coarser ones."""

    walk: WalkPlan
    """The plan."""

    def whole(self, sink: FeatureSink, receipts: Mapping[str, Receipt]) -> Whole | None:
        """Return what makes the store of the tokens that receipts tell of, None while they open some more.

        Parameters
        ----------
        sink : FeatureSink
            As the run has begun with it.
        receipts : Mapping
            Those that are there, by key.

        Returns
        -------
        Whole or None
            Its sink knows the number of tokens by level, and which of them were opened.
        """
        walk = replace(self.walk).replay(receipts.values())
        if not walk.is_complete:
            return None
        facts = facts_of(walk.walked())
        plan = replace(sink.plan, rows=len(walk), depths=facts.depths)
        return Whole(
            sink=replace(sink, plan=plan, opened=np.asarray(walk.opened, np.uint8)),
            receipts=tuple(receipts[key] for key in sorted(walk.keys)),
        )
