"""A region stage on torch, as a user would name it."""

from __future__ import annotations

import torch


class GridMean(torch.nn.Module):
    """A linear map of the mean over the tiles that count."""

    def __init__(self, dim: int = 3, out: int = 4) -> None:
        super().__init__()
        self.map = torch.nn.Linear(dim, out)

    def forward(self, grid: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count = mask.sum(dim=(1, 2))[:, None]  # n, 1
        return self.map(grid.sum(dim=(2, 3)) / count)  # n, out
