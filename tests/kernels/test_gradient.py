import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from tests.kernels.answers import MAX_PX, Answer
from tests.strategies import images
from tilestream.errors import ConfigError
from tilestream.kernels.gradient import DTYPES, gradient
from tilestream.kernels.gradient_magnitude import gradient_magnitude

SMOOTH = {"sobel": ([1, 2, 1], 8), "scharr": ([3, 10, 3], 32), "central": ([0, 1, 0], 2)}


def oracle(image, operator):
    """Both derivatives by scipy in float64."""
    weights, n = SMOOTH[operator]
    found = []
    for axis in (-2, -1):
        edge = ndimage.correlate1d(image.astype(np.float64), [-1, 0, 1], axis=axis, mode="nearest")
        found.append(ndimage.correlate1d(edge, weights, axis=-3 - axis, mode="nearest") / n)
    return np.stack(found)


def reorder(image, order):
    """Return the same pixels, or some of them, in another order of memory."""
    if order == "interleaved":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 0, 2)), 2, 0)
    return {"planar": image, "reversed": image[:, ::-1, ::-1], "stepped": image[:, ::2, ::2], "plane": image[0]}[order]


orders = st.sampled_from(["interleaved", "planar", "reversed", "stepped", "plane"])


@given(
    image=images(max_px=MAX_PX, channels=(1, 3), names=DTYPES), order=orders, operator=st.sampled_from(sorted(SMOOTH))
)
def test_derivatives_are_those_of_scipy(image, order, operator, on: Answer) -> None:
    image = reorder(image, order)
    expected = oracle(image, operator)
    found = on(gradient, image, operator=operator)
    out = np.full(expected.shape, 9, np.float32)
    assert_array_equal(on(gradient, image, operator=operator, out=out), found)
    length = on(gradient_magnitude, image, operator=operator)
    most = max(1.0, float(np.abs(image.astype(np.float64)).max()))
    if image.dtype.kind == "f":
        assert_allclose(found, expected, atol=1e-6 * most, rtol=0)
    else:
        assert_array_equal(found, expected)
    squares = (expected**2).sum(axis=0)
    expected_length = np.sqrt(squares if image.ndim == 2 else squares.sum(axis=0))
    assert_allclose(length, expected_length, atol=2e-6 * most, rtol=1e-6)


@given(data=st.data())
def test_a_cut_with_its_halo_gives_the_bits_of_the_whole(data: st.DataObject, on: Answer) -> None:
    image = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 50, (2, 9, 8)).astype(np.float32)
    y, x = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    cut = image[:, y - 1 : y + 4, x - 1 : x + 4]
    assert_array_equal(on(gradient, cut)[..., 1:-1, 1:-1], on(gradient, image)[..., y : y + 3, x : x + 3])
    found = on(gradient_magnitude, cut)[1:-1, 1:-1]
    assert_array_equal(found, on(gradient_magnitude, image)[y : y + 3, x : x + 3])


@pytest.mark.parametrize("operator", sorted(SMOOTH))
def test_a_ramp_has_its_slope(operator: str) -> None:
    y, x = np.mgrid[:9, :11]
    iy, ix = gradient((3 * y + 7 * x).astype(np.uint16), operator=operator)
    assert (iy[1:-1, 1:-1] == 3).all()
    assert (ix[1:-1, 1:-1] == 7).all()
    assert_allclose(gradient_magnitude(3 * y.astype(np.float32), operator=operator)[1:-1], 3)


def test_threads_do_not_change_a_bit() -> None:
    image = np.random.default_rng(0).normal(0, 1, (3, 333, 401)).astype(np.float32)
    assert_array_equal(gradient(image, threads=1), gradient(image, threads=2))
    assert_array_equal(gradient_magnitude(image, threads=1), gradient_magnitude(image, threads=2))


@pytest.mark.parametrize("operation", [gradient, gradient_magnitude])
@pytest.mark.parametrize(
    ("image", "keywords", "message"),
    [
        (np.zeros((4, 4), np.float64), {}, r"`image`.*float64.*float32"),
        (np.zeros(4, np.uint8), {}, r"`image`.*2 or 3 axes"),
        (np.zeros((0, 4), np.uint8), {}, r"`image`.*at least one"),
        (np.zeros((4, 4), np.uint8), {"operator": "prewitt"}, r"`operator`.*'prewitt'.*'sobel'"),
        (np.zeros((4, 4), np.uint8), {"out": np.zeros((4, 5), np.float32)}, "`out`"),
        (np.zeros((4, 4), np.uint8), {"threads": 0}, "`threads`"),
    ],
)
def test_what_has_no_gradient_is_refused(operation, image, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        operation(image, **keywords)
