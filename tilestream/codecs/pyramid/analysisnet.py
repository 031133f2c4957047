"""The network that foretells the grids of a tile, in torch: from the coarsest to the finest, each knows those before.

Pixels go down through halved sizes, two by two pixels becoming one cell of four times the features. Then from the
coarsest up: the features of a size, what came from below, and the rounded coarser grids raised to that size give its
grid. So a finer grid can make good what rounding has cost the coarser ones.

Source: Blard et al. 2024, arXiv 2403.11651 (such codecs without a fit of each picture); Shi et al. 2016,
arXiv 1609.05158 (cells to features and back).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tilestream.codecs.pyramid.analysis import Analysis
from tilestream.codecs.pyramid.nets import LATENT_MOST
from tilestream.errors import DamagedError

WIDTHS = (32, 48, 48, 48, 48, 48)
"""Features of each size but the finest."""
GAIN = 8.0
"""So that grids span several whole numbers from the start: below that, rounding drowns them."""
MIDDLE = 0.6
"""Of pixels of 0 to 1; near that of tissue."""
Raise = Callable[[torch.Tensor, int, tuple[int, int]], torch.Tensor]
"""Raises grids `(n, k, y, x)` to the size of grid `l`, as the decoder will."""
Quantise = Callable[[torch.Tensor], torch.Tensor]


class AnalysisNet(nn.Module):
    """Pixels to grids.

    Parameters
    ----------
    channels : int
        Of pictures.
    widths : sequence of int
        Features of each size but the finest; there is one grid more than sizes.
    """

    def __init__(self, channels: int, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.channels, self.widths = channels, tuple(widths)
        pairs = list(itertools.pairwise(widths))
        self.enter = _around(4 * channels, widths[0])
        self.down = nn.ModuleList(nn.Conv2d(4 * finer, coarser, 1) for finer, coarser in pairs)
        self.seen = nn.ModuleList(_Block(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(coarser, finer, 1) for finer, coarser in pairs)
        self.told = nn.ModuleList(_around(len(widths) - 1 - n, finer) for n, (finer, _) in enumerate(pairs))
        self.joined = nn.ModuleList(_Block(width) for width in widths)
        self.leave = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths)
        self.told_last = _around(len(widths), widths[0])
        self.last = nn.Sequential(_Block(widths[0]), _Block(widths[0]))
        self.leave_last, self.straight = nn.Conv2d(widths[0], 4, 1), _around(4 * channels, 4)
        with torch.no_grad():
            for out in (*self.leave, self.leave_last):
                out.weight.mul_(0.5)

    @property
    def scales(self) -> int:
        """Return how many grids there are."""
        return len(self.widths) + 1

    def forward(self, pixels: torch.Tensor, raised: Raise, quantise: Quantise) -> list[torch.Tensor]:
        """Return the grids of pictures, before they are rounded.

        Parameters
        ----------
        pixels : Tensor
            `(n, c, y, x)` in 0 to 1; sizes are multiples of 2^(scales − 1).
        raised : callable
            The decoder's filters.
        quantise : callable
            Rounds, in whatever way gradients are to pass.

        Returns
        -------
        list of Tensor
            `(n, 1, y / 2^l, x / 2^l)`, finest first.
        """
        cells = functional.pixel_unshuffle(pixels - MIDDLE, 2)
        seen = [self.seen[0](self.enter(cells))]
        for down, block in zip(self.down, self.seen[1:], strict=True):
            seen.append(block(down(functional.pixel_unshuffle(seen[-1], 2))))
        grids: list[torch.Tensor] = []
        features = known = None
        for number in reversed(range(len(self.widths))):
            joined, size = seen[number], _size(seen[number])
            if features is not None and known is not None:
                known = raised(known, number + 1, size)
                below = functional.interpolate(self.up[number](features), size=size, mode="nearest")
                joined = joined + below + self.told[number](known / GAIN)
            features = self.joined[number](joined)
            grids.insert(0, GAIN * self.leave[number](features))
            own = quantise(grids[0])
            known = own if known is None else torch.cat([own, known], dim=1)
        assert features is not None
        assert known is not None
        features = self.last(features + self.told_last(known / GAIN))
        finest = functional.pixel_shuffle(self.leave_last(features) + self.straight(cells), 2)
        return [GAIN * finest, *grids]

    def record(self) -> Analysis:
        """Return it as what files hold, in half precision."""
        flat = torch.cat([part.detach().reshape(-1) for part in self.parameters()]).numpy()
        return Analysis(channels=self.channels, scales=self.scales, widths=self.widths, weights=flat.astype(np.float16))

    @classmethod
    def of(cls, analysis: Analysis) -> AnalysisNet:
        """Return the network of a record, which does not learn; raise `DamagedError` where its weights do not fit."""
        found = cls(analysis.channels, analysis.widths)
        flat, at = torch.from_numpy(analysis.weights.astype(np.float32)), 0
        if sum(part.numel() for part in found.parameters()) != len(flat):
            raise DamagedError(f"analysis of pyramids: {len(flat):,} weights, which its sizes do not have")
        for part in found.parameters():
            part.data = flat[at : at + part.numel()].reshape(part.shape)
            at += part.numel()
        return found.requires_grad_(False)


def whole(grid: torch.Tensor) -> torch.Tensor:
    """Return a rounded grid within its range."""
    return grid.round().clamp(-LATENT_MOST, LATENT_MOST)


def straight_through(grid: torch.Tensor) -> torch.Tensor:
    """Return a rounded grid whose gradient is that of the grid."""
    return grid + (whole(grid.detach()) - grid.detach())


class _Block(nn.Module):
    """Adds what a 3×3 convolution and a perceptron after it find."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around, self.within = _around(width, width), nn.Conv2d(width, width, 1)
        with torch.no_grad():
            self.within.weight.mul_(0.5)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return as many features."""
        found: torch.Tensor = features + self.within(functional.relu(self.around(features)))
        return found


def _around(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="replicate")


def _size(features: torch.Tensor) -> tuple[int, int]:
    y, x = features.shape[2:]
    return y, x
