"""Tiles of a super-tile, decoded, checked and gathered into batches."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.cache import RecentBlocks
from tilestream.plan.planned import require_plan
from tilestream.plan.tiles import TilePlan
from tilestream.plan.tokenplan import TokenPlan
from tilestream.pyramid.filled import Filled
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sources.warming import warm
from tilestream.stream.unitarea import area_of, area_of_listed, band_bytes, boxes_to_warm, grown
from tilestream.types import Array, Batch, Box, SuperTile, TileStatus


@dataclass
class Outcome:
    """What became of the tiles of one unit; filled while its batches are taken."""

    status: npt.NDArray[np.uint8]
    """`(n,)` `TileStatus` by row of the unit."""
    valid_share: npt.NDArray[np.float32]
    """`(n,)` share of valid pixels in each core."""
    damaged: dict[str, list[int]] = field(default_factory=dict)
    """Reason → feature rows."""
    failed: dict[str, list[int]] = field(default_factory=dict)
    """Stage and reason → feature rows of tiles on which it raised or gave no numbers."""

    def fail(self, reason: str, rows: Iterable[int]) -> None:
        """Record tiles on which a stage has failed."""
        for row in rows:
            self.failed.setdefault(reason, []).append(row)


def new_outcome(unit: SuperTile) -> Outcome:
    """Return the outcome of a unit of which nothing is known yet."""
    n = len(unit.tile_yx)
    return Outcome(status=np.zeros(n, np.uint8), valid_share=np.zeros(n, np.float32))


Allocate: TypeAlias = Callable[[int], npt.NDArray[np.uint8]]
"""Returns so many bytes of memory."""


def plain_memory(nbytes: int) -> npt.NDArray[np.uint8]:
    """Return memory of the host with arbitrary content."""
    return np.empty(nbytes, np.uint8)


class Slots:
    """Memory for one batch that is used again and again: fresh pages would cost as much as copying does.

    Parameters
    ----------
    allocate : callable
        Gives the memory of pixels; a device copies best from its own kind.
    """

    def __init__(self, allocate: Allocate = plain_memory) -> None:
        self._allocate = allocate
        self._pixels: Array = np.empty(0, np.uint8)
        self._valid: npt.NDArray[np.bool_] = np.empty(0, np.bool_)
        self._used: list[slice] = []

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return pixels `(n, h, w, c)` with arbitrary content and validity `(n, h, w)`, all True."""
        nbytes, flags = math.prod(shape) * dtype.itemsize, math.prod(shape[:3])
        if self._pixels.size < nbytes:
            self._pixels = self._allocate(nbytes)
        if self._valid.size < flags:
            self._valid, self._used = np.ones(flags, np.bool_), []
        # Only what was touched: most tiles are valid throughout, and setting all of it costs as much as it is large.
        for part in self._used:
            self._valid[part] = True
        self._used.clear()
        return self._pixels[:nbytes].view(dtype).reshape(shape), self._valid[:flags].reshape(shape[:3])

    def touch(self, slot: int, area: int) -> None:
        """Note that the validity of a tile of so many pixels was written."""
        self._used.append(slice(slot * area, (slot + 1) * area))


_thread = threading.local()


def spare_blocks() -> list[Array]:
    """Return this thread's memory of earlier blocks, see `RecentBlocks`."""
    if not hasattr(_thread, "spare"):
        _thread.spare = []
    spare: list[Array] = _thread.spare
    return spare


