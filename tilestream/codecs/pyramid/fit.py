"""Fitting a pyramid to one tile: its numbers and, unless they are given, its networks, so that D + λ·R is least.

A fit starts from a Laplacian pyramid of the colour that varies most, at the step that suits λ at a high rate. For the
larger part numbers are soft-rounded with noise in between; then they are rounded and stay, and the networks settle on
them; last the networks become whole numbers whose steps are searched (`netsteps`). Rounding the numbers straight
through while they still move lets the rate run away, whatever gradient they get: it was tried.

Sources: C3 (Kim et al. 2023, arXiv 2312.02753), Cool-chic (Ladune et al. 2023, arXiv 2212.05458).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tilestream.codecs.fields.field import FitReport
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.export import draft_of, model_of
from tilestream.codecs.pyramid.fitops import raised, soft_round
from tilestream.codecs.pyramid.latents import encode_grids
from tilestream.codecs.pyramid.model import BILINEAR, PyramidModel, PyramidShape
from tilestream.codecs.pyramid.nets import PIXEL_MOST, PyramidNets
from tilestream.codecs.pyramid.netsteps import Weighed, weighed_nets
from tilestream.errors import ConfigError
from tilestream.kernels.pyramid_synthesis import pyramid_synthesis
from tilestream.types import Array

NUMBER_RATE, SYNTHESIS_RATE, CONTEXT_RATE = 0.15, 1e-2, 1e-2
"""Of Adam, at the start: of the numbers, and of the networks."""
BETAS, EPSILON = (0.9, 0.95), 1e-10
WARMUP_STEPS = 20
LAST_SHARE = 0.02
"""Of the rates, when numbers are rounded."""
SETTLED_FROM = 0.88
"""Share of a fit after which numbers stay."""
SETTLING = 0.3
"""Of the rates of networks, at the start of the rest."""
TEMPERATURES, NOISES = (0.35, 0.1), (0.27, 0.17)
"""Of soft rounding at the start and end, and deviations of its noise."""
COARSER_WEIGHT = 0.05
"""Of the error of each coarser level that has a synthesis, against that of level 0."""
STEP_OF_LMBDA = 5.1
"""Times √λ: the step of the main colour, of which the three channels share a squared error (√3 · √(6 / ln 2))."""
MOST_NUMBER = 60.0
"""Magnitude that numbers keep to: a difference of 128 and more from a middle cannot be coded, and what is clamped then
is a coarse grid's, of which a few numbers cost half a decibel."""


