"""Training what tiles share: the networks that decode them and the one that encodes them, end to end on crops.

The loss is that of all codecs of this family, D + λ·R: the mean squared error of samples of 0 to 1, and bits a pixel.
For the larger part grids get noise and are soft-rounded, the harder the further. The noise comes before the rounding,
not after it as in a fit of one tile: a network that foretells learns to put numbers on the edge between two whole ones,
where soft rounding passes what lies between them, and noise before makes that edge a toss. Towards the end grids are
rounded, and what decodes them learns alone: with the gradient of rounding passed through, bits run away. Coarser levels
learn from the same grids, which do not learn from them: they cost the finest level nothing. Last the networks become
whole numbers, weighed on crops beside each other (`netsteps`).

Source: Agustsson et al. 2020, arXiv 2006.09952 (soft rounding); Blard et al. 2024, arXiv 2403.11651 (such codecs
without a fit of each picture).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tilestream.codecs.pyramid.analysisnet import MOST, WIDTHS, AnalysisNet, whole
from tilestream.codecs.pyramid.export import draft_of, model_of
from tilestream.codecs.pyramid.fitops import soft_round
from tilestream.codecs.pyramid.model import PyramidModel, PyramidShape
from tilestream.codecs.pyramid.muon import Muon
from tilestream.codecs.pyramid.nets import PyramidNets
from tilestream.codecs.pyramid.netsteps import Weighed, weighed_nets
from tilestream.codecs.pyramid.shared import LEAST_LMBDA, MOST_LMBDA, SharedPyramid
from tilestream.codecs.pyramid.sharedcrops import Crops
from tilestream.codecs.pyramid.sharednets import keep_nets
from tilestream.codecs.pyramid.soap import Soap
from tilestream.errors import ConfigError
from tilestream.types import Array, Shape

WARMUP = 0.03
"""Share of a training in which rates rise."""
ROUNDED_FROM = 0.85
"""Share from which on grids are rounded, and what makes them is left as it is."""
COARSE_FROM = 0.4
"""Share from which on coarser levels are learned."""
LAST_RATE = 0.02
"""Of the largest, at the end of its cosine."""
TEMPERATURES, NOISES = (0.35, 0.05), (0.3, 0.15)
"""Of soft rounding at the start and where it ends, and deviations of the noise before it."""
CONV_RATE, NETWORK_RATE = 1.0, 3.0
"""Of convolutions that foretell, and of what decodes, times the rate of all else."""
LOOKED_AT = 16
"""Crops that the start is taken from."""
WEIGHED_EDGE = 4
"""Crops along an edge of the square by which whole-number networks are weighed."""
WEIGHED_SHARE = 0.01
"""Of what a bit of networks costs if they served that square alone: they serve a store."""
MOST_GRADIENT = 0.1
"""Norm that gradients are cut to."""
SHAPE = PyramidShape(context=16, levels=4, own_contexts=4)
"""Networks that many tiles share are larger than those of one."""


@dataclass(frozen=True, kw_only=True)
class PyramidTraining:
    """How shared networks are trained."""

    shape: PyramidShape = SHAPE
    """Sizes of what decodes; channels follow from the pictures."""
    lmbda: float = 1e-3
    """What a bit a pixel costs against the mean squared error of samples of 0 to 1."""
    crop_px: int = 128
    """Edge of what is trained on: a multiple of the cell of the coarsest grid."""
    batch: int = 4
    """Crops of a step."""
    steps: int = 4000
    """How many."""
    lr: float = 3e-3
    """The largest rate of Adam; others are in proportion."""
    seed: int = 0
    """What all chance follows from."""

    def __post_init__(self) -> None:
        cell = 2 ** (self.shape.scales - 1)
        checks = (
            ("lmbda", LEAST_LMBDA <= self.lmbda <= MOST_LMBDA, f"{LEAST_LMBDA:g} to {MOST_LMBDA:g}"),
            ("crop_px", self.crop_px > 0 and self.crop_px % cell == 0, f"a multiple of {cell}"),
            ("batch", self.batch > 0, "at least 1"),
            ("steps", self.steps > 0, "at least 1"),
            ("lr", 0 < self.lr < math.inf, "above 0"),
        )
        for name, good, expected in checks:
            if not good:
                raise ConfigError.of(
                    f"`{name}` of a training", got=getattr(self, name), expected=expected, do="Choose another."
                )


@dataclass(frozen=True, kw_only=True)
class PyramidStep:
    """What is told of a training now and then: means since it was told last."""

    step: int
    """Steps done."""
    psnr: float
    """dB of level 0 of crops."""
    bpp: float
    """Estimated bits a pixel."""


def train_shared(
    pictures: Sequence[Array],
    settings: PyramidTraining | None = None,
    *,
    start: SharedPyramid | None = None,
    hear: Callable[[PyramidStep], None] = lambda _: None,
    every: int = 100,
    device: str = "cpu",
) -> SharedPyramid:
    """Return networks trained on pictures of a slide or a cohort.

    Parameters
    ----------
    pictures : sequence of ndarray
        `(c, y, x)` of one type and as many channels as the networks have; the larger, the more often. Those smaller
        than a crop are left out. Types other than 8 bits are taken over the range of each.
    settings : PyramidTraining, optional
        How.
    start : SharedPyramid, optional
        What to go on from: for another λ, or for one slide after a cohort. Its sizes are kept.
    hear : callable
        Told of it; may raise to stop.
    every : int
        Steps between.
    device : str
        Of torch.

    Returns
    -------
    SharedPyramid
        In whole numbers, and known from now on. The same settings and pictures give the same on one machine's CPU.

    Raises
    ------
    ConfigError
        When pictures do not fit the settings or `start`, or the training diverges.
    """
    settings = settings or PyramidTraining()
    crops = Crops(pictures, px=settings.crop_px, seed=settings.seed)
    channels = settings.shape.channels if start is None else start.nets.channels
    if crops.channels != channels:
        raise ConfigError.of(
            "pictures to train on",
            got=f"{crops.channels} channels",
            expected=f"{channels}, as the networks have",
            do="Choose channels, or other networks.",
        )
    size = Shape(y=settings.crop_px, x=settings.crop_px)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if start is None:
            model, widths = PyramidModel(settings.shape, size), WIDTHS[: settings.shape.scales - 1]
            analysis = AnalysisNet(settings.shape.channels, widths)
            analysis.begin(torch.from_numpy(crops.draw(LOOKED_AT)), lmbda=settings.lmbda)
            begin_networks(model, analysis)
        else:
            model, analysis = model_of(start.nets, size), AnalysisNet.of(start.analysis).requires_grad_()
        state = _Training(settings, model.to(device), analysis.to(device))
        for step in range(settings.steps):
            state.step(step, torch.from_numpy(crops.draw(settings.batch)).to(device))
            if (step + 1) % every == 0 or step + 1 == settings.steps:
                hear(state.told(step + 1))
    nets = _whole_networks(model.cpu(), analysis.cpu(), crops.draw(WEIGHED_EDGE**2), settings.lmbda)
    return SharedPyramid(nets=keep_nets(nets), analysis=analysis.record(), lmbda=settings.lmbda)


def begin_networks(model: PyramidModel, analysis: AnalysisNet) -> None:
    """Let what decodes add up the Laplacian pyramid of one colour that the analysis begins with."""
    steps = analysis.log_steps.detach().exp()
    with torch.no_grad():
        for level, net in enumerate(model.synth):
            net.skip.copy_(analysis.colour[:, None] * steps[level:])
            net.second_bias.copy_(analysis.middle[:, None])
            net.first.mul_(steps[level:] / steps[level])  # coarse numbers are as large as their steps small


class _Training:
    """The networks and the optimisers."""

    def __init__(self, settings: PyramidTraining, model: PyramidModel, analysis: AnalysisNet) -> None:
        self._settings, self._model, self._analysis = settings, model, analysis
        convs = [part.weight for part in analysis.modules() if isinstance(part, nn.Conv2d) and len(part.weight) > 1]
        known = set(map(id, convs))
        rest = [part for part in analysis.parameters() if id(part) not in known]
        model.numbers.requires_grad_(False)
        self._parameters = [*model.networks(), *convs, *rest]
        lr = settings.lr
        self._optimisers = [
            Soap(model.networks(), lr=NETWORK_RATE * lr), Muon(convs, lr=CONV_RATE * lr), torch.optim.Adam(rest, lr=lr)
        ]  # fmt: skip
        self._sums, self._count = np.zeros(2), 0

    def step(self, step: int, pixels: Tensor) -> None:
        """Make one step on a batch."""
        share = step / self._settings.steps
        rise = min(1.0, (step + 1) / max(1.0, WARMUP * self._settings.steps))
        fall = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2
        error, bits = self._error_and_bits(self._numbers(pixels, share), pixels, learns_coarse=share >= COARSE_FROM)
        bpp = bits / (len(pixels) * self._settings.crop_px**2)
        loss = error.sum() + self._settings.lmbda * bpp
        if not math.isfinite(float(loss.detach())):
            raise ConfigError.of("a training", got="a loss that is not finite", expected="a number", do="Lower `lr`.")
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, MOST_GRADIENT)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = optimiser.defaults["lr"] * rise * fall
            optimiser.step()
        self._sums += [float(error[0].detach()), float(bpp.detach())]
        self._count += 1

    def _numbers(self, pixels: Tensor, share: float) -> Tensor:
        """Return `(n, k)` numbers of all grids of each crop, rounded, or softly."""
        if share >= ROUNDED_FROM:
            with torch.no_grad():
                return _flat(map(whole, self._analysis(pixels, self._model.raised, whole)))
        temperature, noise = (low + (high - low) * share / ROUNDED_FROM for low, high in (TEMPERATURES, NOISES))
        coarse: list[Tensor] = []

        def soft(grid: Tensor) -> Tensor:
            coarse.append(soft_round(grid.clamp(-MOST, MOST) + noise * torch.randn_like(grid), temperature))
            return coarse[-1]

        grids = self._analysis(pixels, self._model.raised, soft)
        return _flat([soft(grids[0]), *coarse[-2::-1]])

    def _error_and_bits(self, numbers: Tensor, pixels: Tensor, *, learns_coarse: bool) -> tuple[Tensor, Tensor]:
        """Return errors of the finest level and of the mean of the coarser ones, and the bits of all crops."""
        model, error, bits = self._model, pixels.new_zeros(2), pixels.new_zeros(())
        coarse = len(model.synth) - 1
        for own, wanted in zip(numbers, pixels, strict=True):
            bits = bits + model.bits(own)
            found = model.synth[0](model.raised_grids(own)[0])
            errors = [(found - wanted).square().mean(), pixels.new_zeros(())]
            if learns_coarse and coarse:
                for net, grids in zip(model.synth[1:], model.raised_grids(own.detach(), coarse + 1)[1:], strict=True):
                    wanted = functional.avg_pool2d(wanted, 2)
                    errors[1] = errors[1] + (net(grids) - wanted).square().mean() / coarse
            error = error + torch.stack(errors) / len(pixels)
        return error, bits

    def told(self, step: int) -> PyramidStep:
        """Return means since the last time."""
        error, bpp = (self._sums / self._count).tolist()
        self._sums, self._count = np.zeros(2), 0
        return PyramidStep(step=step, psnr=-10 * math.log10(max(error, 1e-12)), bpp=bpp)


def _flat(grids: Iterable[Tensor]) -> Tensor:
    return torch.cat([grid.flatten(1) for grid in grids], dim=1)


def _whole_networks(model: PyramidModel, analysis: AnalysisNet, crops: Array, lmbda: float) -> PyramidNets:
    """Return what decodes in whole numbers, weighed by crops that lie side by side in one square."""
    square = crops.reshape(WEIGHED_EDGE, WEIGHED_EDGE, *crops.shape[1:]).transpose(2, 0, 3, 1, 4)
    square = np.ascontiguousarray(square.reshape(crops.shape[1], WEIGHED_EDGE * crops.shape[2], -1))
    with torch.no_grad():
        grids = [whole(grid) for grid in analysis(torch.from_numpy(square)[None], model.raised, whole)]
    large = model.of_size(Shape(y=square.shape[1], x=square.shape[2]))
    with torch.no_grad():
        large.numbers.copy_(_flat(grids)[0])
    levels = [square]
    for _ in large.synth[1:]:
        levels.append(functional.avg_pool2d(torch.from_numpy(levels[-1]), 2).numpy())
    counts = [np.full(one.shape[1:], 1 / one[0].size, np.float32) for one in levels]
    price = WEIGHED_SHARE * lmbda / square[0].size
    return weighed_nets(
        draft_of(large), Weighed(grids=large.grids(), pixels=tuple(levels), weights=tuple(counts), price=price)
    )
