"""Fixations found in a map."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.errors import ConfigError
from tilestream.fovea import Fovea, fixations_of
from tilestream.types import ScoreMap, Shape


def a_map(values, *, cell=10.0, valid=None, shape=None):
    values = np.asarray(values, np.float32)
    valid = np.ones(values.shape, bool) if valid is None else valid
    shape = shape or Shape(y=int(values.shape[0] * cell), x=int(values.shape[1] * cell))
    return ScoreMap(name="query", values=np.where(valid, values, 0), valid=valid, cell_yx=(cell, cell), shape=shape)


def test_the_best_places_each_at_a_distance() -> None:
    values = np.zeros((6, 8))
    values[1, 1], values[1, 2], values[4, 6], values[0, 7] = 9, 8, 7, 7
    assert fixations_of(a_map(values), 3, inhibition_px=15) == ((15, 15), (5, 75), (45, 65))
    assert fixations_of(a_map(values), 2, inhibition_px=9.9) == ((15, 15), (15, 25)), "nearer is another place"


def test_ties_go_to_the_first_in_reading_order() -> None:
    assert fixations_of(a_map(np.ones((4, 4))), 4, inhibition_px=20) == ((5, 5), (5, 35), (25, 15), (35, 35))


def test_what_is_not_valid_is_not_looked_at() -> None:
    values = -np.ones((3, 3))
    valid = np.zeros((3, 3), bool)
    valid[1, 2] = True
    found = fixations_of(a_map(values, valid=valid), 5, inhibition_px=1)
    assert found == ((15, 25),), "also below the 0 of invalid cells; no more than there is"
    with pytest.raises(ConfigError, match=r"score map `query`.*no valid cell"):
        fixations_of(a_map(values, valid=valid & False), 1)


@given(data=st.data())
def test_fixations_are_in_the_image_and_apart(data: st.DataObject) -> None:
    shape = Shape(y=data.draw(st.integers(1, 300)), x=data.draw(st.integers(1, 300)))
    cell = data.draw(st.floats(1, 90))
    grid = tuple(max(1, int(-(-edge // cell))) for edge in shape.yx)
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = a_map(noise.integers(0, 4, grid), cell=cell, shape=shape)
    radius = data.draw(st.floats(1, 200))
    found = np.array(fixations_of(scores, 5, inhibition_px=radius))
    Fovea(fixations_yx=found, e0_px=1).require_inside(shape)
    away = np.hypot(*(found[:, None] - found[None]).transpose(2, 0, 1))
    assert (away[~np.eye(len(found), dtype=bool)] > radius).all()
    cells = np.minimum(found // cell, np.array(grid) - 1).astype(int)
    best = scores.values[cells[:, 0], cells[:, 1]]
    assert best[0] == scores.values.max()
    assert (np.diff(best) <= 0).all()


def test_a_sixth_of_the_shorter_edge_by_default() -> None:
    values = np.zeros((12, 24))
    values[0, 0], values[0, 2], values[0, 3] = 3, 2, 1
    assert fixations_of(a_map(values), 2) == ((5, 5), (5, 35))


@pytest.mark.parametrize(("n", "inhibition"), [(0, 5), (1.5, 5), (-1, 5), (2, 0), (2, float("nan"))])
def test_numbers_that_are_none(n, inhibition) -> None:
    with pytest.raises(ConfigError, match=r"`n` of|`inhibition_px`"):
        fixations_of(a_map(np.ones((2, 2))), n, inhibition_px=inhibition)
