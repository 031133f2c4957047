"""HIPT on a device: tiles of its first stage, whole regions of 4096 px, and the share of what a device can multiply."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from tests.bench.table import at_least, make_row
from tests.gpu.timing import device_us
from tilestream.models.halftype import HalfType
from tilestream.models.hipt import vit4k, vit256
from tilestream.models.runners import torch_device
from tilestream.models.weights import random_weights

TILES_BAR = 20_000.0
"""Tiles of 256 px a second, bfloat16, on an H200."""
REGIONS_BAR = 75.0
"""Regions of 16 x 16 tiles a second through both stages, bfloat16, on an H200."""
TILE_GFLOP, REGION_GFLOP = 12.28, 1.71
"""Two for each multiplication with its addition: ViT256 on a tile as it is published, ViT4K on a region."""
BATCH, CELLS = 256, 16
MATRIX = 8192


@lru_cache(maxsize=2)
def _network(make: Callable[[], torch.nn.Module], *, half: bool) -> torch.nn.Module:
    network = make().eval()
    random_weights(network, seed=0)
    network = network.to(torch_device())
    return HalfType(network, torch.bfloat16) if half else network


@lru_cache(maxsize=1)
def peak_tflops() -> float:
    """Return what the device reaches in a large bfloat16 product of matrices, 1e12 operations a second."""
    a = torch.randn(MATRIX, MATRIX, device=torch_device(), dtype=torch.bfloat16)
    b = torch.randn(MATRIX, MATRIX, device=torch_device(), dtype=torch.bfloat16)
    return 2 * MATRIX**3 / device_us(lambda: a @ b, rounds=10, repeat=5) / 1e6


def tiles_row() -> dict[str, Any]:
    """Return the rate of ViT256 on uint8 tiles that lie on the device, scaling included."""
    network = _network(vit256, half=True)
    tiles = torch.randint(0, 256, (BATCH, 3, 256, 256), device=torch_device(), dtype=torch.uint8)

    def run() -> None:
        with torch.inference_mode():
            network(tiles.float().mul_(2 / 255).sub_(1))

    rate = BATCH / device_us(run, rounds=10, repeat=3) * 1e6
    share = rate * TILE_GFLOP / 1e3 / peak_tflops()
    return make_row(
        "ViT256, bfloat16",
        rate,
        "tiles/s",
        bar=at_least(TILES_BAR),
        note=f"autocast, batches of {BATCH} uint8 tiles that lie on the device, scaling included; {share:.0%} of the "
        f"{peak_tflops():.0f} TFLOP/s of a product of {MATRIX}² matrices (by {TILE_GFLOP} GFLOP a tile)",
    )


def regions_row() -> dict[str, Any]:
    """Return the rate of whole regions, from uint8 pixels to the vector."""
    first, second = _network(vit256, half=True), _network(vit4k, half=True)
    tiles = torch.randint(0, 256, (CELLS * CELLS, 3, 256, 256), device=torch_device(), dtype=torch.uint8)

    def run() -> None:
        with torch.inference_mode():
            vectors = first(tiles.float().mul_(2 / 255).sub_(1))  # 256, 384
            second(vectors.reshape(1, CELLS, CELLS, -1).permute(0, 3, 1, 2))

    rate = 1e6 / device_us(run, rounds=10, repeat=2)
    share = rate * (CELLS**2 * TILE_GFLOP + REGION_GFLOP) / 1e3 / peak_tflops()
    return make_row(
        "HIPT, regions of 4096 px through both stages, bfloat16",
        rate,
        "regions/s",
        bar=at_least(REGIONS_BAR),
        note=f"pixels that lie on the device; {share:.0%} of the rate of a product of matrices",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [tiles_row(), regions_row()]
