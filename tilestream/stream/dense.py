"""A part of a map: the tiles that count in it, run through a stage and put together."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tilestream.metrics import timed
from tilestream.plan.dense import DenseGrid
from tilestream.pyramid.pyramid import Pyramid
from tilestream.pyramid.supertile import Base
from tilestream.stream import halt
from tilestream.stream.attempts import Done, RunningStage, Started, waited_for
from tilestream.stream.batches import Outcome, new_outcome
from tilestream.stream.blending import BlendStrip
from tilestream.stream.densebatch import black_window, cut, maps_of, some_of
from tilestream.stream.mapform import MapForm
from tilestream.stream.supply import decode_threads, supplied, usable_cores
from tilestream.stream.validity import Mask, eroded, finite, reduced
from tilestream.types import Array, Batch, Box, DeviceStage, Stage, SuperTile, TileStatus


@dataclass(frozen=True, kw_only=True)
class DenseStage:
    """A stage with all that decides its map of one image."""

    stage: Stage
    """Gives the maps of tiles."""
    grid: DenseGrid
    """Its tiles."""
    form: MapForm
    """How values are stored."""
    batch: int = 64
    """Most tiles that enter it together; changes no value."""


@dataclass(frozen=True, kw_only=True)
class DensePart:
    """What became of a box of a map."""

    base: Base
    """Its pixels as they are stored."""
    tiles: int
    """Tiles that it owns."""
    empty: int
    """Those without a valid pixel, which were not computed."""
    lost: int
    """Those of which the stage gave no valid value at all."""
    computed: int
    """Tiles that were computed, those that neighbours own included."""
    damaged: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Reason → numbers of its tiles that could not be decoded."""
    failed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Stage and reason → numbers of its tiles on which it raised, or gave values that are not finite."""

    @property
    def is_void(self) -> bool:
        """Return whether it holds nothing but what stands where there is no value: such parts are not stored."""
        valid = self.base.valid
        return self.base.void is not None and valid is not None and not valid.any()


def map_box(pyramid: Pyramid, dense: DenseStage, box: Box, *, tasks: int = sys.maxsize) -> DensePart:
    """Return a box of a map; its pixels are those that any larger box has there.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    dense : DenseStage
        What makes the map.
    box : Box
        In pixels of the map, inside it.
    tasks : int
        Tasks that share the cores of a machine; threads decode ahead on those that are left. By default none are.

    Returns
    -------
    DensePart
        Pixels and what became of the tiles.

    Raises
    ------
    StageError
        When the stage is broken, rather than some of the tiles.

    Notes
    -----
    Memory is that of the pixels, a byte for each of them, the batches that are decoded ahead and, blended, the sums of
    one row of tiles.
    """
    painting = _Painting(dense, box)
    outcome = new_outcome(painting.unit)
    if len(painting.tiles):
        _run(pyramid, dense, painting, outcome, tasks=tasks)
    return painting.finish(outcome)


def _run(pyramid: Pyramid, dense: DenseStage, painting: _Painting, outcome: Outcome, *, tasks: int) -> None:
    """Run the stage on all tiles; one on a device begins with a batch before that of the one before is put in."""
    size, stage = dense.grid.window_px, dense.stage
    running = RunningStage(name=dense.form.name, stage=stage, accept=maps_of(dense.form, dense.grid.stride))
    device = stage if running.is_on_device and isinstance(stage, DeviceStage) else None
    threads = decode_threads(cores=usable_cores(), tasks=tasks, on_device=device is not None)
    if dense.grid.is_blended:
        threads = min(threads, 1)  # several come out of order, and a strip only moves down
    under_way: deque[tuple[Batch, list[Started]]] = deque()
    source = supplied(pyramid, painting.unit, outcome, batch=dense.batch, threads=threads, device=device)
    with source as supply, waited_for(under_way):
        while True:
            halt.look()
            batch = supply.take()
            if batch is not None:
                seen = painting.seen(cut(batch, size), outcome)
                under_way.append((batch, [running.start(seen)] if len(seen.rows) else []))
            if len(under_way) > (1 if device is not None and batch is not None else 0):
                oldest, begun = under_way[0]
                for done in (done for started in begun for done in running.finish(started)):
                    painting.take(done, outcome)
                under_way.popleft()
                supply.give_back(oldest)
            elif batch is None:
                break
    running.require_alive(black_window(pyramid.info, size))


class _Painting:
    """The pixels of a box while tiles are put into it."""

    def __init__(self, dense: DenseStage, box: Box) -> None:
        self.dense, self.box = dense, box
        self.tiles = dense.grid.tiles(box)
        self._pixels = np.empty((box.height, box.width, len(dense.form.channels)), dense.form.stored)
        self._valid = np.zeros(self._pixels.shape[:2], np.bool_)
        self._computed = 0
        self._lost: list[int] = []
        self._strip = self._new_strip() if dense.grid.is_blended else None

    @property
    def unit(self) -> SuperTile:
        """Return the windows as tiles without a halo, since those at the edge of the image lie beside their core."""
        plan = self.dense.grid.plan
        edge = plan.grid.tile_px + 2 * plan.grid.halo_px
        return SuperTile(plan="", level=plan.level, iy=0, ix=0, first_row=0, tile_yx=self.tiles.window_yx, tile_px=edge)

    def seen(self, batch: Batch, outcome: Outcome) -> Batch:
        """Return the tiles of a batch of which the core has a valid pixel; the others are empty."""
        if batch.valid is None:
            return batch
        pairs = zip(batch.rows.tolist(), batch.valid, strict=True)
        seen = np.array([one[self._core(row)].any() for row, one in pairs], np.bool_)
        outcome.status[batch.rows[~seen]] = TileStatus.EMPTY
        return some_of(batch, seen)

    def take(self, done: Done, outcome: Outcome) -> None:
        """Put the maps of some tiles into the box, or note that there are none."""
        if done.found is None:
            rows = done.batch.rows.tolist()
            outcome.fail(f"`{self.dense.form.name}`: {done.reason}", rows)
            self._lost += rows
        else:
            self._put_all(done.batch, done.found, outcome)

    def _put_all(self, batch: Batch, found: Array, outcome: Outcome) -> None:
        stride, contract = self.dense.grid.stride, self.dense.stage.contract
        self._computed += len(found)
        with timed("paste"):
            valid = None if batch.valid is None else reduced(eroded(batch.valid, contract.void_px), stride)
            known = finite(found)
            for slot, row in enumerate(batch.rows.tolist()):
                one = None if valid is None else valid[slot]
                if known is not None:
                    one = self._finite(known[slot], one, row, outcome)
                self._put(found[slot], one, row)

    def finish(self, outcome: Outcome) -> DensePart:
        """Return the box when all tiles are in it."""
        if self._strip is not None:
            self._strip.finish()
        form, tiles = self.dense.form, self.tiles
        is_whole = bool(self._valid.all())
        if not is_whole:
            void = 0 if form.void is None else form.void
            # not by an index of what is not valid, which takes 17 bytes a pixel
            np.copyto(self._pixels, void, where=~self._valid[:, :, None], casting="unsafe")
        return DensePart(
            base=Base(
                pixels=self._pixels, valid=None if is_whole else self._valid, void=form.void, kind=form.kind,
                damage=tuple(outcome.damaged),
            ),
            tiles=int(tiles.owned.sum()),
            empty=int(np.count_nonzero(tiles.owned & (outcome.status == TileStatus.EMPTY))),
            lost=int(tiles.owned[self._lost].sum()),
            computed=self._computed,
            damaged=self._owned(outcome.damaged),
            failed=self._owned(outcome.failed),
        )  # fmt: skip

    def _owned(self, found: Mapping[str, list[int]]) -> dict[str, tuple[int, ...]]:
        """Return the numbers of the box's own tiles among some rows by reason."""
        tiles = self.tiles
        owned = {reason: [row for row in rows if tiles.owned[row]] for reason, rows in found.items()}
        return {reason: tuple(tiles.number[rows].tolist()) for reason, rows in owned.items() if rows}

    def _new_strip(self) -> BlendStrip:
        grid, used = self.dense.grid, self.tiles.used
        rows = int((used[:, 0, 1] - used[:, 0, 0]).max(initial=grid.stride)) // grid.stride
        feather = grid.feather_px // grid.stride
        return BlendStrip(self.dense.form, self.box, rows=rows, feather_px=feather, done=self._put_blended)

    def _core(self, row: int, stride: int = 1) -> tuple[slice, slice]:
        """Return where the core of a tile lies in its window, in squares of `stride` pixels."""
        inside = (self.tiles.core[row] - self.tiles.window_yx[row][:, None]) // stride
        (y0, y1), (x0, x1) = inside.tolist()
        return slice(y0, y1), slice(x0, x1)

    def _finite(self, known: Mask, valid: Mask | None, row: int, outcome: Outcome) -> Mask:
        """Return where a tile is valid and finite, and note the tile where the two differ."""
        lost, kept = (~known, known) if valid is None else (~known & valid, known & valid)
        core = self._core(row, self.dense.grid.stride)
        if lost[core].any():
            outcome.fail(f"`{self.dense.form.name}`: values that are not finite", [row])
            self._lost += [] if kept[core].any() else [row]
        return kept

    def _put(self, values: Array, valid: Mask | None, row: int) -> None:
        """Put the map of one tile, `(k, y, x)`, where it counts."""
        stride, box, tiles = self.dense.grid.stride, self.box, self.tiles
        top, left = (tiles.window_yx[row] // stride).tolist()
        (y0, y1), (x0, x1) = (tiles.core[row] // stride).tolist()
        y0, y1, x0, x1 = max(y0, box.y), min(y1, box.y_stop), max(x0, box.x), min(x1, box.x_stop)
        if y0 < y1 and x0 < x1:
            inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            target = slice(y0 - box.y, y1 - box.y), slice(x0 - box.x, x1 - box.x)
            self._valid[target] = True if valid is None else valid[inside]
            if self._strip is None:
                self._pixels[target] = self._encoded(values[:, *inside], self._valid[target])
        if self._strip is not None:
            (y0, y1), (x0, x1) = (tiles.used[row] // stride).tolist()
            used = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            self._strip.add(values[:, *used], None if valid is None else valid[used], y=y0, x=x0)

    def _put_blended(self, y: int, values: Array, valid: Mask) -> None:
        rows = slice(y - self.box.y, y - self.box.y + values.shape[1])
        self._pixels[rows] = self._encoded(values, valid)
        # only where the tile over a pixel was computed: what its neighbours see of it in their halo is not its value
        self._valid[rows] &= valid

    def _encoded(self, values: Array, valid: Mask) -> Array:
        form = self.dense.form
        if form.classes and not valid.all():
            values = np.where(valid, values, 0)  # what is not valid may be no class
        return form.encoded(values)
