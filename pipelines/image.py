"""One image of the main job: open it, plan it, and finish it when all its super-tiles are done."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilestream import __version__
from tilestream.cache.limits import within
from tilestream.metrics import Meter, collect
from tilestream.models.pool import Pool
from tilestream.pipelines.chain import choose_chains, require_bag, require_grid, require_trained_on
from tilestream.pipelines.cohort import Entry
from tilestream.pipelines.cutting import ENTROPY, Cut, Kept, TileCut
from tilestream.pipelines.encoders import Encoders, choose_encoders
from tilestream.pipelines.finish import FinishImage, write_outline
from tilestream.pipelines.places import Places
from tilestream.pipelines.reading import stored_bytes
from tilestream.pipelines.recipe import digest, file_digest, image_recipe, new_recipe
from tilestream.pipelines.tokens import TokenCut
from tilestream.pipelines.walks import WalkCut
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.features import FeatureSink
from tilestream.sinks.tree import check_replaceable
from tilestream.sources.stamps import stamps_of
from tilestream.stream.budget import memory_limit, project
from tilestream.stream.engine import Prepared
from tilestream.stream.journal import Journal, difference
from tilestream.stream.supply import decode_threads, usable_cores
from tilestream.stream.work import TileWork
from tilestream.types import ImageInfo

if TYPE_CHECKING:
    from tilestream.pipelines.compress import CompressConfig
    from tilestream.pipelines.embed import EmbedConfig
    from tilestream.pipelines.ingest import IngestConfig
    from tilestream.pipelines.map_run import MapConfig


def entropy_columns(encoders: Encoders, image: ImageInfo) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return where `handcrafted` has the entropies that the map would compute again, nothing for other encoders."""
    for one in encoders.each:
        if one.spec.target == "handcrafted":
            columns = tuple(one.outputs.index(f"{channel.name}_entropy") for channel in image.channels)
            return {"entropy": (one.name, columns)}
    return {}


def encoders_for(config: EmbedConfig, image: ImageInfo) -> Encoders:
    """Return the encoders of a run, made for one image, with the stages above them."""
    encoders = choose_encoders(config.encoders, image, tile_px=config.tile_px, mpp=config.mpp)
    tiles = {one.name: one.spec for one in encoders.each}
    chains = choose_chains(tiles, config.chain, tile_px=encoders.geometry.px, region_px=config.region_px)
    return replace(encoders, chains=chains)


def chosen(pyramid: Pyramid, entry: Entry, config: CompressConfig | EmbedConfig | IngestConfig | MapConfig) -> Pyramid:
    """Return an image as the entry and the options of a run want it.

    Parameters
    ----------
    pyramid : Pyramid
        The image as opened.
    entry : Entry
        Its bands, resolution and light by a manifest.
    config : CompressConfig, EmbedConfig, IngestConfig or MapConfig
        Classes that are not valid, and decibels.

    Returns
    -------
    Pyramid
        What is planned and read.
    """
    return pyramid.choose(
        bands=entry.bands, mpp=entry.mpp, light=entry.light, invalid=config.invalid, decibels=config.decibels
    )


def cut_for(config: EmbedConfig, encoders: Encoders, pyramid: Pyramid, *, where: str) -> Cut[Any]:
    """Return how an image is cut for a run.

    Parameters
    ----------
    config : EmbedConfig
        The options.
    encoders : Encoders
        Say tile edge and resolution.
    pyramid : Pyramid
        The image.
    where : str
        `tissue`, `all`, or a mask or GeoJSON file.

    Returns
    -------
    Cut
        Into tiles, or into tokens where there is a budget.
    """
    if config.tokens is None:
        return TileCut(encoders=encoders, config=config, where=where)
    if config.tokens.is_progressive:
        return WalkCut(choice=config.tokens, encoders=encoders, config=config, where=where, pyramid=pyramid)
    return TokenCut(choice=config.tokens, encoders=encoders, config=config, where=where, image=pyramid.info)


