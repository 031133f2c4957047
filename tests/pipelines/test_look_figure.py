"""Figures of score maps and token plans: what is coloured lies where it is, and nothing hides what is not known."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import tilestream as ts
from tilestream.pipelines.attend_figure import recipe_of
from tilestream.pipelines.look_figure import PAPER, Swatch, Words, compose, hatch_swatches, png_of, ramp, swatch
from tilestream.pipelines.look_panels import Ground, level_colours, map_panel, mark_boxes, mark_fixations, token_panel
from tilestream.pyramid.display import DAMAGED
from tilestream.types import Box, ScoreMap, Shape


def ground_of(height=300, width=400, value=128):
    ground = Ground.of(ts.open_pyramid(np.zeros((height, width, 3), np.uint8)))
    return replace(ground, pixels=np.full_like(ground.pixels, value))


def scores_of(values, valid=None, cell_px=100.0, shape=(300, 400)):
    values = np.array(values, np.float32)
    return ScoreMap(
        name="relevance",
        values=values,
        valid=np.ones(values.shape, np.bool_) if valid is None else np.array(valid),
        cell_yx=(cell_px, cell_px),
        shape=Shape(y=shape[0], x=shape[1]),
    )


def test_a_map_is_coloured_cell_by_cell_and_grey_where_it_says_nothing():
    ground = ground_of()
    values = np.arange(12).reshape(3, 4) / 11
    valid = np.ones((3, 4), np.bool_)
    valid[1, 2] = False
    within = np.ones(ground.unknown.shape, np.bool_)
    within[:, :5] = False
    panel = map_panel(ground, scores_of(np.where(valid, values, 0), valid), (0.0, 1.0), within=within)
    centres = panel[50::100, 50::100]
    assert len({tuple(map(int, one)) for one in centres.reshape(-1, 3)}) == 12
    assert np.ptp(centres[1, 2].astype(int)) == 0
    assert (np.ptp(panel[:, :5].astype(int), axis=-1) == 0).all()
    for row in range(3):
        cell = panel[100 * row + 5 : 100 * row + 95, 105:195]
        assert (cell == cell[0, 0]).all()


def test_even_glass_is_not_stretched_into_a_picture():
    noise = np.random.default_rng(0).integers(240, 246, (300, 400, 3)).astype(np.uint8)
    assert np.ptp(Ground.of(ts.open_pyramid(noise)).washed.astype(int)) < 16
    assert len(np.unique(Ground.of(ts.open_pyramid(noise * 0)).washed)) == 1


def test_squares_have_the_colour_of_their_level_and_outlines_where_there_is_room():
    ground = ground_of()
    boxes = np.array([[0, 0, 200, 200], [0, 200, 100, 300], [100, 200, 103, 203], [250, 350, 350, 450]], np.float64)
    level = np.array([1, 0, 0, 0])
    colours = np.array([[250, 0, 0], [0, 0, 250]], np.uint8)
    panel = token_panel(ground, boxes, level, colours).astype(int)
    assert panel[100, 100, 2] > panel[100, 100, 0]
    assert panel[50, 250, 0] > panel[50, 250, 2]
    assert np.ptp(panel[220, 100]) == 0  # no square there
    assert panel[50, 200].tolist() == [250, 0, 0]  # the left edge of the second
    assert (panel[100:103, 200:203] != [250, 0, 0]).any(axis=-1).all()  # too small for lines
    assert panel[299, 399, 0] > panel[299, 399, 2]  # reaches out of the image


def test_later_squares_lie_over_earlier_ones_and_none_vanishes():
    ground = ground_of(height=2100, width=2800)
    boxes = np.array([[0, 0, 2100, 2800], [1000, 1000, 1000.5, 1000.5]])
    panel = token_panel(ground, boxes, np.array([1, 0]), np.array([[250, 0, 0], [0, 0, 250]], np.uint8))
    reds = panel[..., 0].astype(int) > panel[..., 2]
    assert reds.sum() == 1
    y, x = ground.frame.to_picture((1000, 1000))
    assert reds[round(y), round(x)]


def test_no_square_at_all_is_a_grey_picture():
    ground = ground_of()
    panel = token_panel(ground, np.zeros((0, 4)), np.zeros(0, np.int64), level_colours(1))
    np.testing.assert_array_equal(panel, ground.washed)


def test_a_fixation_is_seen_on_black_and_white_and_at_the_edge():
    for value in (0, 255):
        ground = ground_of(value=value)
        pixels = ground.pixels.copy()
        mark_fixations(pixels, ground, [(150, 200), (0, 0), (300, 400)])
        y, x = (int(at) for at in ground.frame.to_picture((150, 200)))
        around = pixels[y - 12 : y + 13, x - 12 : x + 13]
        assert {0, 255} <= set(np.unique(around).tolist())
        assert (pixels != ground.pixels)[:12, :12].any()


@pytest.mark.parametrize("ink", [0, 255])
def test_a_place_is_outlined_on_any_ground_and_its_inside_stays(ink):
    for value in (0, 255):
        ground = ground_of(value=value)
        pixels = ground.pixels.copy()
        boxes = [
            Box(y=100, x=200, height=50, width=80),
            Box(y=299, x=399, height=1, width=1),
            Box(y=-9, x=-9, height=5, width=5),
        ]
        mark_boxes(pixels, ground, boxes, ink=ink)
        assert (pixels[100:150, 200:280] == value).all()
        assert (pixels[[99, 150], 200:280] == ink).all()
        assert (pixels[98:152, [198, 281]] == 255 - ink).all()
        changed = (pixels != ground.pixels).any(axis=-1)
        assert changed[290:].any()
        assert not changed[:90].any()


def test_what_is_damaged_is_hatched_in_both_pictures_and_named(shared_data):
    pyramid = ts.open_pyramid(shared_data / "broken" / "corrupt.tif")
    ground = Ground.of(pyramid)
    assert len(ground.damage) == 1
    for panel in (
        ground.marked(ground.pixels.copy()),
        map_panel(ground, scores_of(np.ones((2, 2)), cell_px=512.0, shape=(1024, 1024)), (0, 1)),
    ):
        colours = {tuple(map(int, one)) for one in panel[ground.damaged]}
        assert colours == set(DAMAGED)
    assert [row.words for row in hatch_swatches(ground)] == [("damaged",)]
    assert not hatch_swatches(ground_of())


@pytest.mark.parametrize(("height", "width"), [(300, 400), (3000, 200), (200, 3000), (20, 20)])
def test_a_figure_holds_all_that_it_is_made_of(height, width, tmp_path):
    ground = ground_of(height, width)
    picture = ground.marked(ground.pixels.copy())
    legend = [
        Swatch(colour=swatch(colour), words=(f"level {number}", "1,024 px", f"{10**number:,} tokens"))
        for number, colour in enumerate(level_colours(4))
    ]
    words = Words(title="a.svs: 1,111 tokens", facts=("reads a tenth",), warning="mind this")
    bare = compose(ground, [picture, picture], words)
    figure = compose(ground, [picture, picture], words, bar=ramp((0, 1), width_px=200), legend=legend)
    assert figure.shape[0] > bare.shape[0] + 4 * 22
    assert figure.shape[1] < 2000
    assert (figure[[0, -1]] == PAPER).all()
    assert (figure[:, [0, -1]] == PAPER).all()
    for colour in level_colours(4):
        assert (figure == colour).all(axis=-1).any()
    path = tmp_path / "figure.png"
    path.write_bytes(png_of(figure, recipe='{"term": "é"}'))
    assert recipe_of(path) == '{"term": "é"}'
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(path.read_bytes()))), figure)


def test_the_finest_level_is_the_lightest():
    light = level_colours(6).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(light) < 0).all()
    assert level_colours(1).shape == (1, 3)
