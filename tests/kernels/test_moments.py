import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.kernels.answers import Answer
from tilestream.errors import ConfigError
from tilestream.kernels.moments import PERCENTILES, Moments, moments


@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 3000),
    spread=st.sampled_from([0.0, 0.3, 5.0, 200.0]),
    centre=st.integers(0, 255),
    dtype=st.sampled_from(["uint32", "int64"]),
)
def test_equals_numpy_on_the_samples(seed, n, spread, centre, dtype, on: Answer):
    samples = np.random.default_rng(seed).normal(centre, spread, n).clip(0, 255).round()
    found = on(moments, np.bincount(samples.astype(int), minlength=256).astype(dtype)[None])
    found = Moments(**{name: value[0] for name, value in vars(found).items()})
    assert_allclose(found.mean, samples.mean(), rtol=1e-12)
    assert_allclose(found.std, samples.std(), rtol=1e-9, atol=1e-12)
    std = samples.std()
    skewness = ((samples - samples.mean()) ** 3).mean() / std**3 if std > 0 else 0.0
    assert_allclose(found.skewness, skewness, rtol=1e-8, atol=1e-9)
    assert_array_equal(found.percentiles, np.percentile(samples, PERCENTILES, method="inverted_cdf"))


def test_a_single_code_has_no_spread_and_nothing_is_nan():
    counts = np.zeros((256, 256), np.uint32)
    np.fill_diagonal(counts, 65536)
    found = moments(counts)
    assert_array_equal(found.mean, np.arange(256))
    assert not found.std.any()
    assert not found.skewness.any()


def test_one_pixel_that_differs_counts():
    counts = np.zeros(256, int)
    counts[200], counts[201] = 4096 * 4096 - 1, 1
    found = moments(counts)
    assert_allclose(found.std, 1 / 4096, rtol=1e-6)
    assert_allclose(found.skewness, 4096, rtol=1e-6)


def test_empty_is_nan():
    found = moments(np.zeros((2, 256), int))
    for value in (found.mean, found.std, found.skewness, found.percentiles):
        assert np.isnan(value).all()


def test_does_not_depend_on_threads_or_strides():
    counts = np.random.default_rng(0).integers(0, 500, (300, 256))
    out = np.empty((300, 8))
    moments(counts, threads=1, out=out)
    again = moments(np.repeat(counts, 2, axis=1)[::-1, ::2], threads=2)
    np.testing.assert_array_equal(
        out[::-1], np.column_stack([again.mean, again.std, again.skewness, again.percentiles])
    )


def test_what_is_no_count_is_refused():
    with pytest.raises(ConfigError, match=r"`counts`.*float32"):
        moments(np.zeros((2, 256), np.float32))
    with pytest.raises(ConfigError, match="`out`"):
        moments(np.zeros((2, 256), int), out=np.zeros((2, 3)))
