"""A stage on all tiles of a coarse level: their vectors, or where it gives one number a tile a map of scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError, StageError
from tilestream.plan.levels import target_mpp
from tilestream.plan.tiles import TilePlan, plan_tiles
from tilestream.plan.where import select
from tilestream.pyramid import Pyramid
from tilestream.registry import WEIGHTS, source_digest, weights_digest
from tilestream.relevance.query import TileVectors, map_of
from tilestream.relevance.term import Group
from tilestream.stream.batches import iter_batches, new_outcome
from tilestream.stream.supply import usable_cores
from tilestream.stream.work import make_stage
from tilestream.types import Array, Batch, ScoreMap, Stage, StageContract, StageSpec, SuperTile

UNIT_TILES = 8
"""Tiles along an edge of what one thread reads at once."""
BATCH = 64
"""Tiles that enter a stage together: those of a unit."""
CALLABLE = "callable"
"""Target of the stages that are functions of a user's."""
COARSE = 8.0
"""Reduction of a coarse look by an encoder, which costs a 64th of a full pass."""
LEAST_TILES = 16
"""Tiles along the longer edge below which a map says too little of where things are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StageTerm:
    """A term made of any tile stage that gives one number, such as a trained scorer; the same stage scores any tile."""

    spec: StageSpec
    """How the stage is made."""
    name: str
    """Name of its maps."""
    reduce: float | None = None
    """Pixels of level 0 along the edge of a pixel that the stage sees; None = the resolution of its contract, level 0
    where that states none."""
    mpp: float | None = None
    """Micrometres along that edge instead, on images that state theirs."""
    where: str = "all"
    """Which tiles it is asked about: `all`, `tissue`, or the path of a mask or GeoJSON file."""
    absolute: bool = False
    """Whether its scores lie in 0 to 1 and mean the same on every image."""
    group: Group = "scorer"
    """What its weight follows from where nobody states one."""

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image; JSON values."""
        contract = make_stage(self.spec).contract
        stage = _described(self.spec.target, self.spec.params)
        stage["contract"] = json.loads(json.dumps(asdict(contract)))
        where = weights_digest({"weights": self.where}) or self.where
        return {"term": "stage-1", "stage": stage, "reduce": self.reduce, "mpp": self.mpp, "where": where}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return what the stage says of each tile of a coarse level.

        Parameters
        ----------
        pyr : Pyramid
            The image.

        Returns
        -------
        ScoreMap
            A cell for each tile; not valid where a tile is empty, damaged or not wanted.

        Raises
        ------
        ConfigError
            When the stage gives more than one number a tile, or the image lacks the resolution that it needs.
        StageError
            When it raises, or gives another shape or a number that is not finite.
        """
        stage = make_stage(make_stage(self.spec).for_image(pyr.info))
        outputs = len(stage.output_names(pyr.info))
        if outputs != 1 or stage.contract.output != "vector":
            raise ConfigError.of(
                f"term `{self.name}` by stage `{self.spec.target}`",
                got=f"{outputs} values a tile" if stage.contract.output == "vector" else "maps of tiles",
                expected="one number a tile",
                do="Take a stage of one output, such as `entropy`, or train one: `tilestream train scorer`.",
            )
        plan = plan_coarse(pyr, stage.contract, reduce=self.reduce, mpp=self.mpp, where=self.where)
        found = vectors_of_plan(pyr, plan, stage, name=self.name, dim=1)
        return map_of(
            self.name,
            found.vectors[..., 0],
            found.known,
            cell_yx=found.cell_yx,
            shape=pyr.info.shape,
            notes=found.notes,
            absolute=self.absolute,
        )


def _described(target: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stage is and what those inside it are: weights by what is in them, a callable by its source."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping) and value.keys() == {"target", "params"}:
            found[key] = _described(value["target"], value["params"])
        else:
            held = weights_digest({key: value}) if key in WEIGHTS else None
            found[key] = value if held is None else {"digest": held}
    source = source_digest(params["target"]) if target == CALLABLE else None
    return {"target": target, "params": found, "source": source}


def plan_coarse(
    pyr: Pyramid, contract: StageContract, *, reduce: float | None = None, mpp: float | None = None, where: str = "all"
) -> TilePlan:
    """Return the tiles of a coarse level that a stage is asked about.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    contract : StageContract
        Of the stage: how large tiles are, and at which resolution where nothing else says so.
    reduce : float, optional
        Pixels of level 0 along the edge of a pixel of the plan.
    mpp : float, optional
        Micrometres along it, which goes before `reduce` where the image states its own.
    where : str
        As in `plan_tiles`.

    Returns
    -------
    TilePlan
        In units of 8 x 8 tiles.

    Raises
    ------
    ConfigError
        When the image has no such resolution, or `where` cannot be read.
    """
    info = pyr.info
    tile_px, edge = contract.px, contract.px * UNIT_TILES
    if reduce is None or (mpp is not None and info.mpp is not None):
        wanted, needs_mpp = mpp or target_mpp(contract, info), contract.needs_mpp or mpp is not None
        return plan_tiles(pyr, tile_px=tile_px, mpp=wanted, where=where, super_tile_px=edge, needs_mpp=needs_mpp)
    if not 0 < reduce < np.inf:
        raise ConfigError.of("`reduce`", got=reduce, expected="pixels above 0", do="Correct it.")
    chosen = where if where == "all" else select(pyr, where, tile_level0_px=tile_px * reduce)
    # in units of a pixel of level 0: what an image says of its resolution does not matter here
    return plan_tiles(pyr, tile_px=tile_px, mpp=reduce, source_mpp=1.0, where=chosen, super_tile_px=edge)


def vectors_of_plan(pyr: Pyramid, plan: TilePlan, stage: Stage, *, name: str, dim: int) -> TileVectors:
    """Return what a stage gives for the tiles of a plan.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    plan : TilePlan
        Tiles side by side on a grid.
    stage : Stage
        Made for the image.
    name : str
        What it is asked for, for messages.
    dim : int
        Length of its vectors.

    Returns
    -------
    TileVectors
        Over all tiles of the plan's grid; nothing is known of those that are empty, damaged or not wanted.

    Raises
    ------
    StageError
        When the stage raises, or gives another shape or a number that is not finite.

    Notes
    -----
    Memory is that of the vectors and a unit of 8 x 8 tiles for each core. Threads decode beside each other; a tile's
    place follows from the plan, so the result does not depend on them.
    """
    grid = plan.grid.shape
    vectors, known = np.zeros((*grid.yx, dim), np.float32), np.zeros(grid.yx, np.bool_)
    damaged: list[int] = []
    accept = _accepted(name, dim)

    def run(unit: SuperTile) -> None:
        outcome = new_outcome(unit)
        for batch in iter_batches(pyr, unit, batch=BATCH, outcome=outcome):
            y, x = (batch.tile_yx // plan.grid.step_px).T
            vectors[y, x] = accept(stage, batch)
            known[y, x] = True
        damaged.extend(row for rows in outcome.damaged.values() for row in rows)

    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        for _ in pool.map(run, plan.start()):
            pass
    notes = (*plan.notes, f"{name}: {len(damaged):,} damaged tiles are not scored") if damaged else plan.notes
    scale_y, scale_x = plan.level.scale_yx
    cell_yx = plan.grid.step_px * scale_y, plan.grid.step_px * scale_x
    return TileVectors(vectors=vectors, known=known, cell_yx=cell_yx, notes=notes)


def _accepted(name: str, dim: int) -> Callable[[Stage, Batch], npt.NDArray[np.float32]]:
    """Return what runs a stage and looks at what it gives."""

    def accept(stage: Stage, batch: Batch) -> npt.NDArray[np.float32]:
        what = f"`{stage.contract.name}` for `{name}`"
        try:
            found: Array = np.asarray(stage(batch), np.float32)
        except (ConfigError, StageError):
            raise
        except Exception as error:  # whatever a user's callable raises becomes one clear line
            raise StageError.of(
                what,
                got=f"{type(error).__name__}: {error}",
                expected="a result for each tile",
                do="Run the callable on a tile by itself.",
            ) from error
        if found.shape != (len(batch.rows), dim):
            expected = f"({len(batch.rows)}, {dim}), a row for each tile"
            raise StageError.of(what, got=f"shape {found.shape}", expected=expected, do="Correct what it returns.")
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            y, x = batch.tile_yx[bad[0]].tolist()
            raise StageError.of(
                what,
                got=f"numbers that are not finite for {len(bad)} of {len(batch.rows)} tiles, first at y={y}, x={x} of "
                "its level",
                expected="finite numbers for every tile that has a valid pixel",
                do="Run the callable on that tile by itself.",
            )
        return found

    return accept


def coarse_reduction(edge_px: int, tile_px: int) -> float:
    """Return the pixels of level 0 under the edge of a pixel at which tiles of an encoder are looked at coarsely.

    Parameters
    ----------
    edge_px : int
        Longer edge of the image at level 0.
    tile_px : int
        Edge of a tile.

    Returns
    -------
    float
        8, so that a 64th of the pixels is read, halved while the longer edge would have less than 16 tiles, and at
        least 1.
    """
    reduction = COARSE
    while reduction > 1 and edge_px < LEAST_TILES * tile_px * reduction:
        reduction /= 2
    return reduction
