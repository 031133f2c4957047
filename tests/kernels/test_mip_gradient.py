"""The way back against the way there: the transpose of the matrix of means, in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.kernels.mip_gradient import mip_gradient
from tilestream.kernels.mip_layout import level_shape


def oracle(gradients, shape):
    out = np.zeros(shape)
    for level, gradient in enumerate(gradients, 1):
        edge = 2**level
        for y in range(gradient.shape[-2]):
            for x in range(gradient.shape[-1]):
                block = out[..., y * edge : (y + 1) * edge, x * edge : (x + 1) * edge]
                block += (gradient[..., y, x] / (block.shape[-2] * block.shape[-1]))[..., None, None]
    return out


@given(data=st.data())
def test_every_level_adds_its_share(data: st.DataObject, on: Answer) -> None:
    edge = st.integers(1, MAX_PX)
    shape = (data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), data.draw(edge), data.draw(edge))
    name = data.draw(st.sampled_from(["float32", "float64"]))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    levels = range(1, data.draw(st.integers(1, 6)) + 1)
    gradients = [noise.normal(size=level_shape(shape, level)).astype(name) for level in levels]
    if data.draw(st.booleans()):
        gradients = [np.moveaxis(np.ascontiguousarray(np.moveaxis(g, 1, 3)), 3, 1) for g in gradients]
    tolerance = {"float32": 1e-6, "float64": 1e-12}[name]
    expected = oracle(gradients, shape)
    got = on(mip_gradient, gradients, out=np.full(shape, np.nan, name))
    assert got.dtype == name
    assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        ([], "`gradients`.*0 arrays.*1 to 6"),
        ([np.zeros((2, 2))] * 7, "7 arrays"),
        ([np.zeros((2, 3))], r"`gradients\[0\]`.*\(2, 2\)"),
        ([np.zeros((2, 2), np.float32)], "float64"),
    ],
)
def test_what_are_no_gradients_of_levels_is_refused(gradients, message) -> None:
    with pytest.raises(ConfigError, match=message):
        mip_gradient(gradients, out=np.zeros((4, 4)))
