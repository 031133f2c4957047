"""Microseconds of all levels of one image on a device, against the time its bytes need."""

from __future__ import annotations

from typing import Any

import torch

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.mip import mip, update_mip
from tilestream.types import Box

EDGE_PX = 4096
BYTES_PER_US = 4.3e6
"""Of an H200, as measured by others."""


def _row(name: str, a: torch.Tensor, most_us: float | None = None, **keywords: Any) -> dict[str, Any]:
    out = mip(a, stream=current_stream(), **keywords)
    took = device_us(lambda: mip(a, out=out, stream=current_stream(), **keywords))
    moved = sum(t.numel() * t.element_size() for t in (a, *out))
    return make_row(
        name, took, "µs", bar=None if most_us is None else (0.0, most_us),
        note=f"{moved / 1e6:.1f} MB, floor {moved / BYTES_PER_US:.1f} µs at 4.3 TB/s",
    )  # fmt: skip


def _noise(*shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, device="cuda")
    return torch.randn(shape, dtype=torch.float32, device="cuda").to(dtype)


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    edge = EDGE_PX
    rgba = _noise(edge, edge, 4).permute(2, 0, 1)
    out = mip(rgba, stream=current_stream())
    box = [Box(y=1024, x=2048, height=edge // 10, width=edge // 10)]
    update_us = device_us(lambda: update_mip(out, rgba, box, stream=current_stream()))
    return [
        _row(f"mip of {edge}² u8 RGBA, interleaved", rgba, 35.0),
        _row(f"mip of {edge}² u8 RGB, interleaved", _noise(edge, edge, 3).permute(2, 0, 1)),
        _row(f"mip of {edge}² f32 RGB, planar", _noise(3, edge, edge, dtype=torch.float32), 105.0),
        _row(f"mip of {edge}² f16 RGBA, planar", _noise(4, edge, edge, dtype=torch.float16)),
        _row("mip of 64 images of 512² u8 RGB in one call", _noise(64, 512, 512, 3).permute(0, 3, 1, 2)),
        _row(f"labels of {edge}² u8, 4 levels", _noise(edge, edge) // 64, kind="labels", levels=4),
        _row(f"Lanczos levels of {edge}² u8", _noise(edge, edge), filter="lanczos"),
        make_row(f"mip update of {edge}² u8 RGBA, 1 % dirty", update_us, "µs"),
    ]
