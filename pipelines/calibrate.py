"""How fast this machine is, measured in a moment, to say beforehand how long a run will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np

from tilestream.registry import STAGES, resolve
from tilestream.testing.tissue import Tissue
from tilestream.types import Batch, Box, Shape

TILE_PX = 256
TILES = 4
EDGE_PX = 8192
"""Edge of the section that the tiles are cut from the middle of, where there is tissue and not glass."""
BUDGET_S = 0.25
"""Time that each of the two measurements may take."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Pixels of three 8-bit channels a second on one core."""

    decode_px_s: float
    """Decoding of JPEG tiles."""
    kernel_px_s: float
    """The handcrafted descriptors."""

    def seconds(self, *, decode_px: float, kernel_px: float, cores: int) -> float:
        """Return the time for a number of pixels with all cores at work.

        Parameters
        ----------
        decode_px, kernel_px : float
            Pixels to be decoded and described, weighted by their channels.
        cores : int
            Cores that the run may use.

        Returns
        -------
        float
            Seconds.
        """
        return (decode_px / self.decode_px_s + kernel_px / self.kernel_px_s) / max(1, cores)


def calibrate() -> Rates:
    """Return the rates of one core of this machine, measured on synthetic tissue in about half a second.

    Returns
    -------
    Rates
        The machine is taken as it is: with other programs at work it is slower, as the run will be.
    """
    tissue = Tissue(shape=Shape(y=EDGE_PX, x=EDGE_PX), seed=1, mpp=0.5)
    strip = tissue.paint(Box(y=EDGE_PX // 2, x=EDGE_PX // 2, height=TILE_PX, width=TILE_PX * TILES))
    tiles = [np.ascontiguousarray(strip[:, x : x + TILE_PX]) for x in range(0, strip.shape[1], TILE_PX)]
    streams = [imagecodecs.jpeg8_encode(tile, level=80) for tile in tiles]
    batch = Batch(
        pixels=np.stack(tiles).transpose(0, 3, 1, 2),
        valid=None,
        valid_share=np.ones(TILES, np.float32),
        rows=np.arange(TILES),
        tile_yx=np.zeros((TILES, 2), np.int64),
    )
    stage = resolve("handcrafted", table=STAGES, group="tilestream.stages")()
    return Rates(
        decode_px_s=_rate(lambda: [imagecodecs.jpeg8_decode(stream) for stream in streams]),
        kernel_px_s=_rate(lambda: stage(batch)),
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
