"""Training what tiles share: the networks that decode them and the one that encodes them, end to end on crops.

The loss is that of all codecs of this family, D + λ·R: the mean squared error of samples of 0 to 1, and bits a pixel.
Pixels are made of rounded grids, whose gradient is passed through; bits are those of grids with noise in the place of
rounding. Towards the end grids are rounded for both, and what decodes them learns alone. Coarser levels learn from the
same grids, which do not learn from them: they cost the finest level nothing.

Source: Ballé et al. 2017, arXiv 1611.01704 (noise for rounding); Minnen & Singh 2020, arXiv 2007.08739 (rounded grids
for pixels, noise for bits).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tilestream.codecs.pyramid.analysisnet import WIDTHS, AnalysisNet, straight_through, whole
from tilestream.codecs.pyramid.shared import LEAST_LMBDA, MOST_LMBDA, SharedPyramid
from tilestream.codecs.pyramid.sharedcrops import Crops
from tilestream.codecs.pyramid.sharedmodel import PyramidShape, SharedModel
from tilestream.codecs.pyramid.sharednets import keep_nets
from tilestream.errors import ConfigError
from tilestream.types import Array

WARMUP = 0.03
"""Share of a training in which the rate rises."""
ROUNDED_FROM = 0.8
"""Share from which on grids are rounded for their bits too, and what makes them is left as it is: with the gradient of
rounding passed through, bits run away."""
COARSE_FROM = 0.4
"""Share from which on coarser levels are learned."""
LAST_RATE = 0.02
"""Of the largest, at the end of its cosine."""
LOOKED_AT = 16
"""Crops that the start is taken from."""
MOST_GRADIENT = 0.1
"""Norm that gradients are cut to."""


@dataclass(frozen=True, kw_only=True)
class PyramidTraining:
    """How shared networks are trained."""

    shape: PyramidShape = field(default_factory=PyramidShape)
    """Sizes of what decodes; channels follow from the pictures."""
    lmbda: float = 1e-3
    """What a bit a pixel costs against the mean squared error of samples of 0 to 1."""
    crop_px: int = 128
    """Edge of what is trained on: a multiple of the cell of the coarsest grid."""
    batch: int = 4
    """Crops of a step."""
    steps: int = 4000
    """Steps of Adam."""
    lr: float = 3e-3
    """Its largest rate."""
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if start is None:
            widths = WIDTHS[: settings.shape.scales - 1]
            model, analysis = SharedModel(settings.shape), AnalysisNet(settings.shape.channels, widths)
            analysis.begin(torch.from_numpy(crops.draw(LOOKED_AT)), lmbda=settings.lmbda)
            model.begin(analysis.colour.detach(), analysis.middle.detach(), analysis.log_steps.detach().exp())
        else:
            model, analysis = SharedModel.of(start.nets), AnalysisNet.of(start.analysis).requires_grad_()
    state = _Training(settings, model.to(device), analysis.to(device))
    for step in range(settings.steps):
        state.step(step, torch.from_numpy(crops.draw(settings.batch)).to(device))
        if (step + 1) % every == 0 or step + 1 == settings.steps:
            hear(state.told(step + 1))
    return SharedPyramid(nets=keep_nets(model.to_nets()), analysis=analysis.cpu().record(), lmbda=settings.lmbda)


class _Training:
    """The networks and the optimiser."""

    def __init__(self, settings: PyramidTraining, model: SharedModel, analysis: AnalysisNet) -> None:
        self._settings, self._model, self._analysis = settings, model, analysis
        self._parameters = [*model.parameters(), *analysis.parameters()]
        self._optimiser = torch.optim.Adam(self._parameters, settings.lr)
        self._chance = torch.Generator().manual_seed(settings.seed)
        self._sums, self._count = np.zeros(2), 0

    def step(self, step: int, pixels: torch.Tensor) -> None:
        """Make one step on a batch."""
        share = step / self._settings.steps
        rise = min(1.0, (step + 1) / max(1.0, WARMUP * self._settings.steps))
        fall = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * share)) / 2
        self._optimiser.param_groups[0]["lr"] = self._settings.lr * rise * fall
        known, coded = self._grids(pixels, is_rounded=share >= ROUNDED_FROM)
        found = self._model.pixels(known)
        error = ((found[0] - pixels) ** 2).mean()
        bpp = self._model.bits(coded, known).sum() / (len(pixels) * self._settings.crop_px**2)
        loss = error + self._settings.lmbda * bpp
        if share >= COARSE_FROM and self._model.shape.levels > 1:
            loss = loss + self._coarse_error([grid.detach() for grid in known], pixels)
        if not math.isfinite(float(loss.detach())):
            raise ConfigError.of("a training", got="a loss that is not finite", expected="a number", do="Lower `lr`.")
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, MOST_GRADIENT)
        self._optimiser.step()
        self._sums += [float(error.detach()), float(bpp.detach())]
        self._count += 1

    def _grids(self, pixels: torch.Tensor, *, is_rounded: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return grids as decoders see them, and as their bits are counted."""
        if is_rounded:
            with torch.no_grad():
                known = [whole(grid) for grid in self._analysis(pixels, self._model.raised, whole)]
            return known, known
        grids = self._analysis(pixels, self._model.raised, straight_through)
        return [straight_through(grid) for grid in grids], [self._noisy(grid) for grid in grids]

    def _coarse_error(self, grids: list[torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        """Return the error of the coarser levels."""
        found = self._model.pixels(grids, first=1, last=self._model.shape.levels - 1)
        total = pixels.new_zeros(())
        for level in found:
            pixels = torch.nn.functional.avg_pool2d(pixels, 2)
            total = total + ((level - pixels) ** 2).mean()
        return total / len(found)

    def _noisy(self, grid: torch.Tensor) -> torch.Tensor:
        return grid + (torch.rand(grid.shape, generator=self._chance) - 0.5).to(grid.device)

    def told(self, step: int) -> PyramidStep:
        """Return means since the last time."""
        error, bpp = (self._sums / self._count).tolist()
        self._sums, self._count = np.zeros(2), 0
        return PyramidStep(step=step, psnr=-10 * math.log10(max(error, 1e-12)), bpp=bpp)