@dataclass(frozen=True, kw_only=True)
class ImageJob:
    """One input of a run; `prepare` runs on a worker."""

    entry: Entry
    """The input."""
    config: EmbedConfig
    """What to make of it."""
    tasks: int
    """Tasks that run at once in one process."""
    machine_tasks: int = sys.maxsize
    """Tasks that share the cores of one machine; threads decode ahead on those that are left."""
    begin_at: float = 0.0
    """Share of the way through its super-tiles at which this run begins."""

    @property
    def key(self) -> str:
        """Return the name of the input, which its outputs carry too."""
        return self.entry.key

    def prepare(self) -> Prepared | Mapping[str, Any]:
        """Return the planned image, or the summary of one that an earlier run has finished."""
        with collect() as meter:
            return self._prepare(meter, time.perf_counter())

    def _prepare(self, meter: Meter, started: float) -> Prepared | Mapping[str, Any]:
        config, places = self.config, Places.of(self.config.out, self.key)
        pyramid = open_pyramid(self.entry.url, cache_bytes=within(config.cache_bytes))
        stamps = stamps_of(pyramid.source)
        pyramid = chosen(pyramid, self.entry, config)
        encoders = encoders_for(config, pyramid.info)
        cut = cut_for(config, encoders, pyramid, where=self._where)
        recipe = self._recipe(pyramid, encoders, cut)
        journal = Journal(root=places.journal, recipe=digest(recipe))
        if (summary := self._finished(journal)) is not None:
            return summary
        plan = cut.plan(pyramid)
        self._require_memory(pyramid, cut.alike(plan), encoders)
        kept = cut.kept(plan)
        encoders.require(pyramid.info, kept.facts.grid)
        sink = self._sink(pyramid, kept, encoders, recipe)
        if places.features.exists() and not sink.is_committed():
            differs = partial(difference, new=recipe)
            check_replaceable(places.features, replace=sink.replace, differs=differs)
        journal.open(recipe, replace=not config.resume)
        if (summary := self._finished(journal)) is not None:
            return summary  # another run has ended it while this one was planning
        if journal.summary() is not None:
            journal.reopen()  # an output was removed by hand: it is made again, from the features if those are there
        write_outline(kept.selection, pyramid.info, places.outline)
        plan_s = time.perf_counter() - started
        finish = FinishImage(
            key=self.key,
            out=config.out,
            pyramid=pyramid,
            sink=sink,
            ending=kept.ending,
            notes=(*kept.notes, *encoders.notes),
            journal=journal,
            stamps=stamps,
            planned=dict(meter.counts),
            plan_s=plan_s,
            image_bytes=stored_bytes(self.entry.url, pyramid),
        )
        rows = kept.facts.rows
        return Prepared(
            plan=cut.sent(plan, begin_at=self.begin_at),
            work=self._work(encoders, kept, pyramid=pyramid, sink=sink, journal=journal, stamps=stamps),
            finish=finish,
            facts={
                "tiles": rows,
                "units": plan.units,
                "pixels": rows * kept.facts.grid.tile_px**2,
                "plan_s": plan_s,
            },
        )

    def _work(self, encoders: Encoders, kept: Kept, **parts: Any) -> TileWork:
        """Return what a worker does with a unit: all encoders, the entropy where none of them has it, and a score."""
        means = entropy_columns(encoders, parts["pyramid"].info)
        stages = {**({} if means else {"entropy": ENTROPY}), **{one.name: one.spec for one in encoders.each}}
        if kept.scorer == ENTROPY:  # which each tile has anyway
            means["relevance"] = means.get("entropy", ("entropy", (0,)))
        elif kept.scorer is not None:
            stages["relevance"] = kept.scorer
        return TileWork(
            stages=stages,
            means=means,
            scored=None if kept.scorer is None else "relevance",
            batch=self.config.batch,
            tasks=self.machine_tasks,
            **parts,
        )

    def _finished(self, journal: Journal) -> Mapping[str, Any] | None:
        """Return the summary of an image that a run has finished, None where any of its outputs is missing."""
        summary = journal.summary() if self.config.resume else None
        is_whole = summary is not None and all((self.config.out / name).exists() for name in summary["outputs"])
        return summary if is_whole else None

    @property
    def _where(self) -> str:
        return self.entry.mask or self.config.where

    def _recipe(self, pyramid: Pyramid, encoders: Encoders, cut: Cut[Any]) -> dict[str, Any]:
        where = Path(self._where)
        return new_recipe(
            image=image_recipe(pyramid.info),
            channels=[channel.name for channel in pyramid.channels],
            plan={
                "tile_px": encoders.geometry.px,
                "mpp": encoders.geometry.mpp,
                "halo_px": self.config.halo_px,
                # a file is known by what is in it: an edited outline is another recipe, a moved one is not
                "where": file_digest(where) if where.is_file() else self._where,
                "super_tile_px": self.config.super_tile_px,
                **encoders.chains.plan_recipe,
                **cut.recipe,
            },
            stages={"entropy": asdict(ENTROPY), **{one.name: one.recipe for one in encoders.each}},
            **encoders.chains.recipe,
        )

    def _require_memory(self, pyramid: Pyramid, plans: Sequence[TilePlan], encoders: Encoders) -> None:
        dims = encoders.dims + 1
        decoders = decode_threads(cores=usable_cores(), tasks=self.machine_tasks, on_device=encoders.is_on_device)
        for plan in plans:
            projection = project(pyramid, plan, batch=self.config.batch, dims=dims, tasks=self.tasks, decoders=decoders)
            projection.require(memory_limit(self.config.memory_bytes), self.key)

    def _sink(self, pyramid: Pyramid, kept: Kept, encoders: Encoders, recipe: dict[str, Any]) -> FeatureSink:
        places, facts = Places.of(self.config.out, self.key), kept.facts
        if self.entry.mask:
            facts = replace(facts, where="file")
        cells = facts.region_px // facts.grid.step_px
        chains = encoders.chains.bind({one.name: len(one.outputs) for one in encoders.each}, cells=cells)
        require_grid(chains, facts)
        require_trained_on(encoders.chains, recipe)
        require_bag(chains, facts, limit_bytes=memory_limit(self.config.memory_bytes))
        return FeatureSink(
            root=places.features,
            work=places.journal / "parts",
            image=pyramid.info,
            plan=facts,
            encoders=tuple((one.name, one.outputs) for one in encoders.each),
            new_pooler=Pool,
            chains=chains,
            scalars=kept.scalars,
            opened=kept.opened,
            recipe=recipe,
            recipe_digest=digest(recipe),
            version=__version__,
            replace=not self.config.resume,
        )
