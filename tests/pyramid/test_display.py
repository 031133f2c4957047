"""Pixels as people can look at them."""

from __future__ import annotations

import numpy as np
import pytest

from tilestream.pyramid.display import DAMAGED, UNMEASURED, display_pixels, hatch
from tilestream.types import Channel, Region


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 3), ("uint16", 1), ("uint16", 4), ("float32", 2)])
def test_anything_can_be_looked_at(dtype, channels):
    pixels = (np.arange(channels * 30).reshape(channels, 5, 6) * 2).astype(dtype)
    valid = np.ones((5, 6), np.bool_)
    valid[0, 0] = False
    names = "RGB" if channels == 3 else "abcd"[:channels]
    shown = display_pixels(Region(pixels=pixels, valid=valid), [Channel(name=name) for name in names])
    assert shown.shape == (5, 6, 3)
    assert shown.dtype == np.uint8
    assert (shown[0, 0] == (255 if channels == 3 else 0)).all()
    if channels == 3:
        np.testing.assert_array_equal(shown[1:], pixels.transpose(1, 2, 0)[1:])
    else:
        assert shown.max() == 255


def test_bands_called_red_green_and_blue_are_shown_as_such():
    pixels = np.zeros((4, 3, 3), np.uint16)
    pixels[3, 1, 1] = 900  # red comes last
    channels = [Channel(name=name) for name in ("blue", "green", "nir", "Red")]
    shown = display_pixels(Region(pixels=pixels, valid=np.ones((3, 3), np.bool_)), channels)
    assert shown[1, 1].tolist() == [255, 0, 0]


def test_pixels_without_contrast_or_values_do_not_fail():
    valid = np.ones((2, 2), np.bool_)
    assert display_pixels(Region(pixels=np.full((1, 2, 2), np.nan), valid=valid)).max() == 0
    assert display_pixels(Region(pixels=np.full((1, 2, 2), 7.0), valid=valid)).shape == (2, 2, 3)
    assert display_pixels(Region(pixels=np.full((1, 2, 2), 7.0), valid=~valid)).max() == 0


def test_labels_have_a_colour_each_which_is_the_same_everywhere():
    labels = np.array([[[0, 1, 2], [3, 0, 2000]]], np.uint16)
    valid = np.array([[True, True, True], [True, False, True]])
    shown = display_pixels(Region(pixels=labels, valid=valid), kind="labels")
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 6  # five classes, and black where nothing is known
    assert shown[1, 1].tolist() == [0, 0, 0]
    alone = display_pixels(Region(pixels=labels[:, 1:, 2:], valid=valid[1:, 2:]), kind="labels")
    np.testing.assert_array_equal(alone[0, 0], shown[1, 2])


def test_a_hatch_leaves_known_pixels_as_they_are():
    shown = np.full((40, 40, 3), 77, np.uint8)
    unknown, damaged = np.zeros((40, 40), np.bool_), np.zeros((40, 40), np.bool_)
    unknown[:20], damaged[:20, :20] = True, True
    hatch(shown, unknown, damaged)
    assert (shown[20:] == 77).all()
    for part, (ground, ink) in ((shown[:20, :20], DAMAGED), (shown[:20, 20:], UNMEASURED)):
        assert {tuple(map(int, one)) for one in part.reshape(-1, 3)} == {ground, ink}
