"""HIPT's first stage: through the engine, beside the bare model; and the model itself, beside torch's own layers."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from distributed import Client

from tests.bench.gigapixel import write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tests.models.plainvit import PlainViT, random_state
from tilestream.cluster.client import open_client
from tilestream.models.hipt import vit256
from tilestream.models.runners import one_torch_thread
from tilestream.models.weights import random_weights
from tilestream.pipelines.chain import ChainChoice
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, placed
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.image import ImageJob
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.stream.engine import Engine, Event, Prepared, Ready
from tilestream.types import Shape

TILE_PX = 256
TILES = 16
"""Along each edge of the slide: one region of HIPT's."""
BATCH = 16
THROUGHPUT_BAR = 0.9
"""Of the bare model's rate."""
LAYERS_BAR = 1.0
"""Of the rate of the same network from torch's own layers."""


class BareModel:
    """The network on random batches, in as many threads as there are cores and in one with as many threads of torch."""

    def __init__(self, network: torch.nn.Module, cores: int) -> None:
        self._network, self._cores = network.eval(), cores
        self._batch = torch.rand((BATCH, 3, TILE_PX, TILE_PX), generator=torch.Generator().manual_seed(0)) * 2 - 1

    def side_by_side(self, batches: int) -> float:
        """Return how many tiles were done by threads of one core each."""
        with ThreadPoolExecutor(self._cores) as pool:
            return float(sum(pool.map(lambda _: self._alone(), range(batches))))

    def together(self, batches: int) -> float:
        """Return how many tiles were done one batch after the other, torch on all cores."""
        torch.set_num_threads(self._cores)
        with torch.inference_mode():
            return float(sum(len(self._network(self._batch)) for _ in range(batches)))

    def _alone(self) -> int:
        with torch.inference_mode(), one_torch_thread():
            return len(self._network(self._batch))


def _prepared(path: Path, out: Path, encoder: EncoderChoice, cores: int) -> Prepared:
    """Return the main job on one slide as its workers get it, without its last step."""
    pyramid = open_pyramid(path)
    tiles = pyramid.levels[0].shape.y // TILE_PX
    config = EmbedConfig(
        out=out,
        encoders=(encoder,),
        chain=ChainChoice(region="mean"),  # the first stage is what is measured
        where="all",
        mpp=pyramid.mpp,
        super_tile_px=min(4, tiles // 2) * TILE_PX,
        cache_bytes=0,
        batch=BATCH,
    )
    out.mkdir()
    (entry,) = read_cohort([str(path)], out=out).entries
    found = ImageJob(entry=placed(entry), config=config, tasks=cores, machine_tasks=cores).prepare()
    if not isinstance(found, Prepared):
        raise RuntimeError(f"nothing to do: {found}")
    return Prepared(plan=found.plan, work=found.work, finish=lambda: None, facts=found.facts)


def engine_runs(client: Client, path: Path, folder: Path, encoder: EncoderChoice, runs: int) -> Callable[[], float]:
    """Return what runs the engine on a slide and returns its tiles, a given number of times; planned beforehand."""
    cores, number, events = sum(client.nthreads().values()), count(), []

    def new_job() -> Ready:
        key = f"turn-{next(number)}"
        return Ready(key=key, prepared=_prepared(path, folder / key, encoder, cores))

    jobs = [new_job() for _ in range(runs)]
    tiles = len(jobs[0].prepared.plan)

    def run() -> float:
        def heard(event: Event) -> None:
            if event.failure is not None:
                events.append(event.failure.reason)

        Engine(client, heard).run([jobs.pop()])
        if events:
            raise RuntimeError(events[0])
        return float(tiles)

    return run


def throughput_row(folder: Path, *, tiles: int, rounds: int, bar: float = THROUGHPUT_BAR) -> dict[str, Any]:
    """Return the rate of `hipt` through the engine on a JPEG slide, and the best of the bare model's.

    Parameters
    ----------
    folder : Path
        For the slide and what is made of it.
    tiles : int
        Tiles along each edge.
    rounds : int
        How often each is measured.
    bar : float
        Least share of the bare model's rate.

    Returns
    -------
    dict
        One row.
    """
    cores = len(os.sched_getaffinity(0))
    path = write_gigapixel(folder / "slide.svs", Shape(y=tiles * TILE_PX, x=tiles * TILE_PX))
    network = vit256()
    random_weights(network, seed=0)
    bare = BareModel(network, cores)
    batches = max(cores, tiles * tiles // BATCH)
    with open_client(f"threads:{cores}") as client:
        encoder = EncoderChoice(name="hipt", params={"random_weights": 0})
        ours = engine_runs(client, path, folder, encoder, rounds + 1)
        ours()  # makes the network
        found = rates([ours, lambda: bare.side_by_side(batches), lambda: bare.together(batches)], rounds=rounds)
    return make_row(
        f"hipt, first stage through the engine, {cores} cores",
        found[0],
        "tiles/s",
        rival=("the bare model on random batches, the better of two ways to use the cores", max(found[1:])),
        bar=at_least(bar),
        note=f"{tiles * tiles} tiles of {TILE_PX} px of a JPEG slide, float32, batches of {BATCH}; decoding, scaling, "
        "parts of the store and receipts included. "
        f"Bare: a thread a core {found[1]:.1f}, torch on all cores {found[2]:.1f}",
    )


def layers_row(*, batch: int, rounds: int, bar: float = LAYERS_BAR) -> dict[str, Any]:
    """Return the rate of ViT256 on one core, and that of the same network from torch's own layers."""
    network = vit256().eval()
    state = random_state(network)
    network.load_state_dict(state)
    plain = PlainViT(state, depth=12, heads=6)
    samples = torch.rand((batch, 3, TILE_PX, TILE_PX), generator=torch.Generator().manual_seed(0)) * 2 - 1

    def run(call: Callable[[torch.Tensor], torch.Tensor]) -> float:
        with torch.inference_mode(), one_torch_thread():
            return float(len(call(samples)))

    found = rates([lambda: run(network), lambda: run(plain.vectors)], rounds=rounds)
    return make_row(
        "ViT256 on one core",
        found[0],
        "tiles/s",
        rival=("nn.TransformerEncoderLayer of torch, same weights", found[1]),
        bar=at_least(bar),
        note=f"float32, batches of {batch}, vectors equal to 1e-5; ours multiplies with oneDNN, and does the class "
        "token alone in the last block",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        return [throughput_row(Path(folder), tiles=TILES, rounds=3), layers_row(batch=16, rounds=3)]
