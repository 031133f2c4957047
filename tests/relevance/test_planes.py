from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import shapes
from tilestream.relevance.planes import Sums, enlarged, filled


@given(size=shapes(max_px=60), seed=st.integers(0, 9))
def test_reduced_is_the_mean_of_what_is_valid(size, seed):
    rng = np.random.default_rng(seed)
    values, valid = rng.random(size.yx), rng.random(size.yx) > 0.4
    found = Sums.of(values, valid, 4).reduced()
    for i in range(found.total.shape[0]):
        for j in range(found.total.shape[1]):
            part = np.s_[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
            known = values[part][valid[part]]
            assert found.count[i, j] == known.size
            assert found.means[i, j] == pytest.approx(known.mean() if known.size else 0)


@given(size=shapes(max_px=40), seed=st.integers(0, 9), levels=st.integers(1, 8))
def test_filled_keeps_what_is_known_and_stays_within_it(size, seed, levels):
    rng = np.random.default_rng(seed)
    values, valid = 5 + rng.random(size.yx), rng.random(size.yx) > 0.7
    planes = filled(Sums.of(values, valid, 1), levels)
    assert len(planes) == levels
    np.testing.assert_allclose(planes[0][valid], values[valid])
    if valid.any():
        known = values[valid]
        for plane in planes:
            assert plane.min() >= known.min() - 1e-9
            assert plane.max() <= known.max() + 1e-9
    shapes_yx = [plane.shape for plane in planes]
    assert all(b == tuple(-(-n // 2) for n in a) for a, b in pairwise(shapes_yx))


def test_nothing_valid_is_0():
    (plane,) = filled(Sums.of(np.ones((9, 5)), np.zeros((9, 5), np.bool_), 2), 1)
    assert plane.shape == (5, 3)
    assert not plane.any()


@pytest.mark.parametrize("factor", [2.0, 4.0, 2.5])
def test_enlarged_is_linear(factor):
    old = np.add.outer(3 * np.arange(6.0), np.arange(7.0))
    found = enlarged(old, (12, 14), factor)
    at = [((np.arange(n) + 0.5) / factor - 0.5).clip(0, m - 1) for n, m in ((12, 6), (14, 7))]
    np.testing.assert_allclose(found, np.add.outer(3 * at[0], at[1]), atol=1e-12)
    np.testing.assert_allclose(enlarged(np.full((1, 1), 3.0), (5, 4), 8.0), 3)
