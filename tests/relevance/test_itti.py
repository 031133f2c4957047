import numpy as np
import pytest

from tests.plan.build import pyramid
from tests.relevance.made import as_floats, flawed, glass, slide, texture
from tests.relevance.test_residual import smooth
from tilestream.errors import ConfigError
from tilestream.relevance import CentreSurround
from tilestream.relevance.itti import _peaked

PLACE = np.s_[12:16, 20:24]
"""Cells of the square that stands out."""
SQUARE = np.s_[96:128, 160:192]


def ground():
    return np.full((256, 320, 3), (150, 150, 150), np.uint8)


def squares(mark):
    picture = ground()
    mark(picture)
    return CentreSurround()(slide(picture))


def lighter(picture):
    picture[SQUARE] = 220


def redder(picture):
    picture[SQUARE] = (190, 130, 130)  # of the same intensity


def turned(picture):
    stripes = np.where(np.arange(320) // 8 % 2, 100, 200).astype(np.uint8)
    picture[...] = stripes[None, :, None]
    picture[SQUARE] = stripes[:32, None, None]


@pytest.mark.parametrize("mark", [lighter, redder, turned])
def test_light_colour_and_direction_stand_out(mark):
    found = squares(mark)
    inside = np.zeros(found.values.shape, np.bool_)
    inside[PLACE] = True
    away = ~inside
    away[8:20, 16:28] = False
    assert found.values[inside].max() == found.values.max()
    assert found.values[inside].mean() > 3 * found.values[away].mean()


def test_one_that_differs_counts_more_than_many():
    one = np.zeros((20, 20))
    one[10, 10] = 5
    many = np.zeros((20, 20))
    many[::4, ::4] = 5
    assert _peaked(one).max() == 1
    assert _peaked(many).max() == 0
    many[10, 10] = 10
    assert _peaked(many)[10, 10] == pytest.approx(0.25)


@pytest.mark.parametrize("picture", [glass(256, 256), ground(), np.zeros((64, 64, 3), np.uint8)])
def test_what_has_nothing_but_noise_is_0(picture):
    found = CentreSurround()(slide(picture))
    assert not found.values.any()
    assert found.floor == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_black_hole_does_not_shine(seed):
    picture = smooth(seed)
    found = CentreSurround()(as_floats(picture, np.s_[130:250, 150:270]))
    near = np.zeros(found.values.shape, np.bool_)
    near[14:34, 16:36] = True
    near &= found.valid
    elsewhere = found.values[found.valid & ~near]
    assert found.values[near].mean() < 1.5 * elsewhere.mean()
    assert found.values[near].max() < 1.2 * elsewhere.max()
    assert not found.values[~found.valid].any()
    black = picture.copy()
    black[130:250, 150:270] = 0
    shines = CentreSurround()(as_floats(black))
    assert shines.values[near].mean() > 2 * shines.values[found.valid & ~near].mean()


def test_dyes_are_no_colours():
    picture = np.zeros((128, 128, 3), np.uint8)
    picture[40:64, 40:64, 2] = 250
    found = CentreSurround()(pyramid(picture, mpp=8.0, modality="fluorescence"))
    assert found.notes == ("itti: no light in red, green and blue, so nothing of colour",)
    assert found.values.any()


def test_damage_is_not_valid():
    found = CentreSurround()(flawed(texture(192, 192)))
    assert not found.valid[8:16, 8:16].any()
    assert "a cut stream" in found.notes[0]


def test_images_without_colour_say_so():
    found = CentreSurround()(pyramid(texture(64, 64, channels=1)[..., 0], mpp=8.0))
    assert found.notes == ("itti: no light in red, green and blue, so nothing of colour",)
    with pytest.raises(ConfigError, match="an image of classes"):
        CentreSurround()(pyramid(np.zeros((32, 32), np.uint8), kind="labels"))
