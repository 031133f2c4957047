"""Tokens of a pyramid to a normalised batch, against what is written with torch: two `grid_sample` calls and a lerp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import grid_sample

from tests.bench.table import at_least, make_row, rates
from tilestream.kernels.gather import gather
from tilestream.kernels.sample import sample
from tilestream.testing.tissue import Tissue
from tilestream.types import Box, Shape

EDGE_PX = 4096
PATCH_PX = 256
TOKENS = 32
BAR = 4.0
"""Ratio to torch, levels between two."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RIVAL = "torch grid_sample ×2 + lerp"
HOW = (
    f"{TOKENS} tokens of {PATCH_PX} px, 8-bit RGB, 2 cores, a new batch each call; torch: levels as planar float32 "
    "tensors made before, all tokens between the same two levels, so one grid a level and no regrouping, normalised in "
    "place"
)


def tissue_pyramid(edge_px: int = EDGE_PX) -> list[npt.NDArray[np.uint8]]:
    """Return interleaved levels `(c, y, x)` of synthetic stained tissue."""
    shape = Shape(y=edge_px, x=edge_px)
    level = Tissue(shape=shape, seed=1, mpp=0.5).paint(Box(y=0, x=0, height=edge_px, width=edge_px))
    levels = [level]
    for _ in range(2):
        half = levels[-1].astype(np.uint16)
        half = half[::2, ::2] + half[1::2, ::2] + half[::2, 1::2] + half[1::2, 1::2]
        levels.append(((half + 2) // 4).astype(np.uint8))
    return [np.moveaxis(each, 2, 0) for each in levels]


def some_tokens(edge_px: int, *, between: bool, count: int = TOKENS) -> npt.NDArray[np.float64]:
    """Return tokens of levels between 0 and 1, each as large as its level makes it, or of level 1 and on its texels."""
    noise = np.random.default_rng(0)
    level = noise.uniform(0.1, 0.9, count) if between else np.ones(count)
    size = PATCH_PX * 2**level
    corner = noise.random((count, 2)) * (edge_px - size[:, None])
    return np.concatenate([level[:, None], corner if between else np.floor(corner / 2) * 2, size[:, None]], 1)


def torch_gather(levels: list[torch.Tensor], tokens: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return what `gather` returns, by torch; `levels` is the one level of all tokens, or the two they lie between."""
    edge = levels[0].shape[-1] if len(levels) == 2 else 2 * levels[0].shape[-1]
    steps = (torch.arange(PATCH_PX, dtype=tokens.dtype) + 0.5) / PATCH_PX
    y = (tokens[:, 1:2] + steps * tokens[:, 3:]) * (2 / edge) - 1
    x = (tokens[:, 2:3] + steps * tokens[:, 3:]) * (2 / edge) - 1
    grid = torch.empty(len(tokens), PATCH_PX, PATCH_PX, 2)
    grid[..., 0], grid[..., 1] = x[:, None, :], y[:, :, None]
    read = [
        grid_sample(each.expand(len(tokens), -1, -1, -1), grid, padding_mode="border", align_corners=False)
        for each in levels
    ]
    batch = torch.lerp(*read, tokens[:, 0, None, None, None].float()) if len(read) == 2 else read[0]
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    return batch.mul_(1 / 255 / std).sub_(mean / std).to(dtype)


def gather_row(
    levels: list[npt.NDArray[np.uint8]], *, between: bool, dtype: str, rounds: int = 5, bar: float | None = None
) -> dict[str, Any]:
    """Return the rate of the gather beside torch's, after both gave the same batch."""
    tokens = some_tokens(levels[0].shape[-1], between=between)
    used = levels[:2] if between else levels[1:2]
    tensors = [torch.from_numpy(np.ascontiguousarray(each)).float()[None] for each in used]
    listed = torch.from_numpy(tokens)

    def ours() -> npt.NDArray[Any]:
        batch: npt.NDArray[Any] = gather(
            levels, tokens, patch_px=PATCH_PX, mean=MEAN, std=STD, scale=1 / 255, dtype=dtype
        )
        return batch

    def theirs() -> torch.Tensor:
        return torch_gather(tensors, listed, getattr(torch, dtype))

    np.testing.assert_allclose(ours(), theirs().numpy(), rtol=0, atol=0.01)
    value, rival = rates([_mpx(ours), _mpx(theirs)], rounds=rounds)
    return make_row(
        f"token gather, {'between two levels' if between else 'one level, on its texels'}, {dtype}",
        value, "Mpx/s", rival=(RIVAL if between else "torch grid_sample", rival),
        bar=None if bar is None else at_least(bar), note=HOW,
    )  # fmt: skip


def sample_row(levels: list[npt.NDArray[np.uint8]], rounds: int = 5) -> dict[str, Any]:
    """Return the rate of sampling at scattered positions and levels."""
    noise = np.random.default_rng(0)
    edge = levels[0].shape[-1]
    at = (noise.random((512, 512, 2)) * edge).astype(np.float32)
    tensors = [torch.from_numpy(np.ascontiguousarray(each)).float()[None] for each in levels[:2]]
    grid = (torch.from_numpy(at) / edge * 2 - 1).flip(-1)[None]

    def ours() -> object:
        return sample(levels, at, 0.5)

    def theirs() -> object:
        read = [grid_sample(each, grid, padding_mode="border", align_corners=False) for each in tensors]
        return torch.lerp(read[0], read[1], 0.5)

    value, rival = rates([_mpx(ours, 512 * 512), _mpx(theirs, 512 * 512)], rounds=rounds)
    return make_row(
        "sample at scattered positions", value, "Mpx/s", rival=(RIVAL, rival),
        note="8-bit RGB, level 0.5, 2 cores; torch reads float32 planes and a grid made before",
    )  # fmt: skip


def _mpx(work: Callable[[], object], px: int = TOKENS * PATCH_PX**2) -> Callable[[], float]:
    def once() -> float:
        work()
        return px / 1e6

    return once


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    torch.set_num_threads(2)
    levels = tissue_pyramid()
    return [
        gather_row(levels, between=True, dtype="float32", bar=BAR),
        gather_row(levels, between=True, dtype="float16", bar=BAR),
        gather_row(levels, between=False, dtype="float32"),
        gather_row(levels, between=False, dtype="float16"),
        sample_row(levels),
    ]
