"""Weights of errors: one where a map is one, decibels less where it is not, the same whatever the tile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.errors import ConfigError
from tilestream.relevance.emphasis import Emphasis
from tilestream.types import Box, ScoreMap, Shape

SHAPE = Shape(y=90, x=128)
CELL = 15.0, 43.0  # odd, so that a pixel lies in the middle


def scores(values: np.ndarray | None = None, **more: object) -> ScoreMap:
    found = np.random.default_rng(0).random((6, 3), np.float32) if values is None else values.astype(np.float32)
    given = {"valid": np.ones(found.shape, np.bool_), "absolute": True, **more}
    return ScoreMap(name="relevance", values=found, cell_yx=CELL, shape=SHAPE, **given)


WHOLE = Box(y=0, x=0, height=90, width=128)


@pytest.mark.parametrize(("value", "weight"), [(1, 1), (0, 0.01), (0.5, 0.1)])
def test_a_decibel_is_a_decibel(value: float, weight: float) -> None:
    weights = Emphasis(scores=scores(np.full((6, 3), value)), db=20).weights(WHOLE)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, weight, rtol=1e-6)


def test_at_the_centres_of_cells_stands_what_the_cells_say() -> None:
    found = scores()
    weights = Emphasis(scores=found, db=12).weights(WHOLE)
    np.testing.assert_allclose(weights[7::15, 21:108:43], 10 ** (1.2 * (found.values - 1)), rtol=1e-5)
    assert (weights[:7, :21] == weights[0, 0]).all()  # the rim is that of the outermost centres


@given(st.integers(0, 80), st.integers(0, 120), st.integers(1, 9), st.integers(1, 8))
def test_weights_of_a_tile_are_those_of_the_image(y: int, x: int, height: int, width: int) -> None:
    emphasis = Emphasis(scores=scores(), db=12)
    part = emphasis.weights(Box(y=y, x=x, height=height, width=width))
    np.testing.assert_array_equal(part, emphasis.weights(WHOLE)[y : y + height, x : x + width])


def test_a_coarse_pixel_has_about_the_weight_of_those_under_it() -> None:
    emphasis = Emphasis(scores=scores(), db=6)
    fine = np.log(emphasis.weights(Box(y=0, x=0, height=88, width=128)))
    coarse = np.log(emphasis.weights(Box(level=2, y=0, x=0, height=22, width=32)))
    np.testing.assert_allclose(coarse, fine.reshape(22, 4, 32, 4).mean((1, 3)), atol=0.05)


def test_what_is_not_valid_matters_least() -> None:
    valid = np.zeros((6, 3), np.bool_)
    weights = Emphasis(scores=scores(np.ones((6, 3)), valid=valid), db=10).weights(WHOLE)
    np.testing.assert_allclose(weights, 0.1, rtol=1e-6)


@pytest.mark.parametrize("db", [0, -3, 61, float("nan")])
def test_decibels_that_make_no_sense_are_refused(db: float) -> None:
    with pytest.raises(ConfigError, match="--emphasis"):
        Emphasis(scores=scores(), db=db)


def test_a_map_in_a_unit_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigError, match="values of 0 to 1"):
        Emphasis(scores=scores(absolute=False), db=3)
