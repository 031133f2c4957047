import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import shapes
from tilestream.relevance import regrid
from tilestream.types import ScoreMap, Shape, cells_of

CELLS = st.floats(1, 70)


def made(shape, cell_yx, seed=0, holes=0.0):
    rng = np.random.default_rng(seed)
    grid = cells_of(shape, cell_yx).yx
    valid = rng.random(grid) >= holes
    values = np.where(valid, rng.random(grid), 0).astype(np.float32)
    return ScoreMap(name="made", values=values, valid=valid, cell_yx=cell_yx, shape=shape)


def by_pixel(scores):
    """Value and validity of each pixel of level 0; cells must be whole pixels."""
    y, x = (np.arange(n) // int(c) for n, c in zip(scores.shape.yx, scores.cell_yx, strict=True))
    return scores.values[np.ix_(y, x)].astype(float), scores.valid[np.ix_(y, x)]


@given(shape=shapes(max_px=90), old=st.integers(1, 20), new=st.integers(1, 20), seed=st.integers(0, 9))
def test_is_the_mean_of_the_pixels(shape, old, new, seed):
    scores = made(shape, (old, old), seed, holes=0.3)
    found = regrid(scores, (new, new))
    values, valid = by_pixel(scores)
    for i in range(found.values.shape[0]):
        for j in range(found.values.shape[1]):
            part = np.s_[i * new : (i + 1) * new, j * new : (j + 1) * new]
            assert found.valid[i, j] == valid[part].any()
            if found.valid[i, j]:
                assert found.values[i, j] == pytest.approx(values[part][valid[part]].mean(), abs=1e-5)


@given(shape=shapes(max_px=300), old=st.tuples(CELLS, CELLS), new=st.tuples(CELLS, CELLS))
def test_a_constant_stays_one_on_any_grid(shape, old, new):
    grid = cells_of(shape, old).yx
    scores = ScoreMap(
        name="made", values=np.full(grid, 0.7, np.float32), valid=np.ones(grid, np.bool_), cell_yx=old, shape=shape
    )
    found = regrid(scores, new)
    assert found.valid.all()
    np.testing.assert_array_equal(found.values, np.float32(0.7))
    assert found.cell_yx == new


@given(n=st.integers(1, 4000), k=st.integers(1, 60), scale=st.floats(1, 50))
def test_cells_that_divide_an_image_are_not_one_more(n, k, scale):
    """Level 0 of 2967 px, 741 of them at a scale of 2967 / 741: rounding must not add a cell."""
    edge = max(1, round(n * k * scale))
    assert cells_of(Shape(y=edge, x=1), (edge / n, 1.0)).y == n


def test_the_same_grid_is_the_same_map():
    scores = made(Shape(y=40, x=30), (8, 8))
    assert regrid(scores, (8, 8)) is scores


def test_facts_go_along():
    scores = ScoreMap(
        name="made", values=np.ones((4, 4), np.float32), valid=np.ones((4, 4), np.bool_), cell_yx=(2, 2),
        shape=Shape(y=8, x=8), notes=("seen",), floor=0.5,
    )  # fmt: skip
    found = regrid(scores, (3, 3))
    assert (found.name, found.notes, found.floor) == ("made", ("seen",), 0.5)
