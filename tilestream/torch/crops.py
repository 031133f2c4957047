"""Random squares of feature grids, mirrored by chance; where a region is only partly covered, of what is covered."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

COVERED = 0.5
"""Least tokens of a square, as a share of those of the square that has most of them in its region."""
FLIPPED = 0.5
"""Share of squares that are mirrored, left to right."""


def random_crops(grids: Tensor, mask: Tensor, *, cells: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return one square of each grid, at a place by chance.

    Parameters
    ----------
    grids : Tensor
        `[n, d, h, w]`.
    mask : Tensor of bool
        `[n, h, w]` on the CPU, True where there is a vector; each grid has one.
    cells : int
        Edge of the square.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    crops : Tensor
        `[n, d, cells, cells]` on the device of `grids`.
    mask : Tensor of bool
        `[n, cells, cells]` there too.

    Notes
    -----
    Of a whole region all places are equally likely, as in HIPT. Of others those that hold half as many vectors as the
    fullest square or more, so that none is empty.
    """
    n, _, _, width = grids.shape
    ones = torch.ones(1, 1, cells, cells)
    counts = F.conv2d(mask[:, None].float(), ones)[:, 0].round()  # n, h - cells + 1, w - cells + 1
    columns = counts.shape[2]
    flat = counts.flatten(1)  # n, places
    allowed = (flat >= COVERED * flat.amax(1, keepdim=True)) & (flat > 0)
    place = torch.multinomial(allowed.float(), 1, generator=generator)[:, 0]  # n
    flipped = torch.rand(n, generator=generator) < FLIPPED
    along = torch.arange(cells)
    rows = (place // columns)[:, None] + along  # n, cells
    across = (place % columns)[:, None] + torch.where(flipped[:, None], along.flip(0), along)  # n, cells
    at = rows[:, :, None] * width + across[:, None, :]  # n, cells, cells
    own = mask.flatten(1).gather(1, at.flatten(1)).reshape(at.shape)  # n, cells, cells
    at = at.to(grids.device).flatten(1)[:, None].expand(-1, grids.shape[1], -1)  # n, d, cells * cells
    crops = grids.flatten(2).gather(2, at).reshape(n, -1, cells, cells)  # n, d, cells, cells
    return crops, own.to(grids.device)
