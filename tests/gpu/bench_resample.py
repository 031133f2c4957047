"""Resampling, normalising and blending on a device, against the bandwidth floor and the torch chain."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.blend import blend
from tilestream.kernels.blend_finish import finish_blend
from tilestream.kernels.blend_sums import blend_sums
from tilestream.kernels.patchify import patchify
from tilestream.kernels.resample import resample

BYTES_PER_US = 4.3e6
"""Measured copy rate of an H200, reading and writing."""
EDGE_PX = 4096
TILES, TILE_PX = 512, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resample_rows() -> list[dict[str, Any]]:
    """Return rows of area-weighted resampling of one image."""
    import torch

    found = []
    for dtype in (torch.uint8, torch.float32):
        pixels = (torch.rand(EDGE_PX, EDGE_PX, 3, device="cuda") * 250).to(dtype)
        for ratio in (Fraction(500, 499), Fraction(2), Fraction(8)):
            size = int(EDGE_PX / ratio)
            out = torch.empty(size, size, 3, dtype=dtype, device="cuda")
            valid = torch.empty(size, size, dtype=torch.bool, device="cuda")

            def work(pixels: Any = pixels, ratio: Fraction = ratio, out: Any = out, valid: Any = valid) -> None:
                resample(
                    pixels, None, ratio_yx=(ratio, ratio), src_yx=(0, 0), dst_yx=(0, 0), out=out, out_valid=valid,
                    stream=current_stream(),
                )  # fmt: skip

            moved = (pixels.numel() + out.numel()) * pixels.element_size() + valid.numel()
            name = str(dtype).removeprefix("torch.")
            found.append(
                make_row(
                    f"resample {EDGE_PX}² {name} RGB by {float(ratio):.4g}",
                    device_us(work),
                    "us",
                    note=f"floor {moved / BYTES_PER_US:.1f} us",
                )
            )
    return found


def patchify_rows() -> list[dict[str, Any]]:
    """Return rows of decoded tiles that become a model batch, beside the torch chain."""
    import torch

    memory = torch.randint(0, 256, (TILES, TILE_PX, TILE_PX, 3), dtype=torch.uint8, device="cuda")
    pixels = memory.permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values, device="cuda").view(3, 1, 1) for values in (MEAN, STD))

    def chain() -> Any:
        return pixels.contiguous().float().div(255).sub(mean).div(std).half()

    rival, found = device_us(chain), []
    for patch in (None, 16):
        shape = (TILES, 3, TILE_PX, TILE_PX) if patch is None else (TILES, (TILE_PX // 16) ** 2, 3 * 16 * 16)
        out = torch.empty(shape, dtype=torch.float16, device="cuda")

        def work(patch: int | None = patch, out: Any = out) -> None:
            patchify(
                pixels, mean=MEAN, std=STD, dtype="float16", patch_px=patch, out=out, stream=current_stream()
            )  # fmt: skip

        found.append(
            make_row(
                f"patchify {TILES} tiles of {TILE_PX} px, uint8 to float16 {'patches' if patch else 'images'}",
                device_us(work),
                "us",
                rival=("torch: contiguous, float, div, normalise, half, images", rival),
                note=f"floor {memory.numel() * 3 / BYTES_PER_US:.1f} us",
            )
        )
    return found


def blend_row(*, tiles: int = 256, tile_px: int = 256, channels: int = 4) -> dict[str, Any]:
    """Return the time of tiles that are added to a raster and finished."""
    import torch

    edge = tile_px * 3 // 4 * 16 + tile_px // 4
    values = torch.rand(tiles, channels, tile_px, tile_px, device="cuda")
    origins = np.stack(np.divmod(np.arange(tiles), 16), axis=-1).astype(np.int64) * (tile_px * 3 // 4)
    sums = blend_sums(values, (edge, edge), limit=1.0, stream=current_stream())
    out = torch.empty(channels, edge, edge, device="cuda")
    valid = torch.empty(edge, edge, dtype=torch.bool, device="cuda")

    def work() -> None:
        blend(sums, values, origins, feather_px=tile_px // 4, stream=current_stream())
        finish_blend(sums, out=out, out_valid=valid, stream=current_stream())

    # each pixel of a tile is read, and added to its sums; the sums are read once more
    moved = values.numel() * (4 + 16) + values.numel() // channels * 8 + edge * edge * (channels * 12 + 5)
    return make_row(
        f"blend {tiles} float32 tiles of {channels} × {tile_px}² px and finish",
        device_us(work, rounds=10, repeat=3),
        "us",
        note=f"floor {moved / BYTES_PER_US:.1f} us; 64-bit integer atomics",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [*resample_rows(), *patchify_rows(), blend_row()]
