"""Several encoders in one pass over the pixels: what it costs, beside the sum of what each of them computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from distributed import Client

from tests.bench.gigapixel import write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.models.vit import PatchEmbed, VisionTransformer
from tilestream.models.weights import random_weights
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, placed
from tilestream.pipelines.encoder import encoder_spec
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.image import ImageJob
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.stream.engine import Engine, Event, Prepared, Ready
from tilestream.stream.work import make_stage
from tilestream.types import Batch, Shape

TILE_PX = 256
TILES = 16
"""Along each edge of the slide."""
BATCH = 16
ONE_PASS_BAR = 1 / 1.1
"""Least share of the rate of the computation alone: one pass costs less than 1.1 times the sum."""


class Narrow(VisionTransformer):
    """A transformer of 192 values a token, four blocks, with weights of a seed."""

    contract = {"name": "narrow", "px": TILE_PX, "channels": 3, "scale": 1 / 255, "dim": 192, "framework": "torch"}  # noqa: RUF012 - read once

    def __init__(self) -> None:
        super().__init__(PatchEmbed(patch_px=16, channels=3, dim=192), dim=192, depth=4, heads=3)
        random_weights(self, seed=1)


class Wide(VisionTransformer):
    """A transformer of 512 values a token, four blocks, with weights of a seed."""

    contract = {"name": "wide", "px": TILE_PX, "channels": 3, "scale": 1 / 255, "dim": 512, "framework": "torch"}  # noqa: RUF012 - read once

    def __init__(self) -> None:
        super().__init__(PatchEmbed(patch_px=16, channels=3, dim=512), dim=512, depth=4, heads=8)
        random_weights(self, seed=2)


ENCODERS = tuple(EncoderChoice(name=f"{__name__}:{one.__name__}") for one in (Narrow, Wide))


class Alone:
    """Encoders on random batches that lie in memory, one after the other, in as many threads as there are cores."""

    def __init__(self, choices: Sequence[EncoderChoice], cores: int) -> None:
        self._stages = [make_stage(encoder_spec(one.name, one.params)) for one in choices]
        self._cores = cores
        pixels = np.random.default_rng(0).integers(0, 256, (BATCH, TILE_PX, TILE_PX, 3), np.uint8)
        ones, rows = np.ones(BATCH, np.float32), np.arange(BATCH)
        corners = np.zeros((BATCH, 2), np.int64)
        view = pixels.transpose(0, 3, 1, 2)
        self._batch = Batch(pixels=view, valid=None, valid_share=ones, rows=rows, tile_yx=corners)

    def run(self, batches: int) -> float:
        """Return the tiles that all encoders have done."""
        with ThreadPoolExecutor(self._cores) as pool:
            for stage in self._stages:
                list(pool.map(lambda _, stage=stage: stage(self._batch), range(batches)))
        return float(batches * BATCH)


def _runs(client: Client, path: Path, folder: Path, tiles: int, runs: int) -> Callable[[], float]:
    """Return what runs the main job on a slide, without its last step, a given number of times; planned beforehand."""
    cores, number = sum(client.nthreads().values()), count()  # type: ignore[no-untyped-call]
    failures: list[str] = []

    def new_job() -> Ready:
        out = folder / f"turn-{next(number)}"
        out.mkdir()
        config = EmbedConfig(
            out=out,
            encoders=ENCODERS,
            where="all",
            mpp=open_pyramid(path).mpp,
            super_tile_px=min(4, tiles // 2) * TILE_PX,
            cache_bytes=0,
            batch=BATCH,
        )
        (entry,) = read_cohort([str(path)], out=out).entries
        found = ImageJob(entry=placed(entry), config=config, tasks=cores, machine_tasks=cores).prepare()
        if not isinstance(found, Prepared):
            raise RuntimeError(f"nothing to do: {found}")
        prepared = Prepared(plan=found.plan, work=found.work, finish=lambda: None, facts=found.facts)
        return Ready(key=out.name, prepared=prepared)

    jobs = [new_job() for _ in range(runs)]

    def heard(event: Event) -> None:
        if event.failure is not None:
            failures.append(event.failure.reason)

    def run() -> float:
        Engine(client, heard).run([jobs.pop()])
        if failures:
            raise RuntimeError(failures[0])
        return float(tiles * tiles)

    return run


def one_pass_row(folder: Path, *, tiles: int, rounds: int, bar: float = ONE_PASS_BAR) -> dict[str, Any]:
    """Return the rate of two encoders in one pass over a JPEG slide, and that of their computation alone.

    Parameters
    ----------
    folder : Path
        For the slide and what is made of it.
    tiles : int
        Tiles along each edge.
    rounds : int
        How often each is measured.
    bar : float
        Least share of the rate of the computation.

    Returns
    -------
    dict
        One row.
    """
    cores = len(os.sched_getaffinity(0))
    path = write_gigapixel(folder / "slide.svs", Shape(y=tiles * TILE_PX, x=tiles * TILE_PX))
    alone = Alone(ENCODERS, cores)
    batches = max(cores, tiles * tiles // BATCH)
    with open_client(f"threads:{cores}") as client:
        ours = _runs(client, path, folder, tiles, 3 * rounds + 1)
        ours()  # makes the networks
        alone.run(cores)
        found = rates([ours, lambda: alone.run(batches)], rounds=rounds)
    return make_row(
        f"two encoders in one pass, {cores} cores",
        found[0],
        "tiles/s",
        rival=("each on batches in memory, one after the other", found[1]),
        bar=at_least(bar),
        note=f"{tiles * tiles} tiles of {TILE_PX} px of a JPEG slide, transformers of 192 and 512 values, four blocks, "
        f"float32, torch {torch.__version__.partition('+')[0]}; decoding, entropy map, parts of the store and receipts "
        f"included: {found[1] / found[0]:.3f} times the sum of the computation",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        return [one_pass_row(Path(folder), tiles=TILES, rounds=3)]
