"""The analysis network: its sizes, its record, and bytes that are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.codecs.pyramid.madeshared import made_shared
from tilestream.codecs.container import pack, unpack
from tilestream.codecs.pyramid.analysis import KIND, Analysis, parameters_of
from tilestream.codecs.pyramid.analysisnet import WIDTHS, AnalysisNet, straight_through, whole
from tilestream.codecs.pyramid.model import PyramidModel, PyramidShape
from tilestream.errors import DamagedError
from tilestream.types import Shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("widths", [WIDTHS[:6], (4,), (6, 4, 5)])
def test_it_has_a_grid_for_each_size(channels: int, widths: tuple[int, ...]) -> None:
    net, cell = AnalysisNet(channels, widths), 2 ** len(widths)
    model = PyramidModel(PyramidShape(channels=channels, scales=len(widths) + 1), Shape(y=cell, x=2 * cell))
    grids = net(torch.rand(2, channels, cell, 2 * cell), model.raised, whole)
    assert [tuple(grid.shape[2:]) for grid in grids] == [
        (cell // 2**n, 2 * cell // 2**n) for n in range(len(widths) + 1)
    ]
    assert sum(part.numel() for part in net.parameters()) == parameters_of(channels, widths)
    assert all(part.grad is None for part in net.parameters())
    sum(straight_through(grid).sum() for grid in grids).backward()
    assert all(part.grad is not None for part in net.parameters())


def test_a_record_is_the_network() -> None:
    analysis = made_shared().analysis
    again = Analysis.of_packed(unpack(analysis.to_bytes(), kinds={KIND: 1}))
    np.testing.assert_array_equal(again.weights, analysis.weights)
    assert (again.channels, again.scales, again.widths) == (analysis.channels, analysis.scales, analysis.widths)
    np.testing.assert_array_equal(AnalysisNet.of(again).record().weights, analysis.weights)


def test_weights_of_other_sizes_are_refused() -> None:
    analysis = made_shared().analysis
    with pytest.raises(DamagedError, match="sizes do not have"):
        AnalysisNet.of(replace(analysis, weights=analysis.weights[:-1]))


@pytest.mark.parametrize(
    ("header", "weights"),
    [
        ({"c": 0, "w": [4]}, 1.0),
        ({"c": 3, "w": []}, 1.0),
        ({"c": 3, "w": [4] * 8}, 1.0),
        ({"c": 3, "w": [1 << 20]}, 1.0),
        ({"c": 3, "w": [4, 4]}, 1.0),
        ({"c": 3, "w": [4]}, np.nan),
        ({"w": [4]}, 1.0),
    ],
)
def test_bytes_that_are_no_network_are_damage(header: dict, weights: float) -> None:
    data = np.full(parameters_of(3, (4,)), weights, "<f2").tobytes()
    with pytest.raises(DamagedError):
        Analysis.of_packed(unpack(pack(KIND, version=1, header=header, sections=(data,))))
