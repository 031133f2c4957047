"""Sums, codes, stains and masks of tiles on a device, beside the time in which their bytes can be moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.companding import compand
from tilestream.kernels.coverage import TileAxis, coverage
from tilestream.kernels.descriptors import descriptors
from tilestream.kernels.mask import tissue_brightfield
from tilestream.kernels.nodata import nodata_mask
from tilestream.kernels.stain import optical_density, stain_separation

TILES, TILE_PX = 256, 256
COPY_BYTES_PER_US = 4.3e6
"""Of an H200, read and written."""


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; the issue sets no bar for them."""
    import torch

    noise = torch.Generator("cuda").manual_seed(0)
    shape = (TILES, TILE_PX, TILE_PX, 3)
    codes = torch.randint(0, 256, shape, generator=noise, device="cuda", dtype=torch.uint8).permute(0, 3, 1, 2)
    wide = torch.randn(shape, generator=noise, device="cuda").permute(0, 3, 1, 2)
    mask = torch.rand((TILES, TILE_PX, TILE_PX), generator=noise, device="cuda") < 0.5
    floats, coded, flags = torch.empty(codes.shape, device="cuda"), torch.empty_like(codes), torch.empty_like(mask)
    sums = descriptors(codes, rgb=True)
    tile = TileAxis(size=16)
    pixels = TILES * TILE_PX**2
    cases: tuple[tuple[str, Callable[[int], object], int], ...] = (
        ("descriptor sums", lambda s: descriptors(codes, rgb=True, out=sums, stream=s), 3),
        ("compand float32", lambda s: compand(wide, out=coded, stream=s), 16),
        ("optical density", lambda s: optical_density(codes, out=floats, stream=s), 15),
        ("stain separation", lambda s: stain_separation(codes, out=floats, stream=s), 15),
        ("tissue, brightfield", lambda s: tissue_brightfield(codes, out=flags, stream=s), 4),
        ("nodata", lambda s: nodata_mask(codes, 0, out=flags, stream=s), 4),
        ("coverage", lambda s: coverage(mask, (tile, tile), stream=s), 1),
    )
    table = []
    for name, work, bytes_px in cases:
        us = device_us(lambda w=work: w(current_stream()))
        floor = pixels * bytes_px / COPY_BYTES_PER_US
        note = f"{TILES} tiles of {TILE_PX} px, interleaved RGB; floor {floor:.1f} us at {bytes_px} bytes a pixel"
        table.append(make_row(name, us, "us", note=note))
    return table
