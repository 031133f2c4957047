"""The reference in torch gives the same bits as the oracle, and so as every kernel."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

torch = pytest.importorskip("torch")

from tests.codecs.pyramid import oracle
from tests.codecs.pyramid.made import made_grids, made_nets
from tilestream.codecs.pyramid.torchdecode import to_tensors, torch_context, torch_synthesis
from tilestream.types import Shape

SHAPES = [(1, 1), (1, 6), (5, 2), (37, 22)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("convs", [0, 2])
def test_synthesis_is_exact(shape: tuple[int, int], convs: int) -> None:
    nets = made_nets(convs, scales=5 - convs, convs=convs)
    grids = made_grids(Shape(y=shape[0], x=shape[1]), nets.scales, spread=30)
    for level in range(2):
        found = torch_synthesis(to_tensors(grids), nets, level)
        assert found.dtype == torch.int16
        assert_array_equal(found.numpy(), oracle.synthesis(grids, nets, level))


@pytest.mark.parametrize("shape", SHAPES)
def test_contexts_are_exact(shape: tuple[int, int]) -> None:
    nets = made_nets(scales=3)
    grids = made_grids(Shape(y=shape[0], x=shape[1]), 3, spread=30)
    for number in range(3):
        for turn in range(3):
            found = torch_context(to_tensors(grids), number, turn, nets.context[0])
            for got, wanted in zip(found, oracle.context(grids, number, turn, nets.context[0]), strict=True):
                assert got.numpy().dtype == wanted.dtype
                assert_array_equal(got.numpy(), wanted)


def test_single_precision_is_near_only() -> None:
    """Which is why the codec has no floating point: a bit lost in a context is a grid lost."""
    nets, grids = made_nets(hidden=16), made_grids(Shape(y=64, x=64), 4, spread=30)
    exact = oracle.synthesis(grids, nets, 0)
    found = torch_synthesis(to_tensors(grids), nets, dtype=torch.float32).numpy()
    assert 0 < np.abs(found - exact).max() <= 4
