"""Resampling against OpenCV, normalising against torch and blending against the usual loop, in one run each."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.bands import cores
from tilestream.kernels.blend import blend
from tilestream.kernels.blend_finish import finish_blend
from tilestream.kernels.blend_sums import blend_sums
from tilestream.kernels.patchify import patchify
from tilestream.kernels.resample import resample

EDGE_PX = 4096
TILES, TILE_PX = 64, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCHIFY_BAR = 2.0
"""Times the rate of the torch chain."""


def _rates(contestants: list[Callable[[], object]], amount: float, rounds: int) -> list[float]:
    def worth(work: Callable[[], object]) -> Callable[[], float]:
        def run() -> float:
            work()
            return amount

        work()  # compiles, or loads what was compiled
        return run

    return rates([worth(work) for work in contestants], rounds=rounds)


def resample_rows(edge_px: int = EDGE_PX, *, rounds: int = 5) -> list[dict[str, Any]]:
    """Return rows of area-weighted resampling, ours and OpenCV's on all cores."""
    pixels = np.random.default_rng(0).integers(0, 256, (edge_px, edge_px, 3), np.uint8)
    planar = np.moveaxis(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), 0, 2)
    cv2.setNumThreads(cores())
    found = []
    for ratio in (Fraction(500, 499), Fraction(2), Fraction(7, 3), Fraction(8)):
        size = int(edge_px / ratio)
        out, valid = np.empty((size, size, 3), np.uint8), np.empty((size, size), np.bool_)

        def ours(source: npt.NDArray[np.uint8], ratio: Fraction = ratio, out: Any = out, valid: Any = valid) -> None:
            resample(
                source, None, ratio_yx=(ratio, ratio), src_yx=(0, 0), dst_yx=(0, 0), out=out, out_valid=valid
            )  # fmt: skip

        def rival(size: int = size) -> None:
            cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)

        ours_mpx, planar_mpx, rival_mpx = _rates(
            [lambda f=ours: f(pixels), lambda f=ours: f(planar), rival], edge_px**2 / 1e6, rounds
        )
        found.append(
            make_row(
                f"resample by {float(ratio):.4g}, all cores",
                ours_mpx,
                "Mpx/s",
                rival=("cv2.resize INTER_AREA", rival_mpx),
                note=f"stored 8-bit RGB, interleaved; planar {planar_mpx:,.0f} Mpx/s. OpenCV takes no mask and no "
                "phase: cuts of an image do not fit together" + ("; mip halves faster" if ratio == 2 else ""),
            )
        )
    return found


def _chain(tiles: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, dtype: torch.dtype, patch: int) -> torch.Tensor:
    found = tiles.permute(0, 3, 1, 2).contiguous().float().div(255).sub(mean).div(std).to(dtype)
    if not patch:
        return found
    n, c, h, w = found.shape
    cut = found.reshape(n, c, h // patch, patch, w // patch, patch)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * patch * patch)


def patchify_row(
    *, dtype: str, patch: int, tiles: int = TILES, rounds: int = 5, bar: float | None = None
) -> dict[str, Any]:
    """Return the rate of decoded tiles that become a model batch, ours and that of torch on all cores."""
    memory = np.random.default_rng(0).integers(0, 256, (tiles, TILE_PX, TILE_PX, 3), np.uint8)
    pixels, tensor = memory.transpose(0, 3, 1, 2), torch.from_numpy(memory)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.set_num_threads(cores())
    ours, rival = _rates(
        [
            lambda: patchify(pixels, mean=MEAN, std=STD, dtype=dtype, patch_px=patch or None),
            lambda: _chain(tensor, mean, std, getattr(torch, dtype), patch),
        ],
        tiles * TILE_PX**2 / 1e6,
        rounds,
    )
    return make_row(
        f"patchify to {dtype} {f'patches of {patch} px' if patch else 'images'}, all cores",
        ours,
        "Mpx/s",
        rival=("torch: permute, contiguous, float, div, normalise", rival),
        bar=None if bar is None else at_least(bar),
        note=f"{tiles} tiles of {TILE_PX} px, 8-bit RGB, interleaved",
    )


def blend_row(*, edge_px: int = 2048, tile_px: int = 256, channels: int = 4, rounds: int = 5) -> dict[str, Any]:
    """Return the rate of overlapping score maps that become one raster, ours and that of a loop in torch."""
    step, noise = tile_px * 3 // 4, np.random.default_rng(0)
    corner = np.arange(0, edge_px - tile_px + 1, step)
    origins = np.stack(np.meshgrid(corner, corner, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int64)
    tiles = noise.random((len(origins), channels, tile_px, tile_px), np.float32)
    tensor, ramp = torch.from_numpy(tiles), torch.ones(tile_px)
    ramp[: tile_px // 4] = torch.arange(1, tile_px // 4 + 1) / (tile_px // 4)
    window = ramp * ramp.flip(0)
    window = window[:, None] * window
    torch.set_num_threads(cores())

    def ours() -> None:
        sums = blend_sums(tiles, (edge_px, edge_px), limit=1.0)
        finish_blend(blend(sums, tiles, origins, feather_px=tile_px // 4))

    def rival() -> None:
        total, weight = torch.zeros(channels, edge_px, edge_px), torch.zeros(edge_px, edge_px)
        for tile, (y, x) in zip(tensor, origins.tolist(), strict=True):
            total[:, y : y + tile_px, x : x + tile_px] += tile * window
            weight[y : y + tile_px, x : x + tile_px] += window
        total.div_(weight.clamp_min(1e-12))

    ours_mpx, rival_mpx = _rates([ours, rival], len(origins) * tile_px**2 / 1e6, rounds)
    return make_row(
        f"blend float32 maps of {channels} channels, all cores",
        ours_mpx,
        "Mpx/s",
        rival=("torch: += tile * window on slices", rival_mpx),
        note=f"{len(origins)} tiles of {tile_px} px, a quarter overlapping, sums and mean of {edge_px}² px; ours in "
        "integers, the same for any order of tiles; the rival's float sums are not",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return [
        *resample_rows(),
        patchify_row(dtype="float32", patch=0, bar=PATCHIFY_BAR),
        patchify_row(dtype="float16", patch=0, bar=PATCHIFY_BAR),
        patchify_row(dtype="float32", patch=16, bar=PATCHIFY_BAR),
        patchify_row(dtype="float16", patch=14, bar=PATCHIFY_BAR),
        blend_row(),
    ]
