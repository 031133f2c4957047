"""How a map lies in its store, what it will take there, and what it is said to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tilestream.codecs.pixelcodecs import encode_pixels
from tilestream.errors import StageError
from tilestream.pipelines.ingest_size import COARSE, STEP_YX, Projected
from tilestream.plan.dense import DenseGrid
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks.layout import CHUNKS, StoreLayout, made_layout
from tilestream.sinks.members import StorePlan
from tilestream.sinks.store import scaled_affine
from tilestream.stream.attempts import RunningStage
from tilestream.stream.batches import iter_batches, new_outcome
from tilestream.stream.dense import DenseStage
from tilestream.stream.densebatch import black_window, cut
from tilestream.stream.mapform import MapForm
from tilestream.stream.supply import RESERVE
from tilestream.types import (
    Array,
    Batch,
    Box,
    ClassBand,
    DeviceStage,
    ExampleStage,
    ImageInfo,
    Level,
    Stage,
    SuperTile,
)

SAMPLES = 4
"""Tiles that are run before all others: they show that the stage works, what it gives, and how well that packs."""
UNIT_BYTES = 12 * 4096**2
"""Most bytes of the pixels of a unit, as in an ingest; with many channels a unit has fewer pixels."""
LEAST_CHUNK_PX = 16
"""Edge of the smallest chunks."""
LEAST_TOLD = 0.02
"""Share of work that is done more than once from which on users are told."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a stage gives for some tiles of an image."""

    maps: tuple[Array, ...]
    """`(k, y, x)` each."""

    @property
    def batch(self) -> Array:
        """Return the first of them as a batch of one."""
        return self.maps[0][None]


def sample_maps(pyramid: Pyramid, stage: Stage, grid: DenseGrid) -> Sample:
    """Return the maps of a few tiles that lie all over the image.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    stage : Stage
        What to run.
    grid : DenseGrid
        All tiles.

    Returns
    -------
    Sample
        At least one map: of a black tile where none can be decoded, and the stage's own example where it has one.

    Raises
    ------
    StageError
        When the stage raises, or gives other than a map of each tile.
    """
    if isinstance(stage, ExampleStage):
        return Sample(maps=tuple(stage.example(black_window(pyramid.info, grid.window_px))))
    tiles = grid.tiles(Box(y=0, x=0, height=grid.shape.y, width=grid.shape.x))
    rows = (
        sorted({int((0.5 + number * STEP_YX[0]) % 1 * len(tiles)) for number in range(SAMPLES)}) if len(tiles) else []
    )
    edge, size = grid.plan.grid.tile_px + 2 * grid.plan.grid.halo_px, grid.window_px
    unit = SuperTile(
        plan="", level=grid.plan.level, iy=0, ix=0, first_row=0, tile_yx=tiles.window_yx[rows], tile_px=edge
    )
    running = RunningStage(name=stage.contract.name, stage=stage, accept=lambda found, batch: np.asarray(found))
    maps: list[Array] = []
    if rows:
        for batch in iter_batches(pyramid, unit, batch=1, outcome=new_outcome(unit)):
            done = running.finish(running.start(cut(batch, size)))
            maps.extend(one.found[0] for one in done if one.found is not None)
    black = black_window(pyramid.info, size)
    if not maps:
        running.require(black)
        maps.extend(done.found[0] for done in running.finish(running.start(black)) if done.found is not None)
    _require_one_a_tile(stage, black)
    return Sample(maps=tuple(maps))


def _require_one_a_tile(stage: Stage, black: Batch) -> None:
    """Raise where a stage gives other than two maps of two black tiles: in halves it would do, tile by tile.

    What else it raises, be it for want of memory, is told of the tiles of the run.
    """
    memory = np.concatenate([black.pixels.transpose(0, 2, 3, 1)] * 2)
    two = replace(
        black,
        pixels=memory.transpose(0, 3, 1, 2),
        valid_share=np.repeat(black.valid_share, 2),
        rows=np.arange(2),
        tile_yx=np.repeat(black.tile_yx, 2, axis=0),
    )
    try:
        shape = np.shape(stage.start(two)() if isinstance(stage, DeviceStage) else stage(two))
    except StageError:  # of the adapter, which looks at shapes too
        raise
    except Exception:  # noqa: BLE001 - a user's callable
        return
    if len(shape) != 4 or shape[0] != 2:
        raise StageError.of(
            f"stage `{stage.contract.name}`",
            got=f"shape {shape} for two black tiles {two.pixels.shape}",
            expected="a map of each tile, (2, channels, y, x)",
            do="Return `(n, channels, y, x)`, in the order of the tiles.",
        )


