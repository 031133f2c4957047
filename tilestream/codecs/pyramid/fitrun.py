"""A model on its way to a tile: where it starts, and its steps.

All chance is that of torch's generator, whose state the caller keeps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from tilestream.codecs.pyramid.fitops import raised, soft_round
from tilestream.codecs.pyramid.fittarget import Target
from tilestream.codecs.pyramid.model import BILINEAR, PyramidModel
from tilestream.codecs.pyramid.netsteps import Weighed
from tilestream.codecs.pyramid.soap import Soap
from tilestream.errors import ConfigError
from tilestream.types import Array

NUMBER_RATE, NETWORK_RATE = 0.25, 1e-2
"""At the start: of Adam on the numbers, and of `soap` on the networks."""
BETAS, EPSILON = (0.9, 0.95), 1e-10
"""Of Adam."""
WARMUP_STEPS = 20
LAST_SHARE = 0.02
"""Of the rates, when numbers are rounded."""
SETTLED_FROM = 0.88
"""Share of a fit after which numbers stay."""
SETTLING = 0.3
"""Of the rates of networks, at the start of the rest."""
TEMPERATURES, NOISES = (0.35, 0.08), (0.22, 0.15)
"""Of soft rounding at the start and end, and deviations of its noise."""
STEP_OF_LMBDA = 5.1
"""Times √λ: the step of the main colour, of which the three channels share a squared error (√3 · √(6 / ln 2))."""
MOST_NUMBER = 60.0
"""Magnitude that numbers keep to: a difference of 128 and more from a middle cannot be coded, and what is clamped then
is a coarse grid's, of which a few numbers cost half a decibel."""


class FitRun:
    """A model, and how far it is.

    Parameters
    ----------
    model : PyramidModel
        Changed by every step.
    target : Target
        Of as many levels as it has syntheses.
    lmbda : float
        Price of a bit a pixel.
    steps : int
        Of all.
    keeps_networks : bool
        Whether numbers alone change; otherwise networks start from chance, or as they are.
    """

    def __init__(
        self, model: PyramidModel, target: Target, *, lmbda: float, steps: int, keeps_networks: bool = False
    ) -> None:
        self.model, self.target, self.lmbda, self.steps = model, target, lmbda, steps
        self.price = lmbda / (model.size.y * model.size.x)
        self.done = 0
        self._soft = steps if keeps_networks else max(1, round(steps * SETTLED_FROM))
        for network in model.networks():
            network.requires_grad_(not keeps_networks)
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Adam([model.numbers], lr=NUMBER_RATE, betas=BETAS, eps=EPSILON)
        ]
        if not keeps_networks:
            self._optimisers.append(Soap(model.networks(), lr=NETWORK_RATE))

    def _main_colour(self) -> tuple[Tensor, Tensor]:
        """Return the mean colour, and the direction in which colours vary most."""
        flat = self.target.pixels[0].reshape(self.model.shape.channels, -1)
        mean = flat.mean(1, keepdim=True)
        vectors = torch.linalg.eigh((flat - mean) @ (flat - mean).T).eigenvectors
        main = vectors[:, -1:]
        return mean, main if float(main.sum()) >= 0 else -main

    def _parts(self, main: Tensor, mean: Tensor) -> tuple[list[Tensor], list[float]]:
        """Return the Laplacian pyramid of the main colour, finest first, and what a number of each grid is of it.

        That is half as much on each coarser grid, and more where numbers would be too large.
        """
        shapes = self.model.grid_shapes
        levels = [(main.T @ (self.target.pixels[0].reshape(len(main), -1) - mean)).view(1, *shapes[0].yx)]
        for _ in shapes[1:]:
            levels.append(functional.avg_pool2d(levels[-1], 2, ceil_mode=True, count_include_pad=False))
        taps, step = torch.tensor(BILINEAR), STEP_OF_LMBDA * math.sqrt(self.lmbda * len(main) / 3)
        below = zip(levels, levels[1:], shapes, strict=False)
        parts = [fine - raised(coarse, taps, shape.yx) for fine, coarse, shape in below]
        parts.append(levels[-1])
        gains = [max(step / 2**grid, float(part.abs().max()) / MOST_NUMBER) for grid, part in enumerate(parts)]
        return parts, gains

    def start(self, *, with_networks: bool, from_zero: bool) -> None:
        """Let numbers be that pyramid without its finest grid, or 0, and the skip of each synthesis add it up.

        Parameters
        ----------
        with_networks : bool
            Whether networks start as well; otherwise they are as they were.
        from_zero : bool
            Whether numbers start from 0.
        """
        mean, main = self._main_colour()
        parts, gains = self._parts(main, mean)
        flat = torch.cat([(part / gain).reshape(-1) for part, gain in zip(parts, gains, strict=True)])
        flat[: None if from_zero else self.model.counts[0]] = 0
        with torch.no_grad():
            self.model.numbers.copy_(flat)
            for level, net in enumerate(self.model.synth if with_networks else ()):
                own = torch.tensor(gains[level:])
                net.skip.copy_(main * own)
                net.second_bias.copy_(mean)
                net.first.mul_(4 * own * 2**level)
                net.first_bias.mul_(0.5)

    def advance(self, steps: int) -> None:
        """Make steps with numbers that are soft-rounded."""
        for _ in range(min(steps, self._soft - self.done)):
            share = self.done / self._soft
            numbers = _noisy(self.model.numbers, *(low + (high - low) * share for low, high in (TEMPERATURES, NOISES)))
            falling = LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * share))
            self._step(self._optimisers, numbers, falling * min(1, (self.done + 1) / WARMUP_STEPS))

    def finish(self) -> None:
        """Make all steps that are left, and leave numbers whole."""
        self.advance(self.steps)
        model = self.model
        with torch.no_grad():
            model.numbers.copy_(model.numbers.round())
        model.numbers.requires_grad_(False)
        for left in range(self.steps - self._soft, 0, -1):
            self._step(self._optimisers[1:], model.numbers, SETTLING * left / (self.steps - self._soft))

    def cost(self) -> float:
        """Return D + λ·R of the numbers as they would be rounded."""
        with torch.no_grad():
            return float(self._loss(self.model.numbers.round()))

    def _loss(self, numbers: Tensor) -> Tensor:
        return self.target.distortion(self.model.pixels(numbers)) + self.price * self.model.bits(numbers)

    def _step(self, optimisers: Sequence[torch.optim.Optimizer], numbers: Tensor, share: float) -> None:
        """Change what optimisers hold, at a share of their rates."""
        loss = self._loss(numbers)
        if not math.isfinite(float(loss.detach())):
            raise ConfigError.of(
                "a fit",
                got="a loss that is no number",
                expected="a finite one",
                do="Look for outliers in the pixels, and choose another price of bits.",
            )
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = optimiser.defaults["lr"] * share
            optimiser.step()
        with torch.no_grad():
            self.model.numbers.clamp_(-MOST_NUMBER, MOST_NUMBER)
        self.done += 1

    def weighed(self, grids: tuple[Array, ...]) -> Weighed:
        """Return what networks in whole numbers are weighed by."""
        return Weighed(
            grids=grids,
            pixels=tuple(one.numpy() for one in self.target.pixels),
            weights=tuple(one.numpy() for one in self.target.weights),
            price=self.price,
        )


def _noisy(numbers: Tensor, temperature: float, noise: float) -> Tensor:
    """Return soft-rounded numbers with noise, soft-rounded again."""
    return soft_round(soft_round(numbers, temperature) + noise * torch.randn_like(numbers), temperature)