def fit_pyramid(  # noqa: PLR0913 - what is fitted to what, and how
    levels: Levels,
    *,
    lmbda: float,
    steps: int,
    shape: PyramidShape | None = None,
    start: PyramidNets | None = None,
    grids: Sequence[Array] | None = None,
    weights: Array | None = None,
    refine_only: bool = False,
    seed: int = 0,
) -> tuple[PyramidNets, tuple[Array, ...], FitReport]:
    """Return networks and grids of a tile.

    Parameters
    ----------
    levels : Levels
        The tile; coarser levels are reduced from it where `shape` asks for more than are there.
    lmbda : float
        Price of a bit a pixel, where D is the mean squared error of samples of 0 to 1.
    steps : int
        Of Adam, at least 1.
    shape : PyramidShape, optional
        Of networks that start by chance; those of `start` have their own.
    start : PyramidNets, optional
        Where networks start.
    grids : sequence of ndarray, optional
        Where numbers start, finest first.
    weights : ndarray, optional
        `(h, w)`: by which squared errors of level 0 are multiplied, 0 or more. What is not valid has none.
    refine_only : bool
        Keep the networks of `start` as they are.
    seed : int
        What all chance follows from.

    Returns
    -------
    nets : PyramidNets
        In whole numbers; `start` itself where only numbers were refined.
    grids : tuple of ndarray of int16
        Finest first.
    report : FitReport
        With the dB of each level that the networks have a synthesis of, as it decodes.

    Raises
    ------
    ConfigError
        When settings do not fit each other, or the fit diverges.
    """
    _require_settings(lmbda, steps, is_refined_alone=refine_only, start=start)
    began = time.perf_counter()
    shape = shape or PyramidShape(channels=levels.picture.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PyramidModel(shape, levels.picture.shape) if start is None else model_of(start, levels.picture.shape)
        fit = _Fit(model, _target(levels, model, weights, lmbda), lmbda=lmbda, steps=steps)
        fit.start(with_networks=start is None)
        if grids is not None:
            model.set_grids(grids)
        fit.run(is_refined_alone=refine_only)
    found = model.grids()
    nets = start if refine_only and start is not None else weighed_nets(draft_of(model), fit.weighed(found))
    _, found = encode_grids(found, nets)  # what is too far from its middle is clamped
    return nets, found, _report(levels, nets, found, steps, time.perf_counter() - began)


class _Target:
    """What pixels are to become: tensors of each level."""

    def __init__(self, pixels: Sequence[Array], weights: Sequence[Array]) -> None:
        self.pixels = [torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in pixels]
        self.weights = [torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in weights]

    def distortion(self, found: Sequence[Tensor]) -> Tensor:
        total = found[0].new_zeros(())
        for one, wanted, weights in zip(found, self.pixels, self.weights, strict=True):
            total = total + ((one - wanted).square().mean(0) * weights).sum()
        return total


def _target(levels: Levels, model: PyramidModel, weights: Array | None, lmbda: float) -> _Target:
    """Return samples of 0 to 1 of each level with a synthesis, the mean where nothing is valid, and their weights."""
    count = len(model.synth)
    if len(levels.pixels) < count:
        levels = Levels.of(levels.pixels[0], levels.valid[0], levels=count)
    units, shares = [], []
    for level in range(count):
        unit, valid = levels.picture.to_unit(levels.pixels[level]), levels.valid[level]
        share = np.ones(unit.shape[1:], np.float32)
        if weights is not None:
            step = 2**level
            share = _means(np.asarray(weights, np.float32), step)
        if valid is not None:
            share = share * valid
            mean = unit[:, valid].mean(axis=1) if valid.any() else np.zeros(len(unit), np.float32)
            unit = np.where(valid, unit, mean[:, None, None])
        units.append(unit)
        shares.append(share * ((COARSER_WEIGHT if level else 1.0) / share.size))
    if weights is not None and (weights.shape != levels.picture.shape.yx or not (np.asarray(weights) >= 0).all()):
        raise ConfigError.of(
            "`weights` of a fit",
            got=f"{weights.shape} {weights.dtype}",
            expected=f"numbers of 0 or more, {levels.picture.shape.yx}",
            do="Give one for each pixel.",
        )
    return _Target(units, shares)


def _means(weights: Array, step: int) -> Array:
    """Return means of squares of weights, those beyond an edge replicated."""
    if step == 1:
        return weights
    height, width = (-(-size // step) * step for size in weights.shape)
    padded = np.pad(weights, ((0, height - weights.shape[0]), (0, width - weights.shape[1])), mode="edge")
    found: Array = padded.reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    return found


class _Fit:
    """A model on its way."""

    def __init__(self, model: PyramidModel, target: _Target, *, lmbda: float, steps: int) -> None:
        self.model, self.target, self.lmbda, self.steps = model, target, lmbda, steps
        self.price = lmbda / (model.size.y * model.size.x)

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

    def start(self, *, with_networks: bool) -> None:
        """Let numbers be that pyramid, and the linear part of each synthesis add it up, if networks are to start."""
        mean, main = self._main_colour()
        parts, gains = self._parts(main, mean)
        flat = torch.cat([(part / gain).reshape(-1) for part, gain in zip(parts, gains, strict=True)])
        with torch.no_grad():
            self.model.numbers.copy_(flat)
            for level, net in enumerate(self.model.synth if with_networks else ()):
                own = torch.tensor(gains[level:])
                net.skip.copy_(main * own)
                net.second_bias.copy_(mean)
                net.first.mul_(4 * own * 2**level)
                net.first_bias.mul_(0.5)

    def run(self, *, is_refined_alone: bool) -> None:
        """Make all steps, and leave numbers whole."""
        model = self.model
        soft = self.steps if is_refined_alone else max(1, round(self.steps * SETTLED_FROM))
        for network in model.networks():
            network.requires_grad_(not is_refined_alone)
        groups = [{"params": [model.numbers], "lr": NUMBER_RATE}]
        if not is_refined_alone:
            groups += [
                {
                    "params": [model.filters, *(one for net in model.synth for one in net.parameters())],
                    "lr": SYNTHESIS_RATE,
                },
                {"params": [one for net in model.context for one in net.parameters()], "lr": CONTEXT_RATE},
            ]
        optimiser = torch.optim.Adam(groups, betas=BETAS, eps=EPSILON)
        rates = [group["lr"] for group in optimiser.param_groups]
        for step in range(soft):
            done = step / soft
            numbers = _noisy(model.numbers, *(low + (high - low) * done for low, high in (TEMPERATURES, NOISES)))
            share = LAST_SHARE + (1 - LAST_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
            self._step(optimiser, numbers, [rate * share * min(1, (step + 1) / WARMUP_STEPS) for rate in rates])
        with torch.no_grad():
            model.numbers.copy_(model.numbers.round())
        model.numbers.requires_grad_(False)
        for step in range(soft, self.steps):
            share = SETTLING * (self.steps - step) / (self.steps - soft)
            self._step(optimiser, model.numbers, [0.0, *(rate * share for rate in rates[1:])])

    def _step(self, optimiser: torch.optim.Optimizer, numbers: Tensor, rates: Sequence[float]) -> None:
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
        loss = self.target.distortion(self.model.pixels(numbers)) + self.price * self.model.bits(numbers)
        if not math.isfinite(float(loss.detach())):
            raise ConfigError.of(
                "a fit",
                got="a loss that is no number",
                expected="a finite one",
                do="Look for outliers in the pixels, and choose another price of bits.",
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            self.model.numbers.clamp_(-MOST_NUMBER, MOST_NUMBER)

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


def _report(
    levels: Levels, nets: PyramidNets, grids: Sequence[Array], steps: int, seconds: float
) -> FitReport:  # fmt: skip
    found = []
    for level in range(min(len(nets.synth), len(levels.pixels))):
        channels = np.clip(pyramid_synthesis(grids, nets, level, threads=1), 0, PIXEL_MOST)
        found.append(levels.psnr(level, levels.picture.from_unit((channels / PIXEL_MOST).astype(np.float32))))
    return FitReport(steps=steps, seconds=seconds, psnr=tuple(found))


def _require_settings(lmbda: float, steps: int, *, is_refined_alone: bool, start: PyramidNets | None) -> None:
    for name, got, good, expected in (
        ("lmbda", lmbda, 0 < lmbda < math.inf, "above 0"),
        ("steps", steps, steps >= 1, "at least 1"),
        ("refine_only", is_refined_alone, not is_refined_alone or start is not None, "only with networks to keep"),
    ):
        if not good:
            raise ConfigError.of(f"`{name}` of a fit", got=got, expected=expected, do="Choose another.")
