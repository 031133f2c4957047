import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tilestream.models.pool import CHUNK_ROWS, STATISTICS, Pool


def pooled(vectors, ok, cuts=()):
    pool = Pool(vectors.shape[1])
    for rows, flags in zip(np.split(vectors, cuts), np.split(ok, cuts), strict=True):
        pool.add(rows, flags)
    return pool


@given(n=st.integers(0, 60), d=st.integers(1, 5), seed=st.integers(0, 999), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_equals_numpy_over_the_rows_that_count(n, d, seed, share):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(1000, 1, (n, d)).astype(np.float32)
    ok = rng.random(n) < share
    vectors[~ok] = np.nan
    pool = pooled(vectors, ok)
    found = pool.result()
    assert (pool.n, pool.n_ok) == (n, ok.sum())
    assert tuple(found) == STATISTICS
    for name, values in found.items():
        assert values.dtype == np.float32
        if not ok.any():
            assert np.isnan(values).all()
        else:
            assert_allclose(values, getattr(vectors[ok].astype(np.float64), name)(axis=0), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("d", [1, 7])
def test_cuts_do_not_change_a_bit(d):
    rng = np.random.default_rng(0)
    n = 2 * CHUNK_ROWS + 77
    vectors = (rng.normal(0, 1, (n, d)) * 10.0 ** rng.integers(-3, 4, (n, 1))).astype(np.float32)
    ok = rng.random(n) < 0.9
    whole = pooled(vectors, ok).result()
    for cuts in ((1, 2, 3), (5000,), tuple(range(100, n, 100)), (0, CHUNK_ROWS)):
        parts = pooled(vectors, ok, cuts).result()
        for name in STATISTICS:
            assert_array_equal(parts[name], whole[name])


def test_a_constant_has_no_spread():
    vectors = np.full((1000, 3), 0.1, np.float32)
    found = pooled(vectors, np.ones(1000, bool)).result()
    assert_array_equal(found["mean"], vectors[0])
    assert_array_equal(found["std"], 0)
