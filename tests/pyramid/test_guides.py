"""Pictures with axes: a place that is read off them is that place on level 0."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilestream as ts
from tests.strategies import boxes_near
from tilestream.errors import ConfigError
from tilestream.pyramid.display import DAMAGED, UNMEASURED
from tilestream.pyramid.guides import guided_crop, ticks
from tilestream.types import Box, Shape


def with_mpp(array, mpp=0.25):
    return ts.open_pyramid(array).choose(mpp=mpp)


@settings(max_examples=15)
@given(box=boxes_near(Shape(y=500, x=700), reach_px=300), out_px=st.integers(256, 700))
def test_a_picture_is_at_most_as_large_as_asked_for(box, out_px):
    box = Box(y=box.y, x=box.x, height=box.height + 1, width=box.width + 1)
    guided = guided_crop(ts.open_pyramid(np.full((500, 700, 3), 200, np.uint8)), box, out_px)
    assert max(guided.pixels.shape[:2]) <= out_px
    assert guided.area.intersect(Box(y=0, x=0, height=out_px, width=out_px)) == guided.area


@pytest.mark.parametrize("edge", [30, 400, 3000])
def test_what_is_seen_at_a_place_of_the_picture_is_there_on_level_0(edge):
    """One bright square on black; enlarged, as it is, reduced."""
    array = np.zeros((edge, edge, 3), np.uint8)
    y, x, side = edge // 3, edge // 2, max(1, edge // 10)
    array[y : y + side, x : x + side] = (0, 255, 0)
    pyramid = ts.open_pyramid(array)
    guided = guided_crop(pyramid, pyramid.levels[0].box, 512)
    green = (guided.pixels[..., 1] > 190) & (guided.pixels[..., 0] < 60)
    rows, columns = (np.flatnonzero(green.any(axis=axis)) for axis in (1, 0))
    found = Box(y=rows[0], x=columns[0], height=np.ptp(rows) + 1, width=np.ptp(columns) + 1)
    box = guided.frame.box_of(found)
    step = guided.frame.scale_yx[0]
    ends = np.array([box.y, box.x, box.y_stop, box.x_stop])
    assert np.abs(ends - [y, x, y + side, x + side]).max() <= np.ceil(step)
    assert guided_crop(pyramid, box, 512).crop.pixels[1].mean() > 150
    middle = guided.frame.to_picture((y + side / 2, x + side / 2))
    assert guided.area.y <= middle[0] < guided.area.y_stop
    assert green[int(middle[0]), int(middle[1])]


def test_lines_are_drawn_where_the_numbers_say():
    pyramid = ts.open_pyramid(np.full((1000, 1000, 3), 128, np.uint8))
    guided = guided_crop(pyramid, pyramid.levels[0].box)
    inside = guided.pixels[guided.area.slices_yx][..., 0]
    drawn = [int(row) for row in np.flatnonzero((inside != 128).mean(axis=1) > 0.9)]
    wanted = [int(guided.frame.to_picture((y, 0))[0]) - guided.area.y for y in range(0, 1000, 200)]
    assert drawn == wanted
    assert {0, 255}.isdisjoint(np.unique(inside))  # what lies under a line shows through


def test_axes_in_micrometres_are_those_of_pixels_elsewhere():
    pyramid = with_mpp(np.full((1000, 1000, 3), 128, np.uint8))
    box = Box(y=0, x=0, height=1000, width=1000)
    px, um = guided_crop(pyramid, box, 600), guided_crop(pyramid, box, 600, unit="um")
    lines = [np.flatnonzero((one.pixels[one.area.slices_yx][..., 0] != 128).mean(axis=1) > 0.9) for one in (px, um)]
    assert len(lines[0]) == 5  # 0 to 800 px
    assert len(lines[1]) == 5  # 0 to 200 µm, a line every 50 µm = 200 px
    assert um.crop.mpp == pytest.approx(0.25 * um.frame.scale_yx[0])
    with pytest.raises(ConfigError, match="unknown resolution"):
        guided_crop(ts.open_pyramid(np.zeros((9, 9), np.uint8)), Box(y=0, x=0, height=9, width=9), unit="um")


def test_what_is_not_measured_and_what_is_damaged_can_be_told_apart(shared_data):
    pyramid = ts.open_pyramid(shared_data / "broken" / "corrupt.tif")
    guided = guided_crop(pyramid, Box(y=-100, x=0, height=1124, width=1024), 1200)
    assert guided.crop.stored == 0
    flat = guided.pixels[guided.area.slices_yx].reshape(-1, 3).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    colours = {(code >> 16, code >> 8 & 255, code & 255) for code in np.unique(flat).tolist()}
    assert {*UNMEASURED, *DAMAGED} <= colours
    assert "damaged blocks: 1 (cross-hatched)" in guided.caption
    assert "was not measured (hatched)" in guided.caption


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_image_has_one(channels):
    array = np.random.default_rng(0).integers(0, 4000, (channels, 300, 200)).astype(np.uint16)
    pyramid = ts.open_pyramid(array)
    guided = guided_crop(pyramid, pyramid.levels[0].box, 300)
    np.testing.assert_array_equal(imagecodecs.png_decode(guided.png()), guided.pixels)
    assert guided.caption.startswith("rows 0 to 300 and columns 0 to 200 of level 0; read from level 0; a pixel is 1")


def test_it_is_refused_where_there_is_no_room():
    pyramid = ts.open_pyramid(np.zeros((300, 300), np.uint8))
    for options, said in (
        ({"out_px": 255}, "at least 256"),
        ({"out_px": 10**6}, "at most 8192"),
        ({"unit": "mm"}, "one of px, um"),
    ):
        with pytest.raises(ConfigError, match=said):
            guided_crop(pyramid, pyramid.levels[0].box, **options)


@given(start=st.floats(-1e6, 1e6), length=st.floats(1, 1e6), most=st.integers(2, 8))
def test_ticks_are_round_few_and_inside(start, length, most):
    found = ticks(start, start + length, most)
    assert all(start <= value < start + length for value in found)
    assert len(found) <= most + 1
    steps = set(np.diff(found))
    assert len(steps) <= 1
    for step in steps:
        assert step / 10 ** np.floor(np.log10(step)) in (1, 2, 5)
