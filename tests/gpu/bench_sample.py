"""Sampling on a device: tokens to a batch, and positions at any level, beside torch's `grid_sample`."""

from __future__ import annotations

from typing import Any

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.gather import gather
from tilestream.kernels.sample import sample

EDGE_PX = 8192
PATCH_PX = 256
TOKENS = 2620
TOKENS_BAR_US = 1500.0
"""2,620 tokens of 256² from 8-bit RGB to float16 on an H200."""
COPY_TB_S = 4.3
"""What an H200 copies, read and written, which floors are worked out with."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def interleaved_pyramid(levels: int = 5) -> list[Any]:
    """Return interleaved 8-bit levels `(c, y, x)` on the device."""
    import torch

    sizes = [EDGE_PX >> k for k in range(levels)]
    return [torch.randint(0, 256, (n, n, 3), dtype=torch.uint8, device="cuda").permute(2, 0, 1) for n in sizes]


def some_tokens(low: float, high: float, *, whole: bool) -> Any:
    """Return tokens of levels from `low` to `high`, each as large as its level makes it."""
    import torch

    level = torch.rand(TOKENS, 1, dtype=torch.float64, device="cuda") * (high - low) + low
    level = level.round() if whole else level
    size = PATCH_PX * 2**level
    corner = torch.rand(TOKENS, 2, dtype=torch.float64, device="cuda") * (EDGE_PX - size)
    corner = (corner / 2**level).floor() * 2**level if whole else corner
    return torch.cat([level, corner, size], 1)


def _gather_row(levels: list[Any], tokens: Any, name: str, reads: float, bar_us: float | None) -> dict[str, Any]:
    import torch

    out = torch.empty((TOKENS, 3, PATCH_PX, PATCH_PX), dtype=torch.float16, device="cuda")

    def work() -> object:
        return gather(levels, tokens, patch_px=PATCH_PX, mean=MEAN, std=STD, scale=1 / 255, out=out,
                      stream=current_stream())  # fmt: skip

    value = device_us(work, rounds=10, repeat=3)
    size = TOKENS * PATCH_PX**2 * 3 * (2 + reads)
    return make_row(
        f"gather of {TOKENS} tokens of {PATCH_PX} px, u8 to f16, {name}", value, "us",
        bar=None if bar_us is None else (0.0, bar_us),
        note=f"{size / 1e6:.0f} MB read and written, floor {size / COPY_TB_S / 1e6:.0f} us at {COPY_TB_S} TB/s",
    )  # fmt: skip


def _sample_row(levels: list[Any], dtype: str) -> dict[str, Any]:
    import torch

    texels = [each.to(getattr(torch, dtype)) for each in levels]
    at = torch.rand((2048, 2048, 2), device="cuda") * EDGE_PX
    level = torch.rand((2048, 2048), device="cuda") * (len(levels) - 1)
    out = torch.empty((3, 2048, 2048), device="cuda")
    value = device_us(lambda: sample(texels, at, level, out=out, stream=current_stream()), rounds=10)
    size = 2048 * 2048 * 4 * (2 + 1 + 3)
    return make_row(
        f"sample of 2048² scattered positions, {dtype} RGB", value, "us",
        note=f"floor without texels {size / COPY_TB_S / 1e6:.0f} us at {COPY_TB_S} TB/s; they come from all over",
    )  # fmt: skip


def _torch_row(levels: list[Any]) -> dict[str, Any]:
    import torch
    from torch.nn.functional import grid_sample

    count = 64
    planes = [each.float().contiguous()[None] for each in levels[:2]]
    grid = torch.rand(count, 1, 1, 2, device="cuda") + torch.rand(1, PATCH_PX, PATCH_PX, 2, device="cuda") * 0.05 - 0.5

    def work() -> object:
        read = [
            grid_sample(each.expand(count, -1, -1, -1), grid, padding_mode="border", align_corners=False)
            for each in planes
        ]
        return torch.lerp(read[0], read[1], 0.5).sub_(100).mul_(0.01).half()

    value = device_us(work, rounds=10)
    return make_row(
        f"torch: grid_sample ×2 + lerp, {count} tokens of {PATCH_PX} px", value * TOKENS / count, "us",
        note=f"scaled to {TOKENS} tokens; float32 planes made before, the grid too",
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    levels = interleaved_pyramid()
    tokens = [some_tokens(0, 3.99, whole=False), some_tokens(0, 4, whole=True)]
    return [
        # between two levels a sample reads about as many texels of the finer one as lie under it, and a quarter more
        _gather_row(levels, tokens[0], "between two levels", 2.5, TOKENS_BAR_US),
        _gather_row(levels, tokens[1], "on texels of one level", 1.0, TOKENS_BAR_US),
        _torch_row(levels),
        _sample_row(levels, "uint8"),
        _sample_row(levels, "float16"),
        _sample_row(levels, "float32"),
    ]
