from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from tests.strategies import images
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip, mip_levels
from tilestream.kernels.resample import resample

NAMES = ("uint8", "uint16", "int16", "int32", "float32", "float64")


def by_resample(a, valid, level, kind="intensity"):
    pixels = np.moveaxis(a, 0, 2)
    shape = tuple(-(-n // 2**level) for n in pixels.shape[:2])
    out, out_valid = np.empty((*shape, pixels.shape[2]), a.dtype), np.empty(shape, bool)
    ratio = (Fraction(2**level),) * 2
    resample(pixels, valid, ratio_yx=ratio, src_yx=(0, 0), dst_yx=(0, 0), out=out, out_valid=out_valid, kind=kind)
    return np.moveaxis(out, 2, 0), out_valid


@given(a=images(names=NAMES, max_px=40), share=st.sampled_from([None, 0.0, 0.5, 0.95]), seed=st.integers(0, 99))
def test_levels_one_to_four_are_means_of_level_zero(a, share, seed):
    valid = None if share is None else np.random.default_rng(seed).random(a.shape[1:]) < share
    for level, got in enumerate(mip_levels(a, valid, levels=4), 1):
        expected, expected_valid = by_resample(a, valid, level)
        assert_array_equal(got.valid, expected_valid)
        assert got.pixels.dtype == a.dtype
        if a.dtype.kind == "f":
            assert_allclose(got.pixels, expected, rtol=1e-6, atol=1e-6)
        else:
            assert_array_equal(got.pixels, expected)


@given(a=images(names=("uint8", "uint16"), max_px=40), seed=st.integers(0, 99))
def test_labels_keep_the_most_frequent_class(a, seed):
    labels = (a % 4).astype(a.dtype)
    valid = np.random.default_rng(seed).random(a.shape[1:]) < 0.8
    for level, got in enumerate(mip_levels(labels, valid, levels=3, kind="labels"), 1):
        expected, expected_valid = by_resample(labels, valid, level, kind="labels")
        assert_array_equal(got.pixels, expected)
        assert_array_equal(got.valid, expected_valid)


def test_further_levels_come_from_the_fourth():
    a = np.random.default_rng(0).integers(0, 256, (3, 300, 170), dtype=np.uint8)
    levels = mip(a)
    assert [level.shape[1:] for level in levels][-1] == (1, 1)
    assert len(levels) == 9
    assert_array_equal(levels[6], by_resample(levels[3], None, 3)[0])


def test_ties_go_to_even_and_edges_average_what_exists():
    a = np.array([[0, 1, 7], [0, 1, 8], [3, 4, 9]], np.uint8)
    assert_array_equal(mip(a, levels=1)[0], [[0, 8], [4, 9]])


def test_two_dimensions_in_two_dimensions_out():
    a = np.arange(30, dtype=np.float64).reshape(5, 6)
    assert_array_equal(mip(a, levels=2)[1], mip(a[None], levels=2)[1][0])
    assert mip(np.ones((1, 1), np.uint8)) == []


@pytest.mark.parametrize("a", [np.zeros((2, 2), complex), np.zeros((0, 2), np.uint8), np.zeros(4, np.uint8)])
def test_refuses_what_it_cannot_reduce(a):
    with pytest.raises(ConfigError, match="`mip`"):
        mip(a)
