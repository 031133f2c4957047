"""A neural field to pixels: hash grid and network in one pass, against eager torch in the same run on two cores."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tests.bench.table import at_least, make_row, rates
from tests.bench.torch_field import TorchField, pixel_centres
from tilestream.kernels.hash_decode import hash_decode
from tilestream.kernels.hash_encode import hash_encode
from tilestream.kernels.hash_gradient import hash_encode_backward
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp import mlp
from tilestream.kernels.mlp_gradient import mlp_backward
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.types import Box

DECODE_BAR = 8.0
"""Times eager torch."""
CORE_BAR = 2.0
"""Mpx/s of one core."""
CORES = 2
LAYERS = MlpLayers(widths=(32, 64, 64, 3))
TORCH_CHUNK = 2**14
"""Positions that keep torch's temporaries in the cache: twice as fast as all at once, if one thinks of it."""


def field(edge_px: int, log2_table: int) -> tuple[HashGrid, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the grid that Instant-NGP takes for a square image, with n_max half its edge, and random parameters."""
    grid = HashGrid.spanning(n_max=edge_px / 2, log2_table=log2_table)
    noise = np.random.default_rng(1)
    table = noise.uniform(-1, 1, (grid.entries, grid.features)).astype(np.float32)
    return grid, table, (noise.standard_normal(LAYERS.parameters) * 0.15).astype(np.float32)


def decode_row(
    *, edge_px: int = 512, log2_table: int = 15, rounds: int = 3, bar: float | None = None, is_brief: bool = False
) -> dict[str, Any]:
    """Return our rate of decoding a whole image on two cores beside the best of four ways to write it in torch.

    Where `is_brief`, torch is not asked for the whole image at once: with a table of 2^15 pieces are faster.
    """
    grid, table, weights = field(edge_px, log2_table)
    box, extent_yx = Box(y=0, x=0, height=edge_px, width=edge_px), (float(edge_px), float(edge_px))
    coords, mpx = pixel_centres(edge_px, edge_px), edge_px**2 / 1e6
    rivals = [
        TorchField(grid, LAYERS, torch.from_numpy(table), torch.from_numpy(weights), at_once=at_once)
        for at_once in (True, False)
    ]

    def ours() -> float:
        hash_decode(table, weights, grid=grid, layers=LAYERS, box=box, extent_yx=extent_yx, threads=CORES)
        return mpx

    def whole(rival: TorchField) -> float:
        rival(coords)
        return mpx

    def chunked(rival: TorchField) -> float:
        for part in coords.split(TORCH_CHUNK):
            rival(part)
        return mpx

    ways = (chunked,) if is_brief else (whole, chunked)
    contestants = [ours] + [lambda r=r, way=way: way(r) for way in ways for r in rivals]  # type: ignore[misc]
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    try:
        for contestant in contestants:
            contestant()
        value, *others = rates(contestants, rounds=rounds)
    finally:
        torch.set_num_threads(before)
    at_once = "" if is_brief else "whole image: all levels at once {:.3g}, level by level {:.3g}; "
    told = at_once + "in pieces of 16384: {:.3g}, {:.3g} Mpx/s"
    return make_row(
        f"hash decode, L 16, F 2, T 2^{log2_table}, 32-64-64-3, {CORES} threads",
        value,
        "Mpx/s",
        rival=("eager torch, the best of four ways", max(others)),
        bar=None if bar is None else at_least(bar),
        note=f"{edge_px}² px to 8-bit RGB; torch, {told.format(*others)}",
    )


def _rate(work: Any, mpx: float) -> float:
    work()

    def run() -> float:
        work()
        return mpx

    return rates([run], rounds=3)[0]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    edge_px = 512
    grid, table, weights = field(edge_px, 15)
    mpx = edge_px**2 / 1e6
    box, extent_yx = Box(y=0, x=0, height=edge_px, width=edge_px), (float(edge_px), float(edge_px))
    coords = pixel_centres(edge_px, edge_px).numpy()
    features = hash_encode(coords, table, grid=grid)
    upstream = np.ones((len(coords), 3), np.float32)
    core = {
        "hash decode": lambda: hash_decode(
            table, weights, grid=grid, layers=LAYERS, box=box, extent_yx=extent_yx, threads=1
        ),
        "hash decode at coordinates": lambda: hash_decode(
            table, weights, grid=grid, layers=LAYERS, coords_xyz=coords, threads=1
        ),
        "hash encode": lambda: hash_encode(coords, table, grid=grid, threads=1),
        "fused perceptron": lambda: mlp(features, weights, layers=LAYERS, threads=1),
        "gradient of the table": lambda: hash_encode_backward(
            features, coords, table, grid=grid, to_coords=False, threads=1
        ),
        "gradient of the perceptron": lambda: mlp_backward(upstream, features, weights, layers=LAYERS, threads=1),
    }
    bars = {"hash decode": at_least(CORE_BAR)}
    return [
        decode_row(bar=DECODE_BAR),
        decode_row(log2_table=19),
        *(
            make_row(f"{name}, 1 thread", _rate(work, mpx), "Mpx/s", bar=bars.get(name), note="T 2^15, 512² positions")
            for name, work in core.items()
        ),
    ]