def chunk_edge(grid: DenseGrid, pixel_bytes: int) -> int:
    """Return the edge of chunks: a unit is about a super-tile of the plan, and of whole tiles where that can be.

    Parameters
    ----------
    grid : DenseGrid
        The tiles.
    pixel_bytes : int
        Bytes of a pixel of the map with all channels.

    Returns
    -------
    int
        Pixels of the map. Where no edge makes units of whole tiles, those on their borders are computed twice.
    """
    by_memory = math.isqrt(UNIT_BYTES // pixel_bytes) // CHUNKS
    wanted = max(LEAST_CHUNK_PX, min(grid.plan.super_tile_px // (CHUNKS * grid.stride), by_memory))
    step = grid.plan.grid.step_px
    whole = step // math.gcd(step, CHUNKS * grid.stride)
    return wanted // whole * whole or wanted


def map_info(image: ImageInfo, grid: DenseGrid, form: MapForm, *, fingerprint: str) -> ImageInfo:
    """Return what a map is, as an image of its own.

    Parameters
    ----------
    image : ImageInfo
        What it was made of.
    grid : DenseGrid
        Its tiles.
    form : MapForm
        How it is stored.
    fingerprint : str
        Digest of all that it is a function of.

    Returns
    -------
    ImageInfo
        In the place of the image, at its own resolution.
    """
    cell, mpp_yx = grid.cell_yx, grid.plan.mpp_yx
    if mpp_yx is not None:
        mpp_yx = mpp_yx[0] * grid.stride, mpp_yx[1] * grid.stride
    names = ClassBand(name=form.name, values=dict(enumerate(form.classes)))
    return replace(
        image,
        format="tilestream-map",
        levels=(Level(index=0, shape=grid.shape, block=grid.shape),),
        dtype=form.stored,
        channels=form.channels,
        fingerprint=fingerprint,
        kind=form.kind,
        modality="scene" if image.modality == "scene" else "unknown",
        mpp_yx=mpp_yx,
        affine=None if image.affine is None else scaled_affine(image.affine, cell),
        gcps=tuple((row / cell[0], column / cell[1], x, y, z) for row, column, x, y, z in image.gcps),
        nodata=form.void,
        validity="mask" if form.void is None else "nodata",
        content=None,
        associated=(),
        classes=(names,) if form.classes else (),
        absent={},
        derived=(*image.derived, f"map {form.name}"),
    )


def map_layout(info: ImageInfo, grid: DenseGrid) -> StoreLayout:
    """Return the arrays of a map.

    Parameters
    ----------
    info : ImageInfo
        The map.
    grid : DenseGrid
        Its tiles.

    Returns
    -------
    StoreLayout
        All levels are made.
    """
    edge = chunk_edge(grid, len(info.channels) * info.dtype.itemsize)
    return made_layout(info, edge_px=edge, cell_yx=grid.cell_yx)


def overhead(grid: DenseGrid, layout: StoreLayout) -> tuple[float, float]:
    """Return what is computed more than the cores of the tiles, as shares of these.

    Parameters
    ----------
    grid : DenseGrid
        The tiles.
    layout : StoreLayout
        The units of work.

    Returns
    -------
    halo : float
        Pixels around the cores.
    borders : float
        Tiles on the border of two units, which both compute.
    """
    plan, tiles = StorePlan(layout=layout), len(grid.plan)
    computed = sum(len(grid.tiles(plan.box(unit))) for unit in plan.tier(0))
    return grid.window_px.area / min(grid.window_px.area, grid.plan.grid.step_px**2) - 1, computed / max(1, tiles) - 1


def project_map(
    pyramid: Pyramid, dense: DenseStage, layout: StoreLayout, sample: Sample, *, decoders: int = 0
) -> Projected:
    """Return the bytes that a map will take and its making will hold.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    dense : DenseStage
        What makes the map.
    layout : StoreLayout
        Its arrays.
    sample : Sample
        From which is told how well it packs.
    decoders : int
        Threads that decode ahead for a task.

    Returns
    -------
    Projected
        Of one store.
    """
    grid, form, plan = dense.grid, dense.form, dense.grid.plan
    pixel = layout.channels * layout.dtype.itemsize
    parts = [form.encoded(np.nan_to_num(one) if form.given.kind == "f" else one) for one in sample.maps]
    packed = sum(len(encode_pixels(np.ascontiguousarray(part), layout.levels[0].codecs)) for part in parts)
    area = len(plan) * (plan.grid.tile_px // grid.stride) ** 2
    share = packed / sum(part.nbytes for part in parts)
    window, tiles = grid.window_px.area, (layout.unit_px * grid.stride // plan.grid.step_px + 2) ** 2
    batch = min(dense.batch, tiles) * window
    sums = layout.unit_px * (grid.window_px.y // grid.stride) * (8 * form.planes + 4) if grid.is_blended else 0
    block, stored = pyramid.levels[plan.level.stored].block, len(pyramid.channels) * pyramid.dtype.itemsize + 1
    ratio_y, ratio_x = (float(ratio) for ratio in plan.level.ratio_yx)
    strips = int(
        (grid.window_px.y * ratio_y + 2 * block.y) * (layout.unit_px * grid.stride * ratio_x + 2 * block.x) * stored
    )
    task = int(layout.unit_px**2 * (pixel + 1) * COARSE) + strips + sums
    task += strips * max(0, decoders - 1) + batch * stored * (decoders + RESERVE if decoders else 1)
    task += batch // grid.stride**2 * (form.planes * form.given.itemsize * 2 + 1)
    return Projected(store_bytes=int(area * pixel * share * COARSE), task_bytes=task)


def told_overhead(halo: float, borders: float) -> tuple[str, ...]:
    """Return the note of what is computed more than once, none where it is next to nothing."""
    if max(halo, borders) < LEAST_TOLD:
        return ()
    return (
        f"computed more than once: {halo:.0%} of all pixels as halo, {max(0, borders):.0%} of all tiles on borders",
    )
