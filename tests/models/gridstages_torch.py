"""Region stages on torch, as a user would name them."""

from __future__ import annotations

import torch

from tilestream.models.vit import GridEmbed, VisionTransformer
from tilestream.models.weights import random_weights
from tilestream.types import RegionContract


class GridMean(torch.nn.Module):
    """A linear map of the mean over the tiles that count."""

    def __init__(self, dim: int = 3, out: int = 4) -> None:
        super().__init__()
        self.map = torch.nn.Linear(dim, out)

    def forward(self, grid: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count = mask.sum(dim=(1, 2))[:, None]  # n, 1
        return self.map(grid.sum(dim=(2, 3)) / count)  # n, out


class SmallViT(VisionTransformer):
    """A transformer over grids of three values, with weights that a seed decides; its mask leaves tokens out."""

    contract = RegionContract(tiles=4, whole_regions=True)

    def __init__(self) -> None:
        super().__init__(GridEmbed(channels=3, dim=24), dim=24, depth=2, heads=2, grid_yx=(3, 3))
        random_weights(self, seed=11)
