import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.cosines import cosines

HALF = st.sampled_from([np.float16, np.float32])


def oracle(vectors, units):
    exact = vectors.astype(np.float64)
    lengths = np.sqrt(np.square(exact).sum(axis=1))[:, None]
    dots = exact @ units.astype(np.float64).T
    return np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)


def made(seed: int, n: int, dim: int, count: int, dtype):
    noise = np.random.default_rng(seed)
    units = noise.normal(size=(count, dim))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return noise.normal(size=(n, dim)).astype(dtype), units.astype(np.float32)


@given(data=st.data(), dtype=HALF)
def test_cosines_are_those_of_float64(data: st.DataObject, dtype, on: Answer) -> None:
    n, dim, count = (data.draw(st.integers(1, most)) for most in (4, MAX_PX, 2))
    vectors, units = made(data.draw(st.integers(0, 99)), n, dim, count, dtype)
    vectors[data.draw(st.integers(0, n - 1))] *= data.draw(st.sampled_from([0, 1, 100]))
    expected = oracle(vectors, units)
    assert_allclose(on(cosines, vectors, units), expected, atol=1e-6)
    out = np.full((n, count), 7, np.float32)
    assert_allclose(on(cosines, vectors, units, out=out), expected, atol=1e-6)
    wide = np.zeros((2 * n, 2 * dim), dtype)
    wide[::-2, ::2] = vectors
    assert_allclose(on(cosines, wide[::-2, ::2], units), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_row_does_not_depend_on_the_others(dtype, on: Answer) -> None:
    vectors, units = made(0, 5, 37, 2, dtype)
    together = on(cosines, vectors, units)
    for first, last in ((0, 1), (2, 5)):
        assert_array_equal(on(cosines, vectors[first:last], units), together[first:last])


def test_what_has_no_direction_is_0_and_what_is_no_number_is_nan(on: Answer) -> None:
    vectors = np.array([[0, 0], [np.nan, 1], [np.inf, 1], [3, 4]], np.float16)
    found = on(cosines, vectors, np.array([[1, 0]], np.float32))[:, 0]
    assert_array_equal(np.isnan(found), [False, True, True, False])
    assert_allclose(found[[0, 3]], [0, 0.6], atol=1e-6)
    assert on(cosines, np.zeros((0, 2), np.float16), np.ones((1, 2), np.float32)).shape == (0, 1)


@pytest.mark.parametrize(
    ("vectors", "units", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 3), np.float32), "float16"),
        (np.ones(3, np.float32), np.ones((1, 3), np.float32), "2 axes"),
        (np.ones((2, 3), np.float32), np.ones((1, 4), np.float32), r"`units`.*\(1, 3\)"),
        (np.ones((2, 3), np.float32), np.ones((1, 3)), "`units`.*float32"),
    ],
)
def test_what_cannot_be_compared_is_refused(vectors, units, message) -> None:
    with pytest.raises(ConfigError, match=message):
        cosines(vectors, units)
