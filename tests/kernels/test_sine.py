import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose, assert_array_equal

from tilestream.kernels.sine import cosine_core, sine_core


@njit
def both(z):
    found = np.empty((2, z.size), z.dtype)
    for k in range(z.size):
        found[0, k] = sine_core(z[k])
        found[1, k] = cosine_core(z[k])
    return found


@pytest.mark.parametrize(("dtype", "limit", "tolerance"), [(np.float32, 2.0**12, 2e-7), (np.float64, 2.0**20, 4e-16)])
def test_they_are_those_of_longer_numbers(dtype, limit, tolerance) -> None:
    noise = np.random.default_rng(1)
    for most in (1e-3, 1.0, np.pi, 100.0, limit):
        z = noise.uniform(-most, most, 20_000).astype(dtype)
        exact = z.astype(np.longdouble)
        assert_allclose(both(z), [np.sin(exact), np.cos(exact)], rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_numbers_are_their_own_sine_and_signs_stay(dtype) -> None:
    z = np.array([0, 1e-20, 1e-5, 0.3, 3.0, 40.0], dtype)
    sines, cosines = both(z)
    assert_array_equal(sines[:2], z[:2])
    assert_array_equal(both(-z), [-sines, cosines])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_no_longer_has_a_phase_stays_within_one(dtype) -> None:
    z = np.array([1e9, -1e16, 1e30, np.finfo(dtype).max], dtype)
    assert (np.abs(both(z)) <= 1.0001).all()
    assert np.isnan(both(np.array([np.nan, np.inf, -np.inf], dtype))).all()
