"""The chunks under changed boxes, made and replaced level by level."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from threading import Lock
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError
from tilestream.pipelines.ingest_finish import FinishStore
from tilestream.pyramid.pyramid import Pyramid
from tilestream.pyramid.supertile import read_base
from tilestream.sinks.layout import CHUNKS, TIER, StoreLevel
from tilestream.sinks.members import StoreUnit
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sources.encoded import read_encoded
from tilestream.types import Array, Box, Shape

Readers: TypeAlias = dict[tuple[str, int], Pyramid]
"""What is stored of some levels, by the prefix of their image and the level."""

REACH_PX = 4
"""How far beyond a change the levels of a source may differ: their makers filter with kernels of that half width."""
THREADS = 2
"""Units that are patched at once."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Replaces what lies under changed boxes of a store that is in its place."""

    finish: FinishStore
    """Knows the image, the arrays and where they lie."""
    boxes: tuple[Box, ...]
    """In pixels of level 0."""
    written: set[str]
    """Paths of what the store says was written; kept up to date."""
    _seen: set[tuple[int, int, int]] = field(default_factory=set)
    _damage: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def apply(self, before: Sequence[str]) -> list[str]:
        """Return the reason of each damaged block of the store, after all chunks are replaced.

        Parameters
        ----------
        before : sequence of str
            Reasons that the store had.

        Returns
        -------
        list of str
            Those of blocks that were not read now, and those of blocks that were.
        """
        plan = self.finish.work.image.plan
        with ThreadPoolExecutor(THREADS) as pool:
            for level in plan.layout.levels:
                if level.copied is not None:
                    list(pool.map(lambda group, level=level: self._copy(level, group), self._cells(level)))
            for tier in plan.tiers:
                readers: Readers = {}  # anew for each: what they read is what the one before has changed
                list(pool.map(lambda job, readers=readers: self._make(*job, readers=readers), self._jobs(tier)))
        kept = [reason for reason in before if _block(reason) not in self._seen]
        return sorted({*kept, *self._damage})

    def _jobs(self, tier: int) -> Iterator[tuple[StoreUnit, Box]]:
        """Yield the units of a tier that a box touches, with what is to be made anew of each."""
        plan = self.finish.work.image.plan
        if not plan.made(tier):
            return
        edge, factor = plan.layout.unit_px, 2 ** (TIER * tier)
        # the base of further tiers is read from whole pixels of the coarsest level that is made of it
        step = edge // CHUNKS if not tier else 2**TIER
        found: dict[tuple[int, int], Box] = {}
        base = plan.layout.base(tier)
        # a base that is a level of the source differs a little beyond the change, and so does what is made of it
        reach = REACH_PX if base is not None and plan.layout.levels[base].copied else 0
        reach += self.finish.work.reducer.reach_px
        for box in self.boxes:
            area = _divided(box, factor).grow(reach)
            for iy, ix in _touched(area, Shape(y=edge, x=edge), plan.grid(tier)):
                unit = StoreUnit(step="make", level=plan.layout.base(tier) or 0, tier=tier, iy=iy, ix=ix)
                inside = _aligned(area, Shape(y=step, x=step)).intersect(plan.box(unit))
                if inside.height and inside.width:
                    found[iy, ix] = _around(found.get((iy, ix), inside), inside)
        for (iy, ix), region in sorted(found.items()):
            yield StoreUnit(step="make", level=plan.layout.base(tier) or 0, tier=tier, iy=iy, ix=ix), region

    def _make(self, unit: StoreUnit, region: Box, *, readers: Readers) -> None:
        work = self.finish.work
        for member in (work.image, *work.labels):
            wide = work.around(member, unit.tier, region)
            base = work.base(member, unit.tier, wide, readers)
            levels = member.plan.made(unit.tier)
            if member is work.image and not unit.tier:
                self._note(wide, base.damage)
            for times, made in enumerate(work.levels(member, unit.tier, base, region)):
                if times not in levels:
                    continue
                area = _divided(region, 2**times)
                self._put(member.writer, levels[times], area, made.pixels, readers)
                if member is work.image and base.void is None:
                    self._put_mask(levels[times], area, made.valid, readers)

    def _put(self, writer: LevelWriter, level: StoreLevel, area: Box, pixels: Array, readers: Readers) -> None:
        """Put pixels into the chunks of a level; what a chunk holds besides them stays."""
        whole = _aligned(area, level.chunk).intersect(Box(y=0, x=0, height=level.shape.y, width=level.shape.x))
        if whole != area:
            around = self._around(writer, level, whole, readers)
            y, x = area.y - whole.y, area.x - whole.x
            around[y : y + area.height, x : x + area.width] = pixels
            pixels = around
        self._replace(writer, level, writer.chunks_of(level, whole, pixels))

    def _replace(self, writer: LevelWriter, level: StoreLevel, chunks: Mapping[tuple[int, int], bytes | None]) -> None:
        for name, is_there in writer.replace(level, chunks, written=self.written).items():
            with self._lock:
                self.written.discard(name)
                self.written.update({name} if is_there else ())

    def _around(self, writer: LevelWriter, level: StoreLevel, whole: Box, readers: Readers) -> Array:
        """Return what is stored of a box; no two threads ask for the same, so that no lock is needed."""
        work = self.finish.work
        if writer.prefix == work.mask.prefix and not work.has_mask(level.index):
            return np.ones((whole.height, whole.width, 1), np.uint8)
        key = writer.prefix, level.index
        if key not in readers:
            readers[key] = work.stored(writer, level.index)
        return read_base(readers[key], whole).pixels

    def _put_mask(self, level: StoreLevel, area: Box, valid: npt.NDArray[np.bool_] | None, readers: Readers) -> None:
        mask = self.finish.work.mask
        own = mask.layout.levels[level.index]
        if valid is None:
            name = mask.name(own, area.y // own.shard.y, area.x // own.shard.x)
            if own.chunks and mask.layout.has_shards and not mask.place.exists(name):
                return  # nothing there was ever invalid
            valid = np.ones((area.height, area.width), np.bool_)
        self._put(mask, own, area, valid.view(np.uint8)[..., None], readers)

    def _cells(self, level: StoreLevel) -> list[list[tuple[int, int]]]:
        """Return the cells of a copied level that a box touches, one list a shard."""
        scale_y, scale_x = level.scale_yx
        grid = Shape(y=-(-level.shape.y // level.chunk.y), x=-(-level.shape.x // level.chunk.x))
        groups: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for box in self.boxes:
            y, x = int(box.y / scale_y), int(box.x / scale_x)
            area = Box(
                y=y,
                x=x,
                height=int(-(-box.y_stop // scale_y)) - y,
                width=int(-(-box.x_stop // scale_x)) - x,
            ).grow(REACH_PX if level.copied else 0)
            for iy, ix in _touched(area, level.chunk, grid):
                groups.setdefault((iy // level.chunks, ix // level.chunks), set()).add((iy, ix))
        return [sorted(cells) for _, cells in sorted(groups.items())]

    def _copy(self, level: StoreLevel, cells: list[tuple[int, int]]) -> None:
        work = self.finish.work
        pyramid, copied = work.image.pyramid, level.copied or 0
        found = read_encoded(pyramid.source, copied, [(0, iy, ix) for iy, ix in cells])
        chunks = dict(zip(cells, found, strict=True))
        damage = tuple(
            f"block y={iy} x={ix} of level {copied}: {chunk}"
            for (iy, ix), chunk in chunks.items()
            if isinstance(chunk, DamagedError)
        )
        with self._lock:
            self._seen.update((copied, iy, ix) for iy, ix in cells)
            self._damage.extend(damage)
        writer = work.image.writer
        plain = {
            cell: writer.copied_chunk(level, chunk) if isinstance(chunk, bytes) else None
            for cell, chunk in chunks.items()
        }
        self._replace(writer, level, plain)
        for iy, ix in cells:
            area = Box(y=iy * level.chunk.y, x=ix * level.chunk.x, height=level.chunk.y, width=level.chunk.x).intersect(
                Box(y=0, x=0, height=level.shape.y, width=level.shape.x)
            )
            valid = None
            if pyramid.info.validity == "mask" or isinstance(chunks[iy, ix], DamagedError):
                box = Box(level=copied, y=area.y, x=area.x, height=area.height, width=area.width)
                valid = read_base(pyramid, box).valid
            self._put_mask(level, area, valid, {})  # whole chunks: nothing has to be read

    def _note(self, region: Box, damage: Sequence[str]) -> None:
        """Remember which blocks of the source were looked at, and what was found."""
        level = self.finish.work.image.pyramid.levels[0]
        with self._lock:
            self._seen.update((0, iy, ix) for iy, ix in _touched(region, level.block, level.blocks))
            self._damage.extend(damage)


def _block(reason: str) -> tuple[int, int, int] | None:
    """Return level, row and column of the block that a reason is about."""
    match = re.match(r"block y=(\d+) x=(\d+) of level (\d+): ", reason)
    return None if match is None else (int(match[3]), int(match[1]), int(match[2]))


def _divided(box: Box, factor: int) -> Box:
    y, x = box.y // factor, box.x // factor
    return Box(y=y, x=x, height=-(-box.y_stop // factor) - y, width=-(-box.x_stop // factor) - x)


def _aligned(box: Box, step: Shape) -> Box:
    y, x = box.y // step.y * step.y, box.x // step.x * step.x
    y_stop, x_stop = -(-box.y_stop // step.y) * step.y, -(-box.x_stop // step.x) * step.x
    return Box(y=y, x=x, height=y_stop - y, width=x_stop - x)


def _around(one: Box, two: Box) -> Box:
    y, x = min(one.y, two.y), min(one.x, two.x)
    return Box(y=y, x=x, height=max(one.y_stop, two.y_stop) - y, width=max(one.x_stop, two.x_stop) - x)


def _touched(box: Box, step: Shape, grid: Shape) -> Iterator[tuple[int, int]]:
    """Return the cells of a grid that a box touches."""
    if not box.height or not box.width:
        return iter(())
    rows = range(max(0, box.y // step.y), min(grid.y, -(-box.y_stop // step.y)))
    columns = range(max(0, box.x // step.x), min(grid.x, -(-box.x_stop // step.x)))
    return product(rows, columns)
