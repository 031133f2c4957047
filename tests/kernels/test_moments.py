import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tilestream.kernels.moments import PERCENTILES, moments


@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 3000),
    spread=st.sampled_from([0.0, 0.3, 5.0, 200.0]),
    centre=st.integers(0, 255),
)
def test_equals_numpy_on_the_samples(seed, n, spread, centre):
    samples = np.random.default_rng(seed).normal(centre, spread, n).clip(0, 255).round()
    found = moments(np.bincount(samples.astype(int), minlength=256))
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
