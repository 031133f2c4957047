"""Fields to pixels on a device, as a share of the floor of multiply-adds, beside eager torch on the same device."""

from __future__ import annotations

from typing import Any

import torch

from tests.bench.table import make_row
from tests.bench.torch_field import TorchField, pixel_centres
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.hash_decode import hash_decode
from tilestream.kernels.hash_gradient import hash_encode_backward
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.types import Box

EDGE_PX = 1024
LAYERS = MlpLayers(widths=(32, 64, 64, 3))
SIMT_BAR_US = 500.0
"""2 Gpx/s, what plain float32 must reach; tensor cores are not used yet."""
FLOP_FLOOR_US = 2 * 6336 * EDGE_PX**2 / 66.9e6
BYTES_A_US = 4.3e6


def decode_row(*, log2_table: int, half: bool, bar: tuple[float, float] | None) -> dict[str, Any]:
    """Return the time of one image; half stores table and weights as float16."""
    grid = HashGrid.spanning(n_max=EDGE_PX / 2, log2_table=log2_table)
    noise = torch.Generator().manual_seed(1)
    dtype = torch.float16 if half else torch.float32
    table = (torch.rand(grid.entries, 2, generator=noise) * 2 - 1).to("cuda", dtype)
    weights = (torch.randn(LAYERS.parameters, generator=noise) * 0.15).to("cuda", dtype)
    out = torch.empty(EDGE_PX, EDGE_PX, 3, dtype=torch.uint8, device="cuda").permute(2, 0, 1)
    box = Box(y=0, x=0, height=EDGE_PX, width=EDGE_PX)

    def work() -> None:
        hash_decode(
            table, weights, grid=grid, layers=LAYERS, box=box, extent_yx=(float(EDGE_PX), float(EDGE_PX)), out=out,
            stream=current_stream(),
        )  # fmt: skip

    value = device_us(work)
    torch_us = None
    if not half:
        rival, coords = TorchField(grid, LAYERS, table, weights, at_once=True), pixel_centres(EDGE_PX, EDGE_PX, "cuda")
        torch_us = device_us(lambda: rival(coords), rounds=10, repeat=2)
    traffic_us = (grid.entries * 2 * (2 if half else 4) + out.numel()) / BYTES_A_US
    beside = "" if torch_us is None else f"; eager torch {torch_us:,.0f} µs"
    return make_row(
        f"hash decode 1 Mpx, T 2^{log2_table}, {'float16' if half else 'float32'} storage",
        value,
        "µs",
        bar=bar,
        note=f"floor {FLOP_FLOOR_US:.0f} µs of float32 multiply-adds ({FLOP_FLOOR_US / value:.0%} of it reached), "
        f"{traffic_us:.1f} µs of bytes{beside}",
    )


def table_gradient_row(*, deterministic: bool) -> dict[str, Any]:
    """Return the time of the gradient of a table for 2^18 positions."""
    n = 2**18
    grid = HashGrid.spanning(n_max=512, log2_table=19)
    coords, upstream = torch.rand(n, 2, device="cuda"), torch.randn(n, grid.width, device="cuda")
    table = torch.zeros(grid.entries, 2, device="cuda")

    def work() -> None:
        hash_encode_backward(
            upstream, coords, table, grid=grid, to_coords=False, deterministic=deterministic, stream=current_stream()
        )  # fmt: skip

    how = "int64, deterministic" if deterministic else "float32 atomics, any order"
    return make_row(f"gradient of a table, {how}", device_us(work), "µs", note="2^18 positions, 64 pairs each")


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [
        decode_row(log2_table=15, half=False, bar=(0, SIMT_BAR_US)),
        decode_row(log2_table=15, half=True, bar=None),
        decode_row(log2_table=19, half=False, bar=None),
        table_gradient_row(deterministic=True),
        table_gradient_row(deterministic=False),
    ]
