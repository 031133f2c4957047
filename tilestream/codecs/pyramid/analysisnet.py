"""The network that foretells the grids of a tile, in torch: from the coarsest to the finest, each knows those before.

Pixels go down through halved sizes, two by two pixels becoming one cell of four times the features. Then from the
coarsest up: the features of a size, what came from below, and the rounded coarser grids raised to that size give its
grid. So a finer grid can make good what rounding has cost the coarser ones. Before training, grids are a Laplacian
pyramid of the main colour, to which features add little: from chance, training finds grids that cost more.

Source: Blard et al. 2024, arXiv 2403.11651 (such codecs without a fit of each picture); Shi et al. 2016,
arXiv 1609.05158 (cells to features and back).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tilestream.codecs.pyramid.analysis import Analysis
from tilestream.codecs.pyramid.tables import HIGH
from tilestream.errors import DamagedError

WIDTHS = (32, 48, 48, 48, 48, 48, 48)
"""Features of each size but the finest, of as many grids as there can be."""
MOST = HIGH
"""Largest magnitude of a number that is written: the middle of its model is nearer than that to most."""
GAIN = 8.0
"""Of what features add to grids, which span several whole numbers."""
MIDDLE = 0.6
"""Of pixels of 0 to 1; near that of tissue."""
STEP = 0.16
"""Of the finest grid before training, in pixels of 0 to 1; each coarser one has half of it."""
STEP_OF_PRICE = 5.1
"""Times the root of λ is the step that costs least, about."""
LEAST_STEP = 0.01
"""Of any grid before training: white and black are within what a symbol holds."""
LEAVES = 0.05
"""Of what features add to grids before training: little."""
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

    def __init__(self, channels: int, widths: Sequence[int] = WIDTHS[:6]) -> None:
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
        self.leave_last = nn.Conv2d(widths[0], 4, 1)
        self.colour = nn.Parameter(torch.full((channels,), channels**-0.5))
        self.middle = nn.Parameter(torch.full((channels,), MIDDLE))
        self.log_steps = nn.Parameter(math.log(STEP) - math.log(2) * torch.arange(len(widths) + 1.0))
        with torch.no_grad():
            for out in (*self.leave, self.leave_last):
                out.weight.mul_(LEAVES)
                out.bias.zero_()

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
        plain = (self.colour[:, None, None] * (pixels - self.middle[:, None, None])).sum(dim=1, keepdim=True)
        means, steps = [plain], self.log_steps.exp()
        for _ in self.widths:
            means.append(functional.avg_pool2d(means[-1], 2))
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
                joined = joined + below + self.told[number](_scaled(known, steps))
            features = self.joined[number](joined)
            own = self._own(means[number + 1], known, steps[number + 1 :]) + GAIN * self.leave[number](features)
            grids.insert(0, own)
            rounded = quantise(own)
            known = rounded if known is None else torch.cat([rounded, known], dim=1)
        assert features is not None
        assert known is not None
        features = self.last(features + self.told_last(_scaled(known, steps)))
        finest = functional.pixel_shuffle(self.leave_last(features), 2)
        known = raised(known, 0, _size(plain))
        return [self._own(plain, known, steps) + GAIN * finest, *grids]

    @staticmethod
    def _own(mean: torch.Tensor, known: torch.Tensor | None, steps: torch.Tensor) -> torch.Tensor:
        """Return what coarser grids leave of a plain picture, in steps of its grid."""
        if known is not None:
            mean = mean - (steps[1:, None, None] * known).sum(dim=1, keepdim=True)
        return mean / steps[0]

    def begin(self, pixels: torch.Tensor, *, lmbda: float) -> None:
        """Take the main colour of pictures, and steps that suit a price: what training starts from.

        Parameters
        ----------
        pixels : Tensor
            `(n, c, y, x)` in 0 to 1.
        lmbda : float
            What a bit a pixel costs.
        """
        flat = pixels.transpose(0, 1).flatten(1)
        middle = flat.mean(dim=1)
        _, vectors = torch.linalg.eigh((flat - middle[:, None]) @ (flat - middle[:, None]).T)
        colour = vectors[:, -1] * (1.0 if vectors[:, -1].sum() >= 0 else -1.0)
        with torch.no_grad():
            self.colour.copy_(colour)
            self.middle.copy_(middle)
            steps = STEP_OF_PRICE * math.sqrt(lmbda) * 0.5 ** torch.arange(self.scales)
            self.log_steps.copy_(steps.clamp_min(LEAST_STEP).log())

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
    """Return a rounded grid, within what a symbol holds: finer grids make good what a coarser one cannot say."""
    return grid.round().clamp(-MOST, MOST)


def straight_through(grid: torch.Tensor) -> torch.Tensor:
    """Return a rounded grid whose gradient is that of the grid."""
    return grid + (whole(grid.detach()) - grid.detach())


def _scaled(known: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Return coarse grids in steps of the finest one."""
    own = steps[-known.shape[1] :] / steps[0]
    return known * own[:, None, None].detach()


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
