"""A network under autocast: it multiplies in a half type and keeps weights, norms and what is added up in float32."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class HalfType(nn.Module):
    """A network that computes in a half type and gives float32.

    Parameters
    ----------
    network : torch.nn.Module
        With weights in float32.
    dtype : torch.dtype
        `torch.bfloat16` or `torch.float16`.
    """

    keeps_type: ClassVar[bool] = True
    """Tells a runner that casting the weights is not its business."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return what the network gives, float32."""
        with torch.autocast(x.device.type, dtype=self.dtype):
            found: Tensor = self.network(x)
        return found.float()
