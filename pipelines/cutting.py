"""How an image is cut for a run: into tiles of one level, or into tokens of several under a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tilestream.pipelines.encoders import Encoders
from tilestream.plan.selection import Selection
from tilestream.plan.tiles import TilePlan, plan_tiles
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.features import SCALARS, FeatureSink
from tilestream.types import Array, Receipt, StageSpec

if TYPE_CHECKING:
    from tilestream.pipelines.embed import EmbedConfig

P = TypeVar("P")
ENTROPY = StageSpec(target="entropy")
"""Every image gets an entropy map, whatever its encoder: as a score of tiles it costs nothing."""


class Cut(Protocol[P]):
    """Decides what is read of an image, and knows what follows from it."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what it is made of besides tiles and where, as JSON values; empty where that is all."""

    def plan(self, pyramid: Pyramid) -> P:
        """Return the plan of an image."""

    def kept(self, plan: P) -> Kept:
        """Return what the store has to know of a plan."""

    def alike(self, plan: P) -> list[TilePlan]:
        """Return plans of tiles that take as much memory for a unit as those of the plan do, level by level."""

    def sent(self, plan: P, *, begin_at: float) -> P:
        """Return a plan as it travels to where the run was started, without what nobody asks it for any more."""


class Ending(Protocol):
    """Knows when all units of an image are done."""

    def whole(self, sink: FeatureSink, receipts: Mapping[str, Receipt]) -> Whole | None:
        """Return what makes the store of an image with such receipts by key, None while units are missing."""


@dataclass(frozen=True, kw_only=True)
class Whole:
    """An image all units of which are done."""

    sink: FeatureSink
    """Makes its store."""
    receipts: tuple[Receipt, ...]
    """Of its units. There may be others: of tokens as they were when scores had come out otherwise."""


@dataclass(frozen=True, kw_only=True)
class AllUnits:
    """An image whose units are known from the start."""

    keys: frozenset[str]
    """Of all of them."""

    def whole(self, sink: FeatureSink, receipts: Mapping[str, Receipt]) -> Whole | None:
        """Return the sink as it is once each has a receipt."""
        if not self.keys <= receipts.keys():
            return None
        return Whole(sink=sink, receipts=tuple(receipts[key] for key in sorted(self.keys)))


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the store of an image has to know of its plan."""

    facts: PlanFacts
    """The plan."""
    ending: Ending
    """Says when all of its units are done."""
    selection: Selection | None = None
    """What `where` selected; None with `all`."""
    scalars: tuple[str, ...] = SCALARS
    """Values that each tile has besides vectors."""
    opened: Array | None = None
    """1 for tokens whose place finer ones have taken; None for tiles, and where it is known at the end."""
    notes: tuple[str, ...] = ()
    """What a user should know of the plan."""
    scorer: StageSpec | None = None
    """Gives each tile the score by which the plan goes on; None for plans that are known from the start."""


@dataclass(frozen=True, kw_only=True)
class TileCut:
    """Tiles of one level."""

    encoders: Encoders
    """Say tile edge, resolution and regions."""
    config: EmbedConfig
    """The options."""
    where: str
    """`tissue`, `all`, or a mask or GeoJSON file."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return nothing: tile edge, resolution and where say it all."""
        return {}

    def plan(self, pyramid: Pyramid) -> TilePlan:
        """Return the tiles of one image.

        Parameters
        ----------
        pyramid : Pyramid
            The image.

        Returns
        -------
        TilePlan
            The plan.
        """
        geometry, chains = self.encoders.geometry, self.encoders.chains
        return plan_tiles(
            pyramid,
            tile_px=geometry.px,
            mpp=geometry.mpp,
            halo_px=self.config.halo_px,
            where=self.where,
            super_tile_px=self.config.super_tile_px,
            region_px=chains.region_px,
            whole_regions=chains.whole_regions,
            needs_mpp=geometry.needs_mpp,
        )

    def kept(self, plan: TilePlan) -> Kept:
        """Return what the store has to know of a plan."""
        facts = PlanFacts(
            digest=plan.digest,
            level=plan.level,
            grid=plan.grid,
            super_tile_px=plan.super_tile_px,
            region_px=self.encoders.chains.region_px or plan.super_tile_px,
            rows=len(plan),
            mpp_yx=plan.mpp_yx,
            where=plan.where,
            is_listed=plan.is_listed,
        )
        return Kept(
            facts=facts,
            ending=AllUnits(keys=frozenset(unit.key for unit in plan.start())),
            selection=plan.selection,
            notes=plan.notes,
        )

    def alike(self, plan: TilePlan) -> list[TilePlan]:
        """Return the plan itself."""
        return [plan]

    def sent(self, plan: TilePlan, *, begin_at: float) -> TilePlan:
        """Return the plan without the mask behind it, which is on disk as an outline by then."""
        return replace(plan, selection=None, begin_at=begin_at)
