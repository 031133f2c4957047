"""The texture unit against the software sampler: rate at equal positions, error in steps of its weights, storage.

The tier becomes a default where it is at least 1.3 times as fast at equal error. A texture is a copy in an order of its
own, so a row says what that costs, in samples of the same call.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch

from tests.bench.table import make_row
from tests.gpu.timing import current_stream, device_us
from tilestream.kernels.anisotropic import anisotropic
from tilestream.kernels.sample import sample
from tilestream.kernels.texture import anisotropic_texture, sample_texture
from tilestream.kernels.texture_memory import make_texture

EDGE_PX = 4096
LEVELS = 8
GRID = 2048
"""Samples a side."""
MINIFIED = 1.7
"""Px of level 0 between neighbouring samples."""
STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Borders of the histogram of errors, in 1/256 of the contrast of the texels around."""


def pyramid(dtype: torch.dtype, *, channels: int = 4, edge_px: int = EDGE_PX) -> list[torch.Tensor]:
    """Return levels of noise as views `(c, y, x)` of interleaved memory: the hardest case for the weights."""
    torch.manual_seed(0)
    level = torch.rand(1, channels, edge_px, edge_px, device="cuda")
    levels = []
    for _ in range(LEVELS):
        stored = (level[0] * 255).round().to(dtype) if dtype == torch.uint8 else level[0].to(dtype)
        levels.append(stored.permute(1, 2, 0).contiguous().permute(2, 0, 1))
        level = torch.nn.functional.avg_pool2d(level, 2)
    return levels


