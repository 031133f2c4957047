from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.plan.build import pyramid
from tests.relevance.made import slide, texture
from tilestream.relevance.look import Look, cell_means, seen
from tilestream.types import PlanLevel, Shape


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"])
def test_planes_are_codes_before_they_are_rounded(dtype):
    kind = np.dtype(dtype)
    values = np.random.default_rng(0).normal(0, 1, (64, 64)) * np.logspace(-3, 4.5, 64)
    if kind.kind == "u":
        values = np.abs(values)
    look = Look.of(pyramid(values.astype(dtype), mpp=8.0))
    codes, valid = look.codes()
    plane = look.plane(0)
    assert valid.all()
    assert np.abs(plane - codes[0]).max() <= 0.5001
    assert np.abs(plane - codes[0]).max() > 0.1
    np.testing.assert_array_equal(look.intensity, plane)


def test_the_ends_of_a_type_have_codes():
    for dtype in ("int16", "int64", "uint64", "float64"):
        limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
        look = Look.of(pyramid(np.array([[limits.min, limits.max]], dtype), mpp=8.0))
        plane = look.plane(0)
        assert np.isfinite(plane).all()
        assert np.abs(plane - look.codes()[0][0]).max() <= 1


def test_8_bits_are_their_own_codes():
    picture = texture(32, 40)
    look = Look.of(slide(picture))
    codes, _ = look.codes()
    assert np.shares_memory(codes, look.coarse.pixels)
    np.testing.assert_allclose(look.intensity, picture.mean(axis=2), rtol=1e-6)
    assert (look.unit, look.codes_per_octave) == (1.0, None)


def test_classes_are_taken_modulo_256():
    classes = np.array([[0, 255, 256, 700]], np.int32)
    codes, _ = Look.of(pyramid(classes, kind="labels")).codes()
    np.testing.assert_array_equal(codes[0], classes % 256)


def test_a_contrast_of_1_in_128_is_a_unit():
    bright, brighter = 20_000.0, 20_000.0 * 129 / 128
    for dtype in ("uint16", "int32", "float32"):
        look = Look.of(pyramid(np.array([[bright, brighter]], dtype), mpp=8.0))
        assert np.diff(look.plane(0))[0, 0] == pytest.approx(look.unit, rel=0.02)


@pytest.mark.parametrize("scale", [4.0, 4.1, 3.9])
def test_levels_whose_scale_is_not_quite_that_of_their_size(scale):
    """A format may round level sizes down, or state a scale that is not the ratio of sizes."""
    whole = Look.of(slide(texture(64, 80)))
    level = PlanLevel(stored=0, ratio_yx=(Fraction(1), Fraction(1)), shape=Shape(y=64, x=80), scale_yx=(scale, scale))
    info = replace(whole.info, levels=(replace(whole.info.levels[0], shape=Shape(y=259, x=323)),))
    look = Look(info=info, coarse=replace(whole.coarse, level=level))
    values, valid = cell_means(look.intensity, look.coarse.valid, 8)
    found = look.score_map("x", values, valid, cell_px=8)
    rows = min(8, found.values.shape[0])
    np.testing.assert_allclose(found.values[:rows, :10], values[:rows, :10], rtol=1e-6)
    np.testing.assert_allclose(found.values[-1, :10], values[min(len(found.values), 8) - 1, :10], rtol=1e-6)
    assert found.valid.all()


def test_cells_count_what_is_valid():
    values = np.arange(20.0).reshape(4, 5)
    valid = np.zeros((4, 5), np.bool_)
    valid[0, :2] = valid[3, 4] = True
    means, known = cell_means(values, valid, 4)
    np.testing.assert_array_equal(means, [[0.5, 19]])
    assert known.all()
    np.testing.assert_array_equal(seen(valid, 2), [[True, False, False], [False, False, True]])
    assert not cell_means(values, np.zeros((4, 5), np.bool_), 2)[1].any()
