from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.codecs.pyramid import oracle
from tests.codecs.pyramid.made import made_grids, made_nets
from tests.kernels.answers import SIMULATED, Answer
from tilestream.codecs.pyramid.nets import PyramidNets
from tilestream.codecs.pyramid.synthesis import write_samples
from tilestream.errors import ConfigError
from tilestream.kernels.pyramid_numbers import PIXEL_MOST
from tilestream.kernels.pyramid_synthesis import pixel_samples, pyramid_synthesis
from tilestream.types import Box, Shape

MOST = 7 if SIMULATED else 150


@given(data=st.data())
def test_levels_are_those_of_the_oracle(data: st.DataObject, on: Answer) -> None:
    sizes = {"scales": (1, 4), "channels": (1, 5), "hidden": (1, 9), "convs": (0, 3)}
    drawn = {name: data.draw(st.integers(*ends), name) for name, ends in sizes.items()}
    nets = made_nets(data.draw(st.integers(0, 99)), levels=min(2, drawn["scales"]), **drawn)
    shape = Shape(y=data.draw(st.integers(1, MOST)), x=data.draw(st.integers(1, MOST)))
    grids = list(made_grids(shape, drawn["scales"], spread=20))
    level = data.draw(st.integers(0, len(nets.synth) - 1))
    expected = oracle.synthesis(grids, nets, level)
    grids[:level] = [None] * level
    found = on(pyramid_synthesis, grids, nets, level)
    assert found.dtype == np.int16
    assert_array_equal(found, expected)


@given(data=st.data())
def test_a_box_is_a_part_of_the_level(data: st.DataObject, on: Answer) -> None:
    nets = made_nets(scales=4, channels=2, hidden=3, convs=data.draw(st.integers(0, 3)))
    shape = Shape(y=data.draw(st.integers(1, 2 * MOST)), x=data.draw(st.integers(1, MOST)))
    grids = made_grids(shape, 4, spread=20)
    y, x = (data.draw(st.integers(0, size - 1)) for size in shape.yx)
    height, width = data.draw(st.integers(0, shape.y - y)), data.draw(st.integers(0, shape.x - x))
    found = on(pyramid_synthesis, grids, nets, box=Box(y=y, x=x, height=height, width=width))
    assert_array_equal(found, oracle.synthesis(grids, nets, 0)[:, y : y + height, x : x + width])


@pytest.mark.parametrize(
    ("dtype", "ends"),
    [(np.uint8, (0, 255)), (np.uint16, (7, 65_535)), (np.int16, (-32_768, 32_767)), (np.int64, (-(2**40), 2**40))],
)
def test_samples_are_exact_and_written_into_any_strides(dtype: type, ends: tuple[int, int], on: Answer) -> None:
    nets = made_nets(channels=3, hidden=4)
    grids = made_grids(Shape(y=6, x=7), 4, spread=40)
    samples = pixel_samples([ends[0], 0, 1], [ends[1], 100, 2], dtype)
    out = np.zeros((6, 2 * 7, 3), dtype).transpose(2, 0, 1)[:, :, ::2]
    exact = oracle.synthesis(grids, nets, 0)
    expected = np.stack(
        [oracle.pixels(each, *pair) for each, pair in zip(exact, (ends, (0, 100), (1, 2)), strict=True)]
    )
    found = on(pyramid_synthesis, grids, nets, samples=samples, out=out)
    assert found.dtype == dtype
    assert_array_equal(found, expected)
    assert exact.min() < 0 < PIXEL_MOST < exact.max(), "values that clamping changes"


@pytest.mark.parametrize("channels", [4, 5, 17, 64])
def test_any_number_of_channels(channels: int, on: Answer) -> None:
    nets = made_nets(scales=3, channels=channels, hidden=2 if SIMULATED else 30, levels=1, convs=1)
    grids = made_grids(Shape(y=3, x=2), 3, spread=20)
    assert_array_equal(on(pyramid_synthesis, grids, nets), oracle.synthesis(grids, nets, 0))


