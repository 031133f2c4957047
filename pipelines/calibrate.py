"""How fast this machine is, measured in a moment, to say beforehand how long a run will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np

from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.registry import STAGES, resolve
from tilestream.stream.batches import stream_tiles
from tilestream.testing.tissue import Tissue
from tilestream.types import Box, Shape

TILE_PX = 256
TILES = 8
EDGE_PX = 8192
"""Edge of the section that the tiles are cut from the middle of, where there is tissue and not glass."""
BUDGET_S = 0.2
"""Time that each of the two measurements may take."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Pixels of three 8-bit channels a second on one core."""

    decode_px_s: float
    """Decoding of JPEG tiles."""
    stage_px_s: float
    """Cutting into tiles, entropy and the handcrafted descriptors."""


def calibrate() -> Rates:
    """Return the rates of one core of this machine, measured on synthetic tissue in less than a second.

    Returns
    -------
    Rates
        The machine is taken as it is: with other programs at work it is slower, as the run will be.
    """
    tissue = Tissue(shape=Shape(y=EDGE_PX, x=EDGE_PX), seed=1, mpp=0.5)
    strip = tissue.paint(Box(y=EDGE_PX // 2, x=EDGE_PX // 2, height=TILE_PX, width=TILE_PX * TILES))
    tiles = [np.ascontiguousarray(strip[:, x : x + TILE_PX]) for x in range(0, strip.shape[1], TILE_PX)]
    streams = [imagecodecs.jpeg8_encode(tile, level=80) for tile in tiles]
    pyramid = open_pyramid(strip.transpose(2, 0, 1), cache_bytes=0)
    plan = plan_tiles(pyramid, tile_px=TILE_PX, where="all")
    stages = [resolve(name, table=STAGES, group="tilestream.stages")() for name in ("entropy", "handcrafted")]

    def run_stages() -> None:
        for batch in stream_tiles(pyramid, plan, batch=TILES):
            for stage in stages:
                stage(batch)

    return Rates(
        decode_px_s=_rate(lambda: [imagecodecs.jpeg8_decode(stream) for stream in streams]),
        stage_px_s=_rate(run_stages),
    )


def _rate(work: Callable[[], object]) -> float:
    """Return the pixels a second of the fastest repetition: whatever is slower was disturbed."""
    work()  # compiles, or loads what was compiled
    stop = time.perf_counter() + BUDGET_S
    best = float("inf")
    while (start := time.perf_counter()) < stop:
        work()
        best = min(best, time.perf_counter() - start)
    return TILES * TILE_PX * TILE_PX / best
