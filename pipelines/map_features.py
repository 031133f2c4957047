"""The feature store of one image by one plan: a tile stage alone, or a hierarchy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tilestream import __version__
from tilestream.errors import ConfigError
from tilestream.models.gridparts import region_contract
from tilestream.models.pool import Pool
from tilestream.pipelines.chain import MEAN, Chains, require_bag
from tilestream.pipelines.encoder import choose_encoder
from tilestream.pipelines.recipe import digest, image_recipe, new_recipe
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.facts import PlanFacts
from tilestream.sinks.features import FeatureSink
from tilestream.sinks.storerecord import SUFFIX
from tilestream.sinks.tree import check_replaceable
from tilestream.stream.budget import memory_limit
from tilestream.stream.engine import Prepared
from tilestream.stream.journal import Journal
from tilestream.stream.work import TileWork
from tilestream.types import Hierarchy, StageSpec

SCALARS = ("valid", "tissue")
"""What every tile has besides its vectors."""


@dataclass(frozen=True, kw_only=True)
class FinishFeatures:
    """Turns parts into the store; picklable, runs on a worker."""

    sink: FeatureSink
    """Holds the parts."""
    journal: Journal
    """Holds the receipts."""

    def __call__(self) -> None:
        """Write the store."""
        self.sink.finish(self.journal.receipts().values())


def prepare_features(
    pyr: Pyramid, plan: TilePlan, hierarchy: Hierarchy, *, dst: Path, journal_at: Path
) -> tuple[Prepared, Journal]:
    """Return the work that makes a feature store, and what keeps its receipts.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    plan : TilePlan
        Its tiles.
    hierarchy : Hierarchy
        The stages.
    dst : Path
        The store; its name ends in `.features.zarr`.
    journal_at : Path
        Folder of the receipts.

    Returns
    -------
    prepared : Prepared
        For the engine.
    journal : Journal
        Of the receipts.

    Raises
    ------
    ConfigError
        When a stage cannot be made, or the name is another one.
    StageError
        When a stage does not take what the one before it gives.
    """
    if not dst.name.endswith(SUFFIX):
        raise ConfigError.of("`sink`", got=f"`{dst}`", expected=f"a name that ends in {SUFFIX}", do="Name it so.")
    encoder = choose_encoder(hierarchy.tile.target, hierarchy.tile.params, pyr.info, tile_px=plan.grid.tile_px)
    facts = plan_facts(plan, hierarchy)
    has_chain = _is_stage(hierarchy.region) or _is_stage(hierarchy.slide)
    chains = Chains(each={encoder.name: _without_means(hierarchy)} if has_chain else {}, region_px=facts.region_px)
    encoder.require(pyr.info, plan.grid)
    bound = chains.bind({encoder.name: len(encoder.outputs)}, cells=facts.region_px // facts.grid.step_px)
    require_bag(bound, facts, limit_bytes=memory_limit(None))
    recipe = new_recipe(
        image=image_recipe(pyr.info),
        channels=[channel.name for channel in pyr.channels],
        plan={"digest": plan.digest, "mpp": encoder.contract.mpp, **chains.plan_recipe},
        stages={encoder.name: encoder.recipe},
        **chains.recipe,
    )
    sink = FeatureSink(
        root=dst,
        work=journal_at / "parts",
        image=pyr.info,
        plan=facts,
        encoders=((encoder.name, encoder.outputs),),
        new_pooler=Pool,
        chains=bound,
        scalars=SCALARS,
        recipe=recipe,
        recipe_digest=digest(recipe),
        version=__version__,
    )
    if dst.exists() and not sink.is_committed():
        check_replaceable(dst, replace=False)
    journal = Journal(root=journal_at, recipe=sink.recipe_digest)
    journal.open(recipe)
    work = TileWork(pyramid=pyr, stages={encoder.name: encoder.spec}, sink=sink, journal=journal)
    return Prepared(plan=plan, work=work, finish=FinishFeatures(sink=sink, journal=journal)), journal


def plan_facts(plan: TilePlan, hierarchy: Hierarchy) -> PlanFacts:
    """Return what a sink has to know of a plan, with the regions of a hierarchy."""
    region_px = hierarchy.region_px
    if region_px is None and hierarchy.region is not None and _is_stage(hierarchy.region):
        tiles = region_contract(hierarchy.region).tiles
        region_px = None if tiles is None else tiles * plan.grid.step_px
    return PlanFacts(
        digest=plan.digest,
        level=plan.level,
        grid=plan.grid,
        super_tile_px=plan.super_tile_px,
        region_px=region_px or plan.super_tile_px,
        rows=len(plan),
        mpp_yx=plan.mpp_yx,
        where=plan.where,
    )


def _is_stage(spec: StageSpec | None) -> bool:
    return spec is not None and spec.target != MEAN


def _without_means(hierarchy: Hierarchy) -> Hierarchy:
    region, slide = hierarchy.region, hierarchy.slide
    return Hierarchy(
        tile=hierarchy.tile,
        region=region if _is_stage(region) else None,
        slide=slide if _is_stage(slide) else None,
        region_px=hierarchy.region_px,
    )
