import functools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.kernels.answers import SIMULATED, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.lattice_taps import lattice_taps

SHAPES = [(1, 1), (2, 5), (4, 3)] + ([] if SIMULATED else [(33, 40), (300, 70)])


def oracle(planes, taps, bias, shape_yx):
    height, width = shape_yx
    total = np.full(shape_yx, bias, np.int64)
    for plane, row, column, weight in taps.astype(np.int64):
        seen = planes[plane, row : row + 2 * height - 1 : 2, column : column + 2 * width - 1 : 2]
        total += weight * seen.astype(np.int64)
    return total


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [0, 1, 11])
def test_sums_are_those_of_the_oracle(shape: tuple[int, int], count: int, on: Answer) -> None:
    rng = np.random.default_rng(count)
    planes = rng.integers(-(2**23), 2**23, (3, 2 * shape[0] + 4, 2 * shape[1] + 5)).astype(np.int32)
    ends = ((0, 3), (0, 6), (0, 7), (-(2**16), 2**16))
    taps = np.column_stack([rng.integers(*each, count) for each in ends]).astype(np.int32)
    found = on(functools.partial(lattice_taps, taps=taps), planes, bias=-(2**40), shape_yx=shape)
    assert found.dtype == np.int64
    assert_array_equal(found, oracle(planes, taps, -(2**40), shape))


def test_no_results_of_no_places(on: Answer) -> None:
    taps = np.array([[0, 0, 0, 1]], np.int32)
    planes = np.zeros((1, 1, 1), np.int32)
    assert on(functools.partial(lattice_taps, taps=taps), planes, bias=0, shape_yx=(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("tap", [(1, 0, 0, 1), (0, -1, 0, 1), (0, 2, 0, 1), (0, 0, 4, 1), (-1, 0, 0, 1)])
def test_taps_outside_are_refused(tap: tuple[int, ...]) -> None:
    planes = np.zeros((1, 4, 6), np.int32)
    with pytest.raises(ConfigError, match="taps"):
        lattice_taps(planes, np.array([tap], np.int32), 0, shape_yx=(2, 2))


def test_taps_of_another_form_are_refused() -> None:
    planes = np.zeros((1, 4, 6), np.int32)
    with pytest.raises(ConfigError, match="four numbers"):
        lattice_taps(planes, np.zeros((2, 3), np.int32), 0, shape_yx=(2, 2))
    with pytest.raises(ConfigError, match="planes"):
        lattice_taps(planes.astype(np.float32), np.zeros((0, 4), np.int32), 0, shape_yx=(2, 2))
