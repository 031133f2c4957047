"""What the engine costs: the main job on all tiles, beside a loop that only decodes and computes the same tiles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np
from distributed import Client

from tests.bench.bench_scaling import pin
from tests.bench.contestants import BareDecoder, all_tiles
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, placed
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.image import ImageJob
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.stream.engine import Engine, Event, Prepared, Ready
from tilestream.stream.work import make_stage
from tilestream.types import Batch, Shape, StageSpec

GIGAPIXELS = 1.0
OVERHEAD_BAR = 0.9
"""Of the bare loop's rate."""
CORES = 2
BATCH = 64


@lru_cache(maxsize=1)
def _decoder(path: Path) -> BareDecoder:
    return BareDecoder.open(path)


def bare_loop(path: Path, spec: StageSpec, batches: list[list[tuple[int, int]]]) -> int:
    """Return how many tiles were decoded into one buffer, batch by batch, and given to the stage."""
    bare, stage, done = _decoder(path), make_stage(spec), 0
    edge, columns = bare.tile_px, -(-open_pyramid(path).levels[0].shape.x // bare.tile_px)
    buffer = np.empty((BATCH, edge, edge, 3), np.uint8)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for corners in batches:
            for slot, (y, x) in zip(buffer, corners, strict=False):
                index = y // edge * columns + x // edge
                stream = os.pread(descriptor, int(bare.lengths[index]), int(bare.offsets[index]))
                imagecodecs.jpeg8_decode(
                    stream, tables=bare.tables, colorspace=bare.colorspace, outcolorspace=2, out=slot
                )
            n = len(corners)
            stage(
                Batch(
                    pixels=buffer[:n].transpose(0, 3, 1, 2),
                    valid=None,
                    valid_share=np.ones(n, np.float32),
                    rows=np.arange(n),
                    tile_yx=np.asarray(corners),
                )
            )
            done += n
    finally:
        os.close(descriptor)
    return done


def _batches(plan: Any) -> list[list[tuple[int, int]]]:
    """Return the corners of the tiles of each batch, as the engine forms them."""
    found = []
    for unit in plan.start():
        corners = [(y, x) for y, x in unit.tile_yx.tolist()]
        found += [corners[first : first + BATCH] for first in range(0, len(corners), BATCH)]
    return found


class BareWorkers:
    """As many processes as there are cores, each on its own, that run the bare loop."""

    def __init__(self, path: Path, spec: StageSpec, plan: Any) -> None:
        self._path, self._spec, self._work = path, spec, _batches(plan)
        self._cores = sorted(os.sched_getaffinity(0))[:CORES]
        self._pools = [ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in self._cores]
        for pool, core in zip(self._pools, self._cores, strict=True):
            pool.submit(pin, core).result()
            pool.submit(bare_loop, path, spec, self._work[:1]).result()  # compiles, or loads what was compiled

    def run(self) -> int:
        """Return how many tiles they did together."""
        started = [
            pool.submit(bare_loop, self._path, self._spec, self._work[first :: len(self._pools)])
            for first, pool in enumerate(self._pools)
        ]
        return sum(one.result() for one in started)

    def close(self) -> None:
        """End the processes."""
        for pool in self._pools:
            pool.shutdown()


@contextmanager
def pinned_workers() -> Iterator[Client]:
    """Yield a cluster of one process of one thread a core, each on its own."""
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    with open_client(f"local:{len(cores)}") as client:
        for worker, core in zip(sorted(client.nthreads()), cores, strict=True):
            client.run(pin, core, workers=[worker])
        yield client


def prepared(path: Path, out: Path, encoder: str, tile_px: int) -> Prepared:
    """Return the main job on one image as its workers get it, without its last step."""
    config = EmbedConfig(
        out=out,
        encoders=(EncoderChoice(name=encoder),),
        where="all",
        tile_px=tile_px,
        mpp=None,
        cache_bytes=0,
        batch=BATCH,
    )
    out.mkdir()
    (entry,) = read_cohort([str(path)], out=out).entries
    found = ImageJob(entry=placed(entry), config=config, tasks=1, machine_tasks=CORES).prepare()
    if not isinstance(found, Prepared):
        raise RuntimeError(f"nothing to do: {found}")
    return Prepared(plan=found.plan, work=found.work, finish=_nothing, facts=found.facts)


def _nothing() -> None:
    return None


def overhead_row(path: Path, folder: Path, *, rounds: int, bar: float = OVERHEAD_BAR) -> dict[str, Any]:
    """Return the rate of the engine with the work of `embed`, and of the bare loop.

    Parameters
    ----------
    path : Path
        A slide of whole tiles whose JPEG streams stand for themselves.
    folder : Path
        For outputs.
    rounds : int
        How often each is measured.
    bar : float
        Least share of the bare loop's rate.

    Returns
    -------
    dict
        One row.
    """
    bare = BareDecoder.open(path)
    plan = all_tiles(open_pyramid(path, cache_bytes=0), bare.tile_px)
    number = count()
    events: list[Event] = []
    with pinned_workers() as client:

        def new_job() -> Ready:
            turn = next(number)
            return Ready(
                key=f"turn {turn}", prepared=prepared(path, folder / f"out-{turn}", "handcrafted", bare.tile_px)
            )

        def ours() -> float:
            Engine(client, events.append).run([jobs.pop()])
            return bare.pixels / 1e6

        jobs = [new_job() for _ in range(rounds + 1)]  # planned and probed before the clock starts
        spec = next(iter(jobs[0].prepared.work.stages.values()))
        loops = BareWorkers(path, spec, plan)
        try:
            ours()  # compiles what has to be compiled
            if loops.run() != len(plan):
                raise RuntimeError("the bare loop did other tiles")
            found = rates([ours, lambda: loops.run() * bare.tile_px**2 / 1e6], rounds=rounds)
        finally:
            loops.close()
    failed = [event.failure.reason for event in events if event.failure is not None]
    if failed:
        raise RuntimeError(failed[0])
    return make_row(
        "engine with the work of embed, local:2",
        found[0],
        "Mpx/s",
        rival=("bare loop of decoder and stage", found[1]),
        bar=at_least(bar),
        note=f"{bare.pixels / 1e9:.2f} Gpx, {len(plan)} stored tiles of {bare.tile_px} px, handcrafted; leases, parts "
        "of the feature store and receipts on disk included; both in two processes of one thread, each on a core of "
        "its own that ours share with scheduler and client; planning and starting left out",
    )


def whole_tiles(gigapixels: float, tile_px: int = 240) -> Shape:
    """Return the size of a square image of whole tiles."""
    edge = shape_of(gigapixels).y // tile_px * tile_px
    return Shape(y=edge, x=edge)


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        path = write_gigapixel(Path(folder) / "slide.svs", whole_tiles(GIGAPIXELS))
        return [overhead_row(path, Path(folder), rounds=3)]
