"""Shared networks by chance, small, for tests of what uses them."""

from __future__ import annotations

import torch

from tilestream.codecs.pyramid.analysisnet import AnalysisNet
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.codecs.pyramid.sharedmodel import PyramidShape, SharedModel


def made_shared(
    seed: int = 0, *, channels: int = 3, scales: int = 4, levels: int = 2, lmbda: float = 1e-3
) -> SharedPyramid:
    """Return networks as training starts from them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SharedModel(PyramidShape(channels=channels, scales=scales, levels=levels, hidden=8, width=8))
        analysis = AnalysisNet(channels, (8,) * (scales - 1))
        pixels = torch.rand(2, 1, 8, 8) + 0.05 * torch.rand(2, channels, 8, 8)  # grey for the most part
        analysis.begin(pixels, lmbda=lmbda)
        model.begin(analysis.colour.detach(), analysis.middle.detach(), analysis.log_steps.detach().exp())
    return SharedPyramid(nets=model.to_nets(), analysis=analysis.record(), lmbda=lmbda)
