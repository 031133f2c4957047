"""Shared networks by chance, small, for tests of what uses them."""

from __future__ import annotations

import torch

from tilestream.codecs.pyramid.analysisnet import AnalysisNet
from tilestream.codecs.pyramid.export import draft_of
from tilestream.codecs.pyramid.model import PyramidModel, PyramidShape
from tilestream.codecs.pyramid.shared import SharedPyramid
from tilestream.codecs.pyramid.sharednets import keep_nets
from tilestream.codecs.pyramid.sharedtraining import begin_networks
from tilestream.types import Shape


def made_shared(
    seed: int = 0, *, channels: int = 3, scales: int = 4, levels: int = 2, lmbda: float = 1e-3
) -> SharedPyramid:
    """Return networks as training starts from them."""
    sizes = {"channels": channels, "scales": scales, "levels": levels, "hidden": 8, "context": 8}
    shape = PyramidShape(**sizes, own_contexts=min(4, scales))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, analysis = PyramidModel(shape, Shape(y=32, x=32)), AnalysisNet(channels, (8,) * (scales - 1))
        pixels = torch.rand(2, 1, 8, 8) + 0.05 * torch.rand(2, channels, 8, 8)  # grey for the most part
        analysis.begin(pixels, lmbda=lmbda)
        begin_networks(model, analysis)
        model.numbers.data.normal_(0, 2)
        for net in model.synth:
            net.second.data.mul_(0.1)  # chance adds little to the pyramid, as after some steps
    draft = draft_of(model)
    nets = draft.nets([0] * len(draft.tensors)).check()
    return SharedPyramid(nets=keep_nets(nets), analysis=analysis.record(), lmbda=lmbda)
