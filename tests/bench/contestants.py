"""What the supply benchmarks run: our reading, OpenSlide's, the bare decoder, the engine with nothing to compute."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import tifffile
from distributed import Client

from tilestream.plan.tiles import TilePlan, plan_tiles
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.batches import stream_tiles
from tilestream.stream.engine import Engine, Event, Prepared
from tilestream.stream.journal import Journal
from tilestream.stream.work import TileWork
from tilestream.types import Array, Batch, ImageInfo, Receipt, StageContract, StageSpec, SuperTile

TILE_PX = 256


@dataclass(frozen=True)
class FirstUnits:
    """The first units of a plan, as a plan."""

    plan: TilePlan
    count: int

    @property
    def image(self) -> str:
        return self.plan.image

    @property
    def digest(self) -> str:
        return f"{self.plan.digest}-{self.count}"

    def __len__(self) -> int:
        return sum(len(unit.tile_yx) for unit in self.start())

    def start(self) -> Iterator[SuperTile]:
        return islice(self.plan.start(), self.count)

    def after(self, receipt: Receipt) -> Iterable[SuperTile]:
        return ()


def all_tiles(pyramid: Pyramid, tile_px: int = TILE_PX) -> TilePlan:
    """Return the plan of all tiles of level 0."""
    return plan_tiles(pyramid, tile_px=tile_px, where="all")


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this thread, and those it starts, on one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def supply_ours(pyramid: Pyramid, plan: FirstUnits) -> int:
    """Return how many tiles `stream_tiles` gave; each is touched."""
    return sum(int(batch.pixels[:, 0, 0, 0].size) for batch in stream_tiles(pyramid, plan, reuse=True))


def supply_openslide(path: Path, plan: FirstUnits) -> int:
    """Return how many of the same tiles `read_region` gave, its cache switched off."""
    tiles = 0
    with openslide.OpenSlide(path) as slide:
        slide.set_cache(openslide.OpenSlideCache(0))
        for unit in plan.start():
            for y, x in unit.tile_yx.tolist():
                slide.read_region((x, y), 0, (unit.tile_px, unit.tile_px))
                tiles += 1
    return tiles


@dataclass(frozen=True)
class BareDecoder:
    """The least that any program must do: read each stream at its offset and decode it into one buffer a thread."""

    path: Path
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    tables: bytes | None
    colorspace: int
    tile_px: int
    pixels: int

    @classmethod
    def open(cls, path: Path) -> BareDecoder:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return cls(
                path=path,
                offsets=np.asarray(page.dataoffsets, np.int64),
                lengths=np.asarray(page.databytecounts, np.int64),
                tables=page.jpegtables,
                colorspace=int(page.photometric),
                tile_px=page.tilewidth,
                pixels=page.imagewidth * page.imagelength,
            )

    def run(self, threads: int) -> int:
        """Return the pixels of the image after decoding every tile once."""
        workers = [threading.Thread(target=self._decode, args=(first, threads)) for first in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return self.pixels

    def _decode(self, first: int, step: int) -> None:
        buffer = np.empty((self.tile_px, self.tile_px, 3), np.uint8)
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            for offset, length in zip(
                self.offsets[first::step].tolist(), self.lengths[first::step].tolist(), strict=True
            ):
                stream = os.pread(descriptor, length, offset)
                imagecodecs.jpeg8_decode(
                    stream, tables=self.tables, colorspace=self.colorspace, outcolorspace=2, out=buffer
                )
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class NullStage:
    """Looks at one pixel of each tile and computes nothing."""

    @property
    def contract(self) -> StageContract:
        return StageContract(name="null", px=TILE_PX, dim=1)

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        return ("pixel",)

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        return batch.pixels[:, :1, 0, 0].astype(np.float32)


@dataclass(frozen=True)
class NullSink:
    """Stores nothing."""

    def write(self, unit: SuperTile, results: Mapping[str, Array]) -> Mapping[str, str]:
        return {}

    def finish(self, receipts: Iterable[Receipt]) -> None:
        return None


@dataclass(frozen=True)
class NullJob:
    """One image through the whole engine, receipts on disk included, with nothing to compute and nothing to store."""

    key: str
    pyramid: Pyramid
    plan: TilePlan
    folder: Path
    stage: str = "tests.bench.contestants:NullStage"

    def prepare(self) -> Prepared:
        journal = Journal(root=self.folder, recipe="benchmark")
        journal.open({"made": "by a benchmark"})
        work = TileWork(
            pyramid=self.pyramid, stages={"null": StageSpec(target=self.stage)}, sink=NullSink(), journal=journal
        )
        return Prepared(plan=self.plan, work=work, finish=_nothing)


def _nothing() -> None:
    return None


def run_engine(client: Client, pyramid: Pyramid, plan: TilePlan, **options: Any) -> list[Event]:
    """Return the events of one image that went through the engine."""
    events: list[Event] = []
    with TemporaryDirectory() as folder:
        Engine(client, events.append).run([NullJob("null", pyramid, plan, Path(folder) / "receipts", **options)])
    failed = [event.failure.reason for event in events if event.failure is not None]
    if failed:
        raise RuntimeError(failed[0])
    return events