def test_eight_grids_and_the_largest_sums(on: Answer) -> None:
    """Weights as large as the check of networks allows, over inputs as large as they can be."""
    rng = np.random.default_rng(5)
    nets = made_nets(scales=8, channels=2, hidden=5, levels=1, convs=1)
    synth = nets.synth[0]
    for layer in synth.layers:
        weights = rng.choice([-1, 1], layer.weights.shape)
        layer.weights[:] = weights * (60_000 // layer.weights.shape[1])
        layer.bias[:] = 2**31 - 1 - 2**13 - np.abs(layer.weights.astype(np.int64)).sum(axis=1) * 32767
    nets = replace(nets, filters=np.full((7, 4), 8191, np.int16) * rng.choice([-1, 1], (7, 4)).astype(np.int16)).check()
    grids = tuple(
        (rng.choice([-255, 255], grid.shape)).astype(np.int16) for grid in made_grids(Shape(y=5, x=6), 8)
    )  # fmt: skip
    assert_array_equal(on(pyramid_synthesis, grids, nets), oracle.synthesis(grids, nets, 0))


def test_grids_may_have_any_strides(on: Answer) -> None:
    nets = made_nets(channels=1, hidden=2)
    grids = made_grids(Shape(y=9, x=6), 4, spread=20)
    expected = on(pyramid_synthesis, grids, nets)
    turned = [np.asfortranarray(grid) for grid in grids]
    spread = [np.repeat(grid, 3, axis=1)[:, ::3] for grid in grids]
    for same in (turned, spread):
        assert_array_equal(on(pyramid_synthesis, same, nets), expected)


GRIDS, NETS = made_grids(Shape(y=9, x=6), 4), made_nets()
REFUSED = {
    "one grid too few": (GRIDS[:3], NETS, {}, r"layer 0.*expected 3 inputs"),
    "one filter too few": (GRIDS, replace(NETS, filters=NETS.filters[:2]), {}, r"got 2 filters.*expected 3"),
    "another size": ((GRIDS[0], GRIDS[0], *GRIDS[2:]), NETS, {}, r"`grids\[1\]`.*shape \(5, 3\)"),
    "a grid that is missing": ((GRIDS[0], None, *GRIDS[2:]), NETS, {}, r"`grids\[1\]`"),
    "a level without a network": (GRIDS, NETS, {"level": 2}, "`level`"),
    "a box outside": (GRIDS, NETS, {"box": Box(y=0, x=0, height=10, width=2)}, r"got rows 0 to 10.*expected .* 9 × 6"),
    "samples of other channels": (GRIDS, NETS, {"samples": pixel_samples([0], [255], np.uint8)}, "`samples`"),
    "an output of another type": (GRIDS, NETS, {"out": np.zeros((3, 9, 6), np.uint8)}, "`out`"),
    "layers that do not fit": (
        GRIDS, replace(NETS, synth=(replace(NETS.synth[0], first=NETS.synth[1].first),)), {}, "layer 0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(what: str) -> None:
    grids, nets, keywords, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message):
        pyramid_synthesis(grids, nets, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0, 1])
def test_a_tile_is_the_same_on_every_backend(level: int, on: Answer) -> None:
    nets = made_nets(channels=2, hidden=3)
    grids = made_grids(Shape(y=7, x=6), 4, spread=20)
    box = Box(level=level, y=1, x=0, height=2, width=3)
    expected = oracle.pixels(oracle.synthesis(grids, nets, level)[:, 1:3, :3], 5, 900)
    for backend in ("cuda",) if on.is_cuda else ("cpu", "torch", None):
        out = np.zeros((3, 2, 2), np.uint16).transpose(2, 1, 0)
        samples = pixel_samples([5, 5], [900, 900], np.uint16)
        write_samples(grids, nets, box=box, samples=samples, out=out, backend=backend)
        assert_array_equal(out, expected)


def test_a_backend_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`backend` of a tile.*expected cpu, cuda, torch"):
        write_samples(
            GRIDS, NETS, box=Box(y=0, x=0, height=1, width=1), samples=pixel_samples([0] * 3, [9] * 3, np.uint8),
            out=np.zeros((3, 1, 1), np.uint8), backend="gpu",
        )  # fmt: skip


def test_no_thread_changes_a_value() -> None:
    nets: PyramidNets = made_nets(channels=3)
    grids = made_grids(Shape(y=200, x=64), 4, spread=20)
    one = pyramid_synthesis(grids, nets, threads=1)
    assert_array_equal(pyramid_synthesis(grids, nets, threads=3), one)
