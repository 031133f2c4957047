"""A torch module as a user would name it: a class, made once a process."""

from __future__ import annotations

import torch

from tilestream.types import StageContract


class SmallModel(torch.nn.Module):
    """Two convolutions and a mean, with fixed weights."""

    contract = StageContract(
        name="small", px=256, dim=8, channels=3, framework="torch", scale=1 / 255, mean=(0.7, 0.5, 0.7), std=(0.2,)
    )

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = torch.nn.Parameter(torch.randn(16, 3, 8, 8, generator=generator) / 14)
        self.second = torch.nn.Parameter(torch.randn(8, 16, 3, 3, generator=generator) / 12)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        found = torch.nn.functional.conv2d(samples, self.first, stride=8).relu()
        return torch.nn.functional.conv2d(found, self.second).mean(dim=(2, 3))
