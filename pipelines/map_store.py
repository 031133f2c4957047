"""The store of a map, from a plan and a stage to what the engine runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tilestream.pipelines.encoder import Encoder
from tilestream.pipelines.ingest_image import StorePlaces, clear_begun, finished_store, put_documents, raster_documents
from tilestream.pipelines.map_layout import (
    map_info,
    map_layout,
    overhead,
    project_map,
    sample_maps,
    told_overhead,
)
from tilestream.pipelines.map_work import MapFinish, MapMember, MapWork
from tilestream.pipelines.recipe import digest
from tilestream.plan.dense import DenseGrid
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.layout import StoreLayout
from tilestream.sinks.omelabels import VALID
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sinks.store import nodes
from tilestream.sinks.tree import check_place, staging_of
from tilestream.sources.stamps import Stamp
from tilestream.stream.dense import DenseStage
from tilestream.stream.engine import Prepared
from tilestream.stream.journal import Journal
from tilestream.stream.mapform import map_form
from tilestream.stream.supply import decode_threads, usable_cores
from tilestream.stream.work import make_stage
from tilestream.types import ImageInfo

NO_RECEIPTS = "finished by an earlier run whose receipts are gone: its figures are not known"


@dataclass(frozen=True, kw_only=True)
class MapTiles:
    """A stage and the tiles that it is run on."""

    pyramid: Pyramid
    """The image."""
    plan: TilePlan
    """Its tiles."""
    encoder: Encoder
    """The stage, made for the image."""
    is_blended: bool = False
    """Whether neighbours are feathered over each other."""
    batch: int = 64
    """Most tiles that enter the stage together."""
    stamps: tuple[Stamp, ...] = ()
    """Files of the image as they were when it was opened."""

    @property
    def grid(self) -> DenseGrid:
        """Return the tiles of the map."""
        contract = self.encoder.contract
        trim = -(-contract.halo_px // contract.stride) * contract.stride
        # the mask behind the plan is not asked for any more
        plan = replace(self.plan, selection=None, share=None)
        return DenseGrid(
            plan=plan,
            stride=contract.stride,
            trim_px=trim,
            is_blended=self.is_blended,
            keeps_place=contract.keeps_place,
        )


@dataclass(frozen=True, kw_only=True)
class MapRequest:
    """A map to be made, and where."""

    tiles: MapTiles
    """What is run."""
    recipe: Mapping[str, Any]
    """All that the store is a function of."""
    places: StorePlaces
    """Where the store and its receipts lie."""
    output: str
    """Path of the store in the folder of all outputs."""
    tasks: int
    """Tasks that run at once in one process."""
    machine_tasks: int = sys.maxsize
    """Those that run at once on one machine."""
    memory_bytes: int | None = None
    """Most bytes that one process may hold; None = half of what is free."""
    resume: bool = True
    """Go on from receipts; False replaces what an earlier run has made."""
    planned: Mapping[str, float] = field(default_factory=dict)
    """Seconds and bytes that planning has taken, for the report."""


def finished_map(places: StorePlaces, journal: Journal, *, output: str) -> Mapping[str, Any] | None:
    """Return the summary of a map that is finished under this recipe, None where it is not.

    Parameters
    ----------
    places : StorePlaces
        Where it lies.
    journal : Journal
        Of this recipe.
    output : str
        Path of the store in the folder of all outputs.

    Returns
    -------
    Mapping or None
        As `MapFinish.summary`.
    """
    done = finished_store(places, journal)
    if done is None or "tiles" in done:
        return done
    nothing = {"shape_yx": [0, 0], "damaged": {}, "failed": {}, "cache": {}, "supertiles_total": 0}
    known = {"format": done["format"], "crs": done["crs"]}
    return {**nothing, **known, "outputs": [output], "notes": [NO_RECEIPTS]}


def prepare_map(request: MapRequest) -> Prepared | Mapping[str, Any]:
    """Return a map ready to be made, or the summary of one that another run has finished meanwhile.

    Parameters
    ----------
    request : MapRequest
        What to make.

    Returns
    -------
    Prepared or Mapping
        Its facts are `tiles`, `units`, `computed`, `pixels`, `plan_s`, `profile`, `store_bytes` and `task_bytes`.

    Raises
    ------
    ConfigError, StageError
        When the stage does not give what its contract says, or it cannot be stored.
    BudgetError, OutputError
        When there is no room.
    """
    tiles, places = request.tiles, request.places
    pyramid, plan, grid = tiles.pyramid, tiles.plan, tiles.grid
    stage = make_stage(tiles.encoder.spec)
    sample = sample_maps(pyramid, stage, grid)
    form = map_form(stage.contract, tiles.encoder.outputs, sample.batch, is_blended=tiles.is_blended)
    dense = DenseStage(stage=stage, grid=grid, form=form, batch=tiles.batch)
    info = map_info(pyramid.info, grid, form, fingerprint=digest(request.recipe))
    layout = map_layout(info, grid)
    on_device = tiles.encoder.is_on_device
    decoders = decode_threads(cores=usable_cores(), tasks=request.machine_tasks, on_device=on_device)
    projected = project_map(pyramid, dense, layout, sample, decoders=decoders)
    projected.require(places.root, tasks=request.tasks, memory_bytes=request.memory_bytes, what=request.output)
    journal = Journal(root=places.journal, recipe=digest(request.recipe))
    resume = request.resume
    journal.open(request.recipe, replace=not resume, begin=lambda: clear_begun(places.root, resume=resume))
    done = finished_map(places, journal, output=request.output) if resume else None
    if done is not None:
        return done
    if journal.summary() is not None and check_place(places.root) is None:
        journal.reopen()  # the store was removed by hand: its units are found to be lost, and done again
    more = overhead(grid, layout)
    finish = _begin(request, dense, info, layout)
    notes = (*plan.notes, *told_overhead(*more))
    units = finish.work.image.plan
    facts = {
        "tiles": len(plan),
        "units": len(units),
        "overhead": more,
        "pixels": len(plan) * plan.grid.tile_px**2,
        "plan_s": request.planned.get("seconds", 0.0),
        "profile": "map",
        **asdict(projected),
    }
    return Prepared(
        plan=units,
        work=finish.work,
        finish=replace(finish, tiles=len(plan), units=len(units), notes=notes),
        facts=facts,
    )


def _begin(request: MapRequest, dense: DenseStage, info: ImageInfo, layout: StoreLayout) -> MapFinish:
    """Return what makes and finishes the store, after its groups and arrays have their metadata."""
    tiles, places = request.tiles, request.places
    staging = staging_of(places.root)
    member = MapMember(
        pyramid=tiles.pyramid, writer=LevelWriter(place=staging, prefix="", layout=layout), described=info
    )
    work = MapWork(
        image=member,
        staging=staging,
        journal=Journal(root=places.journal, recipe=digest(request.recipe)),
        stamps=tiles.stamps,
        spec=tiles.encoder.spec,
        grid=dense.grid,
        form=dense.form,
        batch=dense.batch,
        tasks=request.machine_tasks,
    )
    work = replace(work, mask_documents=raster_documents(info, work.mask, VALID))
    documents = nodes(info, layout)
    put_documents(staging, documents)
    grid = dense.grid.plan.grid
    told = {
        "stage": dict(tiles.encoder.recipe),
        "tile_px": grid.tile_px,
        "halo_px": grid.halo_px,
        "stride": dense.grid.stride,
        "blend": dense.grid.is_blended,
        "classes": list(dense.form.classes),
        "source": {"format": tiles.pyramid.info.format, "fingerprint": tiles.pyramid.fingerprint},
    }
    return MapFinish(
        work=work,
        place=places.root,
        profile="portable",
        documents=documents,
        more={"map": told},
        replace=not request.resume,
        output=request.output,
        planned=request.planned,
    )
