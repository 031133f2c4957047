"""Boxes and levels that a field is asked for."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.codecs.fields.pictures import picture
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fields.query import Query
from tilestream.errors import ConfigError
from tilestream.types import Box

PICTURE = Picture.of(picture(37, 50), levels=3)


@pytest.mark.parametrize(
    ("box", "level", "expected"),
    [
        (None, None, (0, 37, 50)),
        (None, 1, (1, 19, 25)),
        (None, 0.5, (0.5, 27, 36)),
        (Box(level=2, y=1, x=2, height=3, width=4), None, (2, 3, 4)),
        (Box(y=1, x=2, height=3, width=4), 1.5, (1.5, 3, 4)),
        (Box(y=37, x=0, height=0, width=50), None, (0, 0, 50)),
    ],
)
def test_what_is_left_out_is_filled_in(box, level, expected) -> None:
    query = Query.of(PICTURE, box=box, level=level)
    assert (query.level, *query.box.shape.yx) == expected
    assert query.shape == (3, *expected[1:])
    assert query.room(None).shape == query.shape
    assert query.centres_xy().shape == (expected[1] * expected[2], 2)


def test_centres_are_where_pixels_are() -> None:
    box = Box(y=5, x=7, height=2, width=3)
    found = Query.of(PICTURE, box=box, level=1).centres_xy().reshape(2, 3, 2)
    assert_allclose(found[1, 2], [2 * 9.5 / 50, 2 * 6.5 / 50])


def test_no_centre_lies_beyond_the_last_of_a_whole_level() -> None:
    found = Query.of(PICTURE, box=None, level=1.5).centres_xy(whole=1)  # 14 × 18 pixels, the last at 49.5 of 50
    y, x = PICTURE.shape_at(1.5).yx
    assert found[:, 0].max() == pytest.approx(49 / 50)
    assert found.reshape(y, x, 2)[0, 3] == pytest.approx([3.5 * 2**1.5 / 50, 0.5 * 2**1.5 / 50])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"picture": None}, "never fitted"),
        ({"level": -1}, "`level`"),
        ({"level": float("nan")}, "`level`"),
        ({"level": 33}, "`level`"),
        ({"box": Box(y=30, x=0, height=8, width=1)}, "37 × 50"),
        ({"box": Box(y=-1, x=0, height=1, width=1)}, "`box`"),
        ({"box": Box(level=1, y=0, x=0, height=19, width=26)}, "19 × 25"),
    ],
)
def test_what_is_not_there_is_refused(given, message) -> None:
    asked = {"picture": PICTURE, "box": None, "level": None} | given
    with pytest.raises(ConfigError, match=message):
        Query.of(asked.pop("picture"), **asked)


@pytest.mark.parametrize("out", [np.zeros((3, 37, 49), np.uint8), np.zeros((3, 37, 50), np.int8)])
def test_room_that_does_not_fit_is_refused(out) -> None:
    with pytest.raises(ConfigError, match="`out`"):
        Query.of(PICTURE, box=None, level=None).room(out)
