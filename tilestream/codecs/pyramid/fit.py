"""Fitting a pyramid to one tile: its numbers and, unless they are given, its networks, so that D + λ·R is least.

A fit starts from numbers of 0, and from a Laplacian pyramid of the colour that varies most without its finest grid, at
the step that suits λ at a high rate: the first suits busy tissue, the second smooth. Both make the first steps, and the
better goes on. For the larger part numbers are soft-rounded with noise in between; then they are rounded and stay, and
the networks settle on them; last the networks become whole numbers whose steps are searched (`netsteps`). Rounding the
numbers straight through while they still move lets the rate run away, whatever gradient they get: it was tried.

Sources: C3 (Kim et al. 2023, arXiv 2312.02753), Cool-chic (Ladune et al. 2023, arXiv 2212.05458).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from tilestream.codecs.fields.field import FitReport
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.pyramid.export import draft_of, model_of
from tilestream.codecs.pyramid.fitrun import FitRun
from tilestream.codecs.pyramid.fittarget import Target
from tilestream.codecs.pyramid.latents import encode_grids
from tilestream.codecs.pyramid.model import PyramidModel, PyramidShape
from tilestream.codecs.pyramid.nets import PIXEL_MOST, PyramidNets
from tilestream.codecs.pyramid.netsteps import weighed_nets
from tilestream.errors import ConfigError
from tilestream.kernels.pyramid_synthesis import pyramid_synthesis
from tilestream.types import Array

TRIED_SHARE, LEAST_TRIED = 0.12, 100
"""Of the steps after which the better of two starts goes on; where those are fewer, it is the pyramid, which is a
picture after no steps."""


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
    target = Target.of(levels, len(start.synth) if start else shape.levels, weights)

    def begun(from_zero: bool) -> FitRun:
        torch.manual_seed(seed)
        model = PyramidModel(shape, levels.picture.shape) if start is None else model_of(start, levels.picture.shape)
        run = FitRun(model, target, lmbda=lmbda, steps=steps, keeps_networks=refine_only)
        run.start(with_networks=start is None, from_zero=from_zero)
        if grids is not None:
            model.set_grids(grids)
        return run

    with torch.random.fork_rng(devices=[]):
        run = begun(from_zero=True) if grids is not None else _better(begun, round(steps * TRIED_SHARE))
        run.finish()
    model = run.model
    found = model.grids()
    nets = start if refine_only and start is not None else weighed_nets(draft_of(model), run.weighed(found))
    _, found = encode_grids(found, nets)  # what is too far from its middle is clamped
    return nets, found, _report(levels, nets, found, steps, time.perf_counter() - began)


def _better(begun: Callable[[bool], FitRun], tried: int) -> FitRun:
    """Return the run that is cheaper after some steps from its start."""
    if tried < LEAST_TRIED:
        return begun(False)
    runs = [begun(from_zero) for from_zero in (True, False)]
    for run in runs:
        run.advance(tried)
    return min(runs, key=FitRun.cost)


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