def positions(*, scattered: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions `(h, w, 2)` and levels: a turned grid as a viewer reads, or anywhere at any level."""
    torch.manual_seed(1)
    if scattered:
        at = torch.rand(GRID, GRID, 2, device="cuda") * EDGE_PX
        return at, torch.rand(GRID, GRID, device="cuda") * (LEVELS - 1)
    y, x = torch.meshgrid(*[torch.arange(GRID, device="cuda", dtype=torch.float32)] * 2, indexing="ij")
    at = torch.stack([300 + MINIFIED * (0.98 * y + 0.2 * x), 50 + MINIFIED * (0.98 * x - 0.2 * y)], 2)
    return at.contiguous(), torch.full((GRID, GRID), 0.77, device="cuda")


def _rate(work: Any) -> float:
    """Return samples a second, in thousand millions."""
    return GRID * GRID / device_us(work) / 1e3


def _rate_row(dtype: torch.dtype, *, scattered: bool, channels: int = 4) -> dict[str, Any]:
    levels, (at, level) = pyramid(dtype, channels=channels), positions(scattered=scattered)
    texture = make_texture(levels, stream=current_stream())
    out = torch.empty(channels, GRID, GRID, device="cuda")
    ours = _rate(lambda: sample_texture(texture, at, level, out=out, stream=current_stream()))
    theirs = _rate(lambda: sample(levels, at, level, out=out, stream=current_stream()))
    moved = GRID * GRID * (4 * channels + 12)  # results, positions and levels; texels come from caches
    name = str(dtype).removeprefix("torch.")
    kind = "scattered, any level" if scattered else f"a turned grid, every {MINIFIED} px"
    return make_row(
        f"texture, {name} × {channels}, {kind}",
        ours,
        "Gsample/s",
        rival=("software sampler", theirs),
        note=f"{EDGE_PX}² px, {GRID}² samples; floor by results and positions alone "
        f"{GRID * GRID / (moved / 4.3e12) / 1e9:.0f} Gsample/s; default only from a ratio of 1.3",
    )


def _contrast(levels: list[torch.Tensor], at: torch.Tensor, finer: int) -> torch.Tensor:
    """Return the largest difference between the texels around each position, in two levels, `(c, h, w)`."""
    spans = []
    for number in (finer, finer + 1):
        level = levels[number].float()
        place = (at / 2**number - 0.5).floor().long()
        near = [
            level[
                :, (place[..., 0] + dy).clamp(0, level.shape[1] - 1), (place[..., 1] + dx).clamp(0, level.shape[2] - 1)
            ]
            for dy in (0, 1)
            for dx in (0, 1)
        ]
        texels = torch.stack(near)
        spans.append(texels.amax(0) - texels.amin(0))
    return torch.maximum(*spans)


def _error_row(dtype: torch.dtype, *, level: float) -> dict[str, Any]:
    levels, (at, _) = pyramid(dtype), positions(scattered=True)
    exact_levels = pyramid(torch.float32) if dtype == torch.float16 else levels
    wanted = torch.full(at.shape[:2], level, device="cuda")
    exact = sample(exact_levels, at, wanted, stream=current_stream())
    texture = make_texture(levels, stream=current_stream())
    found = sample_texture(texture, at, wanted, stream=current_stream())
    contrast = _contrast(exact_levels, at, int(level))
    error = ((found - exact).abs() / contrast.clamp(min=1e-6) * 256)[contrast > contrast.mean() / 4].flatten()
    borders = [0.0, *STEPS, float("inf")]
    shares = [float(((error >= low) & (error < high)).float().mean()) for low, high in itertools.pairwise(borders)]
    listed = ", ".join(
        f"{'≥ ' if high == float('inf') else '< '}{low if high == float('inf') else high:g}: {100 * share:.2f} %"
        for (low, high), share in zip(itertools.pairwise(borders), shares, strict=True)
    )
    largest = float(error.max())
    return make_row(
        f"texture, {str(dtype).removeprefix('torch.')}, largest error at level {level:g}",
        largest,
        "contrast/256",
        note=f"against the software sampler in float32{' on float32 texels' if dtype == torch.float16 else ''}; "
        f"histogram in 1/256 of the contrast around: {listed}; mean {float(error.mean()):.3f}",
    )


def _copy_row(dtype: torch.dtype) -> dict[str, Any]:
    levels, (at, level) = pyramid(dtype), positions(scattered=False)
    texture = make_texture(levels, stream=current_stream())
    out = torch.empty(4, GRID, GRID, device="cuda")
    fetch_us = device_us(lambda: sample_texture(texture, at, level, out=out, stream=current_stream()))
    made = [texture]  # freed when the copies have run
    us = device_us(lambda: made.append(make_texture(levels, stream=current_stream())), rounds=10, repeat=1)
    for one in made:
        one.close()
    size = sum(one.numel() * one.element_size() for one in levels)
    return make_row(
        f"making a texture, {str(dtype).removeprefix('torch.')} × 4, {EDGE_PX}² px",
        us,
        "µs",
        note=f"{LEVELS} levels with allocation; floor {2 * size / 4.3e6:.0f} µs; a call of {GRID}² samples takes "
        f"{fetch_us:.0f} µs",
    )


def _anisotropic_row() -> dict[str, Any]:
    levels, (at, _) = pyramid(torch.uint8), positions(scattered=False)
    texture = make_texture(levels, stream=current_stream())
    out, exact = (torch.empty(4, GRID, GRID, device="cuda") for _ in range(2))
    du, dv = (8.0, 0.0), (0.0, 1.7)
    ours = _rate(lambda: anisotropic_texture(texture, at, du, dv, out=out, stream=current_stream()))
    theirs = _rate(lambda: anisotropic(levels, at, du, dv, out=exact, stream=current_stream()))
    error = (out - exact).abs()
    return make_row(
        "texture, anisotropic, footprints of 8 × 1.7 px",
        ours,
        "Gsample/s",
        rival=("software sampler, 5 probes", theirs),
        note=f"8-bit noise × 4; differs by {float(error.mean()):.2f} codes in the mean, most {float(error.max()):.1f}",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [
        _rate_row(torch.uint8, scattered=False),
        _rate_row(torch.uint8, scattered=True),
        _rate_row(torch.uint8, scattered=False, channels=1),
        _rate_row(torch.float16, scattered=False),
        _rate_row(torch.float16, scattered=True),
        _rate_row(torch.float32, scattered=False),
        _rate_row(torch.float32, scattered=True),
        _error_row(torch.uint8, level=0.77),
        _error_row(torch.float32, level=0.0),
        _error_row(torch.float32, level=0.77),
        _error_row(torch.float16, level=0.77),
        _copy_row(torch.uint8),
        _anisotropic_row(),
    ]
