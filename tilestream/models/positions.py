"""Learned positions of tokens, brought to a grid of another size."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Positions: TypeAlias = Literal["scale", "size"]
"""How learned positions are brought to another grid, see `resized_positions`."""

GRID_OFFSET = 0.1
"""What the scale rule adds to the new number of tokens along an axis."""


def resized_positions(
    positions: Tensor, grid_yx: tuple[int, int], to_yx: tuple[int, int], *, rule: Positions
) -> Tensor:
    """Return learned positions for another grid.

    Parameters
    ----------
    positions : Tensor
        `[1, 1 + gh * gw, dim]`, the first is the class token's and stays as it is.
    grid_yx : tuple of int
        Their grid, `gh, gw`.
    to_yx : tuple of int
        The grid that is wanted.
    rule : {"scale", "size"}
        `scale`: bicubic by the factors `(h + 0.1) / gh` and `(w + 0.1) / gw`, which also place the samples; DINO and
        HIPT do so. `size`: bicubic and antialiased between the two sizes, as timm does.

    Returns
    -------
    Tensor
        `[1, 1 + h * w, dim]`; the same tensor where the grids are equal.

    Notes
    -----
    At 14 to 16 tokens the rules differ by 11 % RMS: a network must be run with the one that it was published with.
    """
    if to_yx == grid_yx:
        return positions
    exact = positions.to(torch.promote_types(positions.dtype, torch.float32))
    grid = exact[:, 1:].reshape(1, *grid_yx, -1).permute(0, 3, 1, 2)  # 1, dim, gh, gw
    if rule == "scale":
        factors = [(to + GRID_OFFSET) / of for to, of in zip(to_yx, grid_yx, strict=True)]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")  # 1, dim, h, w
    else:
        grid = F.interpolate(grid, size=to_yx, mode="bicubic", antialias=True)  # 1, dim, h, w
    tokens = grid.permute(0, 2, 3, 1).flatten(1, 2)  # 1, h w, dim
    return torch.cat([exact[:, :1], tokens], dim=1).to(positions.dtype)