class UnitReader:
    """Decodes tiles of one unit in row order, for one thread.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    unit : SuperTile
        Which tiles.
    outcome : Outcome
        Filled on the way.
    part : range, optional
        Which of the unit's tiles will be asked for; all by default.
    """

    def __init__(self, pyramid: Pyramid, unit: SuperTile, outcome: Outcome, part: range | None = None) -> None:
        self._pyramid = pyramid
        self._unit = unit
        self._outcome = outcome
        self._corners: list[tuple[int, int]] = unit.tile_yx.tolist()
        self._origins: list[tuple[int, int]] | None = None
        rows = slice(None) if part is None else slice(part.start, part.stop)
        if unit.corner_yx is None:
            area = area_of(unit, unit.tile_yx[rows])
        else:
            stored_yx = np.rint(unit.corner_yx / pyramid.levels[unit.level.stored].scale_yx).astype(np.int64)
            self._origins = stored_yx.tolist()
            area = area_of_listed(unit, stored_yx[rows])
        for wanted in boxes_to_warm(unit, area, unit.tile_yx[rows]):
            warm(pyramid.source, grown(wanted, unit))
        shared = band_bytes(pyramid, unit.level, edge_px=unit.tile_px + 2 * unit.halo_px, width_px=area.width)
        self._recent = RecentBlocks(area, spare_blocks()) if shared else None
        # tiles off the grid would be taken for their neighbours by what a device keeps
        may_keep = pyramid.state and pyramid.cache_bytes and unit.corner_yx is None
        self._source = f"{pyramid.identity}#{unit.level!r}" if may_keep else ""

    def read(self, first: int, stop: int, slots: Slots) -> Batch | None:
        """Return the tiles from `first` to `stop` that can be decoded and hold a valid pixel, None for none.

        Parameters
        ----------
        first, stop : int
            Rows of the unit.
        slots : Slots
            Memory of the batch.

        Returns
        -------
        Batch or None
            Views of the memory of `slots`.
        """
        unit, pyramid = self._unit, self._pyramid
        edge_px = unit.tile_px + 2 * unit.halo_px
        pixels, valid = slots.take((stop - first, edge_px, edge_px, len(pyramid.channels)), pyramid.dtype)
        kept, is_whole = [], True
        for slot in range(stop - first):
            try:
                found = self._fill(first + slot, pixels[slot], valid[slot])
            except BaseException:  # an error of the file system may leave it half written
                slots.touch(slot, edge_px * edge_px)
                raise
            if not found.is_whole:
                slots.touch(slot, edge_px * edge_px)
            if self._judge(first + slot, found, valid[slot]):
                kept.append(slot)
                is_whole &= found.is_whole
        if not kept:
            return None
        filled = pixels, None if is_whole else valid
        return replace(_gather(unit, first, np.asarray(kept), filled, self._outcome), source=self._source)

    def _fill(self, row: int, pixels: Array, valid: npt.NDArray[np.bool_]) -> Filled:
        unit, level = self._unit, self._unit.level
        halo, edge = unit.halo_px, unit.tile_px + 2 * unit.halo_px
        if self._origins is not None:
            return self._fill_listed(self._origins, row, pixels, valid)
        y, x = self._corners[row]
        if row and y > self._corners[row - 1][0]:
            first_row = int((y - halo) * level.ratio_yx[0] // 1)
            self._forget_above(first_row // self._pyramid.levels[level.stored].block.y)
        box = Box(level=level.stored, y=y - halo, x=x - halo, height=edge, width=edge)
        return self._pyramid.read_plan(level, box, pixels, valid, recent=self._recent)

    def _fill_listed(
        self, origins: list[tuple[int, int]], row: int, pixels: Array, valid: npt.NDArray[np.bool_]
    ) -> Filled:
        unit, level = self._unit, self._unit.level
        halo, edge = unit.halo_px, unit.tile_px + 2 * unit.halo_px
        if row and origins[row][0] > origins[row - 1][0]:
            first_row = origins[row][0] - math.ceil(halo * level.ratio_yx[0])
            self._forget_above(first_row // self._pyramid.levels[level.stored].block.y)
        box = Box(level=level.stored, y=-halo, x=-halo, height=edge, width=edge)
        return self._pyramid.read_plan(level, box, pixels, valid, recent=self._recent, origin_yx=origins[row])

    def _judge(self, row: int, filled: Filled, valid: npt.NDArray[np.bool_]) -> bool:
        """Record what became of a tile, and return whether it is for the stages."""
        unit, outcome = self._unit, self._outcome
        if filled.is_whole:
            outcome.valid_share[row] = 1.0
            return True
        if filled.damage:
            # Damage in the halo counts too: a stage would see it.
            outcome.status[row] = TileStatus.DAMAGED
            outcome.damaged.setdefault("; ".join(filled.damage), []).append(unit.first_row + row)
            return False
        halo = unit.halo_px
        core = valid[halo : halo + unit.tile_px, halo : halo + unit.tile_px]
        share = outcome.valid_share[row] = np.count_nonzero(core) / core.size
        if not share:
            outcome.status[row] = TileStatus.EMPTY
        return bool(share)

    def _forget_above(self, iy: int) -> None:
        if self._recent is not None:
            self._recent.forget_above(iy)

    def close(self) -> None:
        """Give the memory of blocks back."""
        if self._recent is not None:
            self._recent.forget_all()


def iter_batches(
    pyramid: Pyramid, unit: SuperTile, *, batch: int, outcome: Outcome, slots: Slots | None = None
) -> Iterator[Batch]:
    """Yield the tiles of a unit that can be decoded and hold a valid pixel.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    unit : SuperTile
        Which tiles.
    batch : int
        Most tiles in a batch.
    outcome : Outcome
        Filled on the way; complete when the iterator is exhausted.
    slots : Slots, optional
        Memory to use again: a batch is then overwritten by the next one.

    Yields
    ------
    Batch
        Owns its memory unless `slots` are given; pixels `(n, c, h, w)` in the image's dtype.

    Notes
    -----
    Memory is that of one batch plus the blocks that the cache holds.
    """
    reader, count = UnitReader(pyramid, unit, outcome), len(unit.tile_yx)
    try:
        for first in range(0, count, batch):
            found = reader.read(first, min(first + batch, count), slots or Slots())
            if found is not None:
                yield found
    finally:
        reader.close()


def _gather(
    unit: SuperTile,
    first: int,
    kept: npt.NDArray[np.int64],
    filled: tuple[Array, npt.NDArray[np.bool_] | None],
    outcome: Outcome,
) -> Batch:
    """Return the batch of the slots that are kept; their validity is None where nothing has to look at it."""
    pixels, valid = filled
    if len(kept) < len(pixels):
        pixels, valid = pixels[kept], None if valid is None else valid[kept]
    rows = kept + first
    return Batch(
        pixels=pixels.transpose(0, 3, 1, 2),
        valid=None if valid is None or valid.all() else valid,
        valid_share=outcome.valid_share[rows],
        rows=rows + unit.first_row,
        tile_yx=unit.tile_yx[rows],
        halo_px=unit.halo_px,
    )


def stream_tiles(
    pyramid: Pyramid, plan: TilePlan | TokenPlan, *, batch: int = 64, reuse: bool = False
) -> Iterator[Batch]:
    """Yield the tiles of a plan in batches, one unit after the other, in this thread.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    plan : TilePlan or TokenPlan
        Which tiles.
    batch : int
        Most tiles in a batch.
    reuse : bool
        Whether each batch may overwrite the one before: saves a tenth of the time where a batch is used up at once.

    Yields
    ------
    Batch
        Decodable tiles only.

    Raises
    ------
    ConfigError
        When the plan is of another image.
    """
    require_plan("stream_tiles", pyramid, plan)
    slots = Slots() if reuse else None
    for unit in plan.start():
        yield from iter_batches(pyramid, unit, batch=batch, outcome=new_outcome(unit), slots=slots)
