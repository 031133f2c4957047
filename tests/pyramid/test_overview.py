"""Crops: what they show, from which level, and where each of their pixels lies."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import boxes_near
from tilestream import open_pyramid
from tilestream.errors import ConfigError
from tilestream.pyramid.frame import Frame
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape

positive = st.fractions(min_value=Fraction(1, 64), max_value=512, max_denominator=10_000)
corners = st.fractions(min_value=-10_000, max_value=200_000, max_denominator=10_000)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = write_slide(tmp_path_factory.mktemp("crop") / "made.svs", Shape(y=1100, x=1300), mpp=0.5)
    return open_pyramid(path)


@given(corner_yx=st.tuples(corners, corners), step_yx=st.tuples(positive, positive), at=st.integers(-3000, 3000))
def test_each_pixel_of_a_picture_comes_back_to_itself(corner_yx, step_yx, at):
    frame = Frame(corner_yx=corner_yx, step_yx=step_yx)
    y, x = frame.to_picture(frame.to_level0((at + 0.5, -at + 0.5)))
    assert (math.floor(y), math.floor(x)) == (at, -at)
    moved = frame.moved((7, 30)).enlarged(3)
    for inside in ((0, 0), (at, -at)):
        there = moved.to_level0((3 * (inside[0] + 7), 3 * (inside[1] + 30)))
        assert there == pytest.approx(frame.to_level0(inside), rel=1e-12, abs=1e-9)


@given(
    corner_yx=st.tuples(corners, corners),
    step_yx=st.tuples(positive, positive),
    area=boxes_near(Shape(y=900, x=900)),
)
def test_the_box_of_a_rectangle_is_the_smallest_that_holds_it(corner_yx, step_yx, area):
    frame = Frame(corner_yx=corner_yx, step_yx=step_yx)
    box = frame.box_of(area)
    edges = zip((box.y, box.x), (area.y, area.x), (box.y_stop, box.x_stop), (area.y_stop, area.x_stop), strict=True)
    for corner, step, (first, begins, last, ends) in zip(corner_yx, step_yx, edges, strict=True):
        assert 0 <= corner + step * begins - first < 1
        assert 0 <= last - (corner + step * ends) < 1


def test_numbers_of_numpy_give_the_same_places():
    """An odd scale has a denominator of 2^52: an int64 inside a fraction would overflow without a word."""
    frame = Frame(corner_yx=(Fraction(7), Fraction(7)), step_yx=(Fraction(4.000243), Fraction(4.000243)))
    numbers = {"y": 30_000, "x": 41_000, "height": 500, "width": 700}
    assert frame.box_of(Box(**{name: np.int64(value) for name, value in numbers.items()})) == frame.box_of(
        Box(**numbers)
    )
    assert frame.to_level0((np.float32(0.5), np.int64(3))) == frame.to_level0((0.5, 3))
    assert frame.to_picture((np.int64(90_000), np.float32(1))) == frame.to_picture((90_000, 1))
    pyramid = open_pyramid(np.zeros((300, 400), np.uint8))
    given, plain = (Box(y=kind(3), x=kind(5), height=kind(200), width=kind(300)) for kind in (np.int64, int))
    assert pyramid.crop(given, 77).frame == pyramid.crop(plain, 77).frame


def test_a_pixel_shows_what_lies_where_the_frame_says():
    ramp = np.add.outer(np.arange(200.0) * 1000, np.arange(300.0)).astype(np.float32)
    shown = open_pyramid(ramp).crop(Box(y=20, x=50, height=120, width=200), 50)
    assert shown.frame.scale_yx == (4.0, 4.0)
    y, x = shown.frame.to_level0((3.5, 10.5))
    assert shown.pixels[0, 3, 10] == pytest.approx((y - 0.5) * 1000 + x - 0.5)


@pytest.mark.parametrize(("box", "stored"), [((0, 0, 1100, 1300), 1), ((100, 200, 300, 300), 0)])
def test_a_crop_says_which_level_and_resolution_it_has(slide, box, stored):
    y, x, height, width = box
    shown = slide.crop(Box(y=y, x=x, height=height, width=width), 256)
    assert shown.stored == stored
    assert shown.mpp == pytest.approx(0.5 * max(height, width) / 256, rel=0.01)
    assert shown.frame.to_level0((0, 0)) == pytest.approx((y, x), abs=slide.levels[stored].scale_yx[0])


def test_a_box_of_another_level_is_the_same_place(slide):
    scale = slide.levels[1].scale_yx[0]
    fine = slide.crop(Box(y=400, x=400, height=400, width=400), 100)
    coarse = slide.crop(Box(level=1, y=100, x=100, height=100, width=100), 100)
    assert (fine.stored, coarse.stored) == (1, 1)
    assert coarse.frame.corner_yx[0] == 100 * Fraction(scale)
    np.testing.assert_array_equal(fine.pixels, coarse.pixels)


@given(box=boxes_near(Shape(y=50, x=70)), out_px=st.integers(1, 90))
def test_what_lies_outside_is_not_valid_and_the_rest_is(box, out_px):
    pyramid = open_pyramid(np.full((50, 70), 9, np.uint8))
    if not box.height or not box.width:
        with pytest.raises(ConfigError, match="at least one pixel"):
            pyramid.crop(box, out_px)
        return
    shown = pyramid.crop(box, out_px)
    assert max(shown.valid.shape) == min(out_px, max(box.height, box.width))
    assert not shown.damaged.any()
    rows, columns = np.indices(shown.valid.shape)
    step = float(shown.frame.step_yx[0])
    top, left = box.y + rows * step, box.x + columns * step
    bottom, right = np.minimum(top + step, box.y_stop), np.minimum(left + step, box.x_stop)
    inside = (bottom > 1e-9) & (right > 1e-9) & (top < 50 - 1e-9) & (left < 70 - 1e-9)
    np.testing.assert_array_equal(shown.valid, inside)
    assert set(np.unique(shown.pixels[0][shown.valid])) <= {9}


def test_strips_do_not_change_a_crop_across_an_edge(monkeypatch):
    pyramid = open_pyramid(np.random.default_rng(4).integers(0, 255, (301, 97, 3), dtype=np.uint8))
    box = Box(y=-40, x=30, height=300, width=200)
    whole = pyramid.crop(box, 45)
    monkeypatch.setattr("tilestream.pyramid.overview.STRIP_PX", 1)
    strips = pyramid.crop(box, 45)
    np.testing.assert_array_equal(strips.pixels, whole.pixels)
    np.testing.assert_array_equal(strips.valid, whole.valid)


def test_damage_is_where_the_damaged_block_is(shared_data):
    """One of the four tiles of level 0 cannot be decoded, the coarse levels can."""
    pyramid = open_pyramid(shared_data / "broken" / "corrupt.tif")
    whole = pyramid.crop(pyramid.levels[0].box, 1024)
    assert (whole.stored, len(whole.damage)) == (0, 1)
    assert whole.damaged.sum() == 512 * 512
    np.testing.assert_array_equal(whole.damaged, ~whole.valid)
    y, x = (int(edge[0]) for edge in np.nonzero(whole.damaged))
    part = pyramid.crop(Box(y=y - 100, x=x - 100, height=400, width=400), 300)
    assert part.damaged.sum() == 225 * 225
    assert part.damaged[75:, 75:].all()
    assert not pyramid.thumbnail(512).damaged.any()


def test_an_image_of_one_long_level_has_a_thumbnail():
    """The ratio 100,001 : 640 is beyond what resampling takes; the next one that it takes is used."""
    shown = open_pyramid(np.ones((3, 100_001), np.uint8)).thumbnail(640)
    assert shown.valid.shape == (1, 640)
    assert (shown.pixels == 1).all()


@pytest.mark.parametrize(
    ("box", "out_px", "said"),
    [
        (Box(level=2, y=0, x=0, height=5, width=5), 5, "a level below 1"),
        (Box(y=0, x=0, height=5, width=4097), 5, "at most 4,096 px"),
        (Box(y=0, x=0, height=5, width=5), 0, "at least one pixel"),
    ],
)
def test_boxes_that_cannot_be_shown_are_refused(box, out_px, said):
    with pytest.raises(ConfigError, match=said):
        open_pyramid(np.zeros((50, 70), np.uint8)).crop(box, out_px)


def test_a_picture_that_would_be_too_small_is_refused():
    with pytest.raises(ConfigError, match="larger picture"):
        open_pyramid(np.zeros((1, 70_000), np.uint8)).thumbnail(1)
