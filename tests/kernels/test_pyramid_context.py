import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.codecs.pyramid import oracle
from tests.codecs.pyramid.made import made_grids, made_layer, made_nets
from tests.kernels.answers import SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.pyramid_context import pass_places, pyramid_context
from tilestream.types import Shape

SHAPES = [(1, 1), (1, 7), (5, 1), (2, 3), (4, 4), (7, 6)] + ([] if SIMULATED else [(37, 70), (64, 33)])
TURNS = range(3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 16, 23, 64])
def test_every_grid_and_pass_is_that_of_the_oracle(shape: tuple[int, int], width: int, on: Answer) -> None:
    nets = made_nets(width, scales=3, width=width, levels=1)
    grids = made_grids(Shape(y=shape[0], x=shape[1]), 3, width, spread=20)
    for number in range(3):
        for turn in TURNS:
            found = on(pyramid_context, grids, number, turn, nets.context[turn])
            expected = oracle.context(grids, number, turn, nets.context[turn])
            for got, wanted in zip(found, expected, strict=True):
                assert got.dtype == wanted.dtype
                assert_array_equal(got, wanted)


def test_the_largest_sums_do_not_overflow(on: Answer) -> None:
    grids = tuple(np.full(grid.shape, 255, np.int16) for grid in made_grids(Shape(y=6, x=5), 3))
    net = tuple(
        made_layer(np.random.default_rng(n), *size, shift=1, spread=size[1] * 0.8) for n, size in enumerate(SIZES)
    )
    for layer in net:
        full = np.abs(layer.weights.astype(np.int64)).sum(axis=1)
        layer.weights[:] = np.trunc(layer.weights * (60_000 / full[:, None]))
        layer.bias[:] = 2**31 - 1 - 2**13 - np.abs(layer.weights.astype(np.int64)).sum(axis=1) * 32767
    for turn in TURNS:
        expected = oracle.context(grids, 0, turn, net)
        for got, wanted in zip(on(pyramid_context, grids, 0, turn, net), expected, strict=True):
            assert_array_equal(got, wanted)


SIZES = [(12, 9), (12, 12), (2, 12)]


@pytest.mark.parametrize("turn", TURNS)
def test_what_is_not_decoded_yet_is_not_read(turn: int, on: Answer) -> None:
    nets = made_nets(width=5, levels=1)
    grids = made_grids(Shape(y=7, x=8), 4, spread=20)
    before = on(pyramid_context, grids, 1, turn, nets.context[0])
    later = [place for other in TURNS if other >= turn for place in oracle.places(grids[1].shape, other)]
    for i, j in later:
        grids[1][i, j] = -255
    grids[0][...] = 255
    for got, wanted in zip(on(pyramid_context, grids, 1, turn, nets.context[0]), before, strict=True):
        assert_array_equal(got, wanted)


def test_any_strides_will_do_and_outputs_can_be_given(on: Answer) -> None:
    nets = made_nets(width=5, levels=1)
    grids = made_grids(Shape(y=6, x=9), 4, spread=20)
    strided = [np.repeat(np.repeat(grid, 2, axis=0), 3, axis=1)[::2, ::3] for grid in grids]
    turned = [np.asfortranarray(grid) for grid in grids]
    expected = on(pyramid_context, grids, 0, 2, nets.context[0])
    out = (np.zeros(len(expected[0]), np.int16), np.zeros(len(expected[0]), np.uint8))
    for same in (strided, turned):
        for got, wanted in zip(on(pyramid_context, same, 0, 2, nets.context[0], out=out), expected, strict=True):
            assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_passes_cover_a_grid(shape: tuple[int, int]) -> None:
    counts = [pass_places(shape, turn) for turn in TURNS]
    assert counts == [len(oracle.places(shape, turn)) for turn in TURNS]
    assert sum(counts) == shape[0] * shape[1]


def test_networks_that_do_not_fit_are_refused() -> None:
    grids, net = made_grids(Shape(y=4, x=4), 4), made_nets().context[0]
    wide = [made_layer(np.random.default_rng(0), *size) for size in ((65, 9), (65, 65), (2, 65))]
    for wrong in (net[:2], net[::-1], wide):
        with pytest.raises(ConfigError, match=r"`net` of `pyramid_context`"):
            pyramid_context(grids, 0, 0, wrong)
    with pytest.raises(ConfigError, match=r"layer 1 of `pyramid_context`"):
        pyramid_context(grids, 0, 0, (net[0], made_layer(np.random.default_rng(0), 8, 9), net[2]))
    with pytest.raises(ConfigError, match=r"grids\[1\].*shape \(2, 2\)"):
        pyramid_context((grids[0], grids[0]), 0, 0, net)
