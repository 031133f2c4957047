"""Pixels of a fit: valid ones only, each once before any comes again, at their place and of their value."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from tests.codecs.fields.pictures import picture
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.fields.sampler import PixelSampler
from tilestream.errors import ConfigError


def at(samples, levels, level):
    """Return y, x of the samples of one level."""
    picked = samples.level == level
    xy = samples.coords_xy[picked] * levels.picture.extent_px / 2.0**level - 0.5
    assert_allclose(xy, np.rint(xy), atol=1e-3)
    return np.rint(xy[:, ::-1]).astype(int), samples.values[picked]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_values_are_those_of_the_pixels_at_the_coordinates(dtype) -> None:
    levels = Levels.of(picture(37, 22, dtype=dtype), levels=3)
    samples = PixelSampler(levels, seed=3).draw(700)
    assert samples.coords_xy.dtype == samples.level.dtype == samples.values.dtype == np.float32
    assert sum(samples.counts) == 700
    assert_allclose(np.array(samples.counts) / 700, np.array([4, 2, 1]) / 7, atol=0.01)
    for level in range(3):
        (yx), values = at(samples, levels, level)
        assert len(yx) == samples.counts[level]
        expected = levels.picture.to_unit(levels.pixels[level][:, yx[:, 0], yx[:, 1]]).T
        assert_array_equal(values, expected)


def test_each_pixel_comes_once_before_any_comes_again() -> None:
    levels = Levels.of(picture(16, 12), levels=1)
    sampler = PixelSampler(levels)
    for _ in range(3):
        seen = np.concatenate([at(sampler.draw(64), levels, 0)[0] for _ in range(3)])
        assert len({tuple(yx) for yx in seen.tolist()}) == 16 * 12
    assert sum(sampler.draw(1000).counts) == 1000  # more than there are: several rounds


def test_what_is_not_valid_is_never_drawn() -> None:
    pixels = picture(24, 24, dtype="float32")
    pixels[1, :, :13] = np.nan
    levels = Levels.of(pixels, levels=3)
    samples = PixelSampler(levels).draw(900)
    assert np.isfinite(samples.values).all()
    assert at(samples, levels, 0)[0][:, 1].min() == 13


def test_weights_say_how_many_are_of_which_level() -> None:
    levels = Levels.of(picture(32, 32), levels=3)
    sampler = PixelSampler(levels, level_weights={0: 1, 2: 3})
    drawn = np.array([sampler.draw(101).counts for _ in range(40)])
    assert_array_equal(drawn.sum(axis=1), 101)
    assert not drawn[:, 1].any()
    assert_allclose(drawn.mean(axis=0) / 101, [0.25, 0, 0.75], atol=2e-3)


def test_one_seed_gives_one_sequence() -> None:
    levels = Levels.of(picture(20, 20), levels=2)
    first, second, other = (PixelSampler(levels, seed=seed) for seed in (1, 1, 2))
    for _ in range(3):
        a, b, c = (sampler.draw(90) for sampler in (first, second, other))
        assert_array_equal(a.coords_xy, b.coords_xy)
        assert not np.array_equal(a.coords_xy, c.coords_xy)


def test_a_level_of_one_pixel_is_a_level() -> None:
    levels = Levels.of(picture(3, 2), levels=3)
    samples = PixelSampler(levels, level_weights={2: 1}).draw(5)
    assert_array_equal(samples.coords_xy, np.float32(4 * 0.5 / 3))


@pytest.mark.parametrize("weights", [{7: 1.0}, {0: -1.0}, {0: 0.0}, {0: float("nan")}, {}])
def test_weights_of_nothing_are_refused(weights) -> None:
    with pytest.raises(ConfigError, match="`level_weights`"):
        PixelSampler(Levels.of(picture(8, 8), levels=2), level_weights=weights)
