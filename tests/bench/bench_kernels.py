"""Megapixels a second of the kernels that every tile passes through, on tissue, on one core and on two."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.descriptors import descriptors
from tilestream.kernels.resample import resample
from tilestream.models.handcrafted import handcrafted
from tilestream.testing.tissue import Tissue
from tilestream.types import Batch, Box, Shape

TILE_PX = 256
TILES = 64
DESCRIPTORS_BAR = 300.0
"""Mpx/s on two cores."""
RESAMPLE_BAR = 60.0
"""Stored Mpx/s on one core."""


def tissue_batch() -> Batch:
    """Return a batch of synthetic stained tissue and glass, as the engine hands it to stages."""
    shape = Shape(y=TILE_PX * 8, x=TILE_PX * 8)
    area = Tissue(shape=shape, seed=1, mpp=0.5).paint(Box(y=0, x=0, height=shape.y, width=shape.x))
    tiles = area.reshape(8, TILE_PX, 8, TILE_PX, 3).swapaxes(1, 2).reshape(TILES, TILE_PX, TILE_PX, 3)
    return Batch(
        pixels=np.ascontiguousarray(tiles).transpose(0, 3, 1, 2),
        valid=None,
        valid_share=np.ones(TILES, np.float32),
        rows=np.arange(TILES),
        tile_yx=np.zeros((TILES, 2), np.int64),
    )


def rate(work: Callable[[], object], *, threads: int, mpx: float, rounds: int = 5, repeat: int = 8) -> float:
    """Return how many megapixels `threads` Python threads get through together in a second."""
    work()  # compiles, or loads what was compiled

    def several(_: int) -> None:
        for _ in range(repeat):
            work()

    with ThreadPoolExecutor(threads) as pool:

        def run() -> float:
            list(pool.map(several, range(threads)))
            return mpx * repeat * threads

        return rates([run], rounds=rounds)[0]


def descriptors_row(batch: Batch, *, threads: int, rounds: int = 5, bar: float | None = None) -> dict[str, Any]:
    """Return the rate of the sums behind `handcrafted`."""
    mpx = TILES * TILE_PX**2 / 1e6
    value = rate(lambda: descriptors(batch.pixels, None, rgb=True), threads=threads, mpx=mpx, rounds=rounds)
    return make_row(
        f"descriptor sums, {threads} thread{'s' * (threads > 1)}",
        value,
        "Mpx/s",
        bar=None if bar is None else at_least(bar),
        note=f"8-bit RGB in memory, {TILES} tiles of {TILE_PX} px a call: histograms, products, gradients at 3 scales",
    )


def _resample_row(pixels: npt.NDArray[np.uint8], ratio: Fraction, bar: float) -> dict[str, Any]:
    edge = int(pixels.shape[0] / ratio)
    out, valid = np.empty((edge, edge, 3), np.uint8), np.empty((edge, edge), np.bool_)

    def work() -> None:
        resample(
            pixels, None, ratio_yx=(ratio, ratio), src_yx=(0, 0), dst_yx=(0, 0), out=out, out_valid=valid
        )  # fmt: skip

    value = rate(work, threads=1, mpx=pixels.shape[0] * pixels.shape[1] / 1e6)
    return make_row(
        f"resample by {float(ratio):.4g}, 1 thread", value, "Mpx/s", bar=at_least(bar), note="stored 8-bit RGB"
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    batch = tissue_batch()
    stage = handcrafted(rgb=True, brightfield=True)
    mpx = TILES * TILE_PX**2 / 1e6
    tile = np.ascontiguousarray(batch.pixels[:16].transpose(0, 2, 3, 1)).reshape(4 * TILE_PX, 4 * TILE_PX, 3)
    return [
        descriptors_row(batch, threads=1),
        descriptors_row(batch, threads=2, bar=DESCRIPTORS_BAR),
        make_row(
            "handcrafted stage, 2 threads",
            rate(lambda: stage(batch), threads=2, mpx=mpx),
            "Mpx/s",
            note="the same tiles to vectors: moments, entropy, correlations, optical density from the sums",
        ),
        _resample_row(tile, Fraction(500, 499), RESAMPLE_BAR),
        _resample_row(tile, Fraction(2), RESAMPLE_BAR),
    ]
