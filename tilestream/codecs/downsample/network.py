"""Learned downsampling and its way back as networks of torch: what is trained, and what restores.

    small_l = round(mean(small_{l−1}) + perceptron(window of small_{l−1} − ½)),           small_0 = the image
    large_{l−1} = bicubic(large_l) + shuffle(3 × 3 convolutions of large_l − ½),          large_l = small_l

Samples are 0 to 1. The perceptron of each step is a convolution of stride 2 and two of 1 × 1, whose windows are centred
where the mean is, so that small images lie where means do. Both sides begin as the mean and as bicubic upsampling.
Rounding to 8 bits passes gradients straight through (Bengio et al. 2013, arXiv:1308.3432): what is stored is what is
trained on. Source of the pairing: Kim et al., "Task-aware image downscaling", ECCV 2018; the guide that keeps the small
image like the large one: Xiao et al., "Invertible image rescaling", ECCV 2020, arXiv:2005.05650.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tilestream.codecs.downsample.record import DownsamplerRecord


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x.clamp(0, 1) * 255) / 255

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        return cast("Tensor", gradients[0])


def rounded(x: Tensor) -> Tensor:
    """Return samples of 0 to 1 as 8 bits hold them; gradients pass as if nothing was done."""
    return cast("Tensor", _Round.apply(x))  # type: ignore[no-untyped-call]


class DownStep(nn.ModuleList):
    """One step to half the size.

    Parameters
    ----------
    record : DownsamplerRecord
        Its sizes.
    """

    def __init__(self, record: DownsamplerRecord) -> None:
        sizes = (record.channels * record.window_px**2, record.width, record.width, record.channels)
        super().__init__(nn.Linear(taken, given) for taken, given in pairwise(sizes))
        self.channels, self.edge = record.channels, record.window_px
        _begin_at_zero(self[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Return `(n, c, ceil(y/2), ceil(x/2))` of `(n, c, y, x)`, not rounded."""
        x = functional.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="replicate")
        near = self.edge // 2 - 1
        found = functional.pad(x, (near,) * 4, mode="replicate") - 0.5
        for layer, module in enumerate(cast("list[nn.Linear]", list(self))):
            weight = module.weight.view(len(module.weight), -1, *((1, 1) if layer else (self.edge, self.edge)))
            found = functional.conv2d(found, weight, module.bias, stride=1 if layer else 2)
            found = functional.relu(found) if layer < len(self) - 1 else found
        return functional.avg_pool2d(x, 2) + found


class UpStep(nn.ModuleList):
    """One step to twice the size.

    Parameters
    ----------
    record : DownsamplerRecord
        Its sizes.
    """

    def __init__(self, record: DownsamplerRecord) -> None:
        widths = (record.channels, *[record.up_width] * (record.up_layers - 1), 4 * record.channels)
        super().__init__(nn.Conv2d(taken, given, 3) for taken, given in pairwise(widths))
        _begin_at_zero(self[-1])

    def forward(self, y: Tensor) -> Tensor:
        """Return `(n, c, 2y, 2x)` of `(n, c, y, x)`, not rounded."""
        found = functional.pad(y, (len(self),) * 4, mode="replicate") - 0.5
        for layer, module in enumerate(self):
            found = module(found)
            found = functional.relu(found) if layer < len(self) - 1 else found
        smooth = functional.interpolate(y, scale_factor=2, mode="bicubic", align_corners=False)
        return smooth + functional.pixel_shuffle(found, 2)


class DownsamplerNetwork(nn.Module):
    """All steps down and up.

    Parameters
    ----------
    record : DownsamplerRecord
        Its sizes.
    """

    def __init__(self, record: DownsamplerRecord) -> None:
        super().__init__()
        self.record = record
        self.down = nn.ModuleList(DownStep(record) for _ in range(record.levels))
        self.up = nn.ModuleList(UpStep(record) for _ in range(record.levels))

    def smaller(self, x: Tensor) -> list[Tensor]:
        """Return the small images of `(n, c, y, x)`, level 1 first, as 8 bits hold them."""
        found = []
        for step in self.down:
            x = rounded(step(x))
            found.append(x)
        return found

    def larger(self, y: Tensor, level: int) -> Tensor:
        """Return what level 0 was, from the small image of a level; not rounded."""
        for step in reversed(list(self.up)[:level]):
            y = step(y)
        return y


def _begin_at_zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
