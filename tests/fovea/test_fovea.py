"""A fovea as a field, as gains and as tokens: one law for all three."""

import json
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import tilestream as ts
from tilestream.errors import ConfigError
from tilestream.fovea.laws import LAWS, level_at
from tilestream.kernels.allocate import allocate
from tilestream.types import Shape

SQUARE = Shape(y=1024, x=1024)


def test_numbers_of_the_published_table() -> None:
    fovea = ts.Fovea(fixations_yx=(512, 512), e0_px=45, max_level=4)
    tokens = fovea.tokens(SQUARE, patch_px=16)
    assert_array_equal(np.bincount(tokens[:, 0]), [48, 84, 104, 32])
    slide = Shape(y=131072, x=131072)
    wide = ts.Fovea(fixations_yx=(65536, 65536), e0_px=2048, max_level=9)
    assert len(wide.tokens(slide, patch_px=256)) == 2620


@given(data=st.data())
def test_fields_are_those_of_the_law(data: st.DataObject) -> None:
    law, most = data.draw(st.sampled_from(LAWS)), data.draw(st.sampled_from([None, 0, 3]))
    shape, cell = Shape(y=data.draw(st.integers(1, 90)), x=data.draw(st.integers(1, 90))), data.draw(st.floats(0.5, 40))
    part = st.tuples(st.floats(0, shape.y, width=32), st.floats(0, shape.x, width=32))
    fixations = data.draw(st.lists(part, min_size=1, max_size=3))
    field = ts.Fovea(fixations_yx=fixations, e0_px=12.0, max_level=most, law=law).levels(shape, cell_px=cell)
    y, x = np.indices(field.shape)[:, None] * cell + cell / 2
    e = np.hypot(y - np.array(fixations)[:, 0, None, None], x - np.array(fixations)[:, 1, None, None]).min(axis=0)
    assert field.dtype == np.float32
    assert_allclose(field, np.minimum(level_at(law, e / 12.0), 40 if most is None else most), atol=2e-5)
    assert (np.array(field.shape) * cell >= shape.yx).all()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("most", [None, 2, 4])
def test_a_budget_that_suffices_gives_the_tree(law, most) -> None:
    """Gains cut at 1 are the foveated tree; a deeper tree splits what is coarser than the fovea ever asks for."""
    fovea = ts.Fovea(fixations_yx=[(500.3, 611.8), (90.1, 40.7)], e0_px=120, max_level=most, law=law)
    tokens = fovea.tokens(SQUARE, patch_px=16)
    gains = fovea.gains((64, 64), leaf_px=16, levels=6)
    assert all(gain.dtype == np.float32 and (gain > 0).all() for gain in gains)
    assert_array_equal(allocate(gains, len(tokens), leaf_px=16).leaves, tokens)
    for coarse, fine in zip(gains[1:], gains, strict=False):
        above = coarse.repeat(2, axis=0).repeat(2, axis=1)
        assert (above >= 2 * fine * (1 - 1e-6)).all(), "so that one threshold cuts a tree"


@given(data=st.data())
def test_budgets_are_kept(data: st.DataObject) -> None:
    """0.97 · B ≤ tokens ≤ B from B = 67 on; below, three tokens a split leave up to 2 of 64 to 66 unspent."""
    budget = data.draw(st.integers(64, 2500))
    grid = data.draw(st.sampled_from([(64, 64), (61, 77)]))
    at = data.draw(st.tuples(st.floats(0, 61 * 16), st.floats(0, 64 * 16)))
    fovea = ts.Fovea(
        fixations_yx=at, e0_px=data.draw(st.sampled_from([5.0, 45.0, 900.0])), law=data.draw(st.sampled_from(LAWS))
    )
    cut = allocate(fovea.gains(grid, leaf_px=16, levels=6), budget, leaf_px=16, leaf_grid=grid, threads=1)
    assert (0.97 if budget > 66 else 0.968) * budget <= len(cut.leaves) <= budget
    covered = np.zeros((64, 80), int)
    for _, y, x, size in (cut.leaves // 16).tolist():
        size = max(size, 1)
        covered[y : y + size, x : x + size] += 1
    assert (covered[: grid[0], : grid[1]] == 1).all()


@pytest.mark.parametrize("law", LAWS)
def test_what_is_left_of_a_budget_stays_around_the_fixation(law) -> None:
    """Also by a law that falls below what float32 can hold, and with far more tokens than it asks for."""
    fovea = ts.Fovea(fixations_yx=(700, 300), e0_px=4.0, law=law)
    leaves = allocate(fovea.gains((64, 64), leaf_px=16, levels=6), 1024, leaf_px=16).leaves
    finest = leaves[leaves[:, 0] == 0]
    away = np.hypot(finest[:, 1] + 8 - 700, finest[:, 2] + 8 - 300)
    assert len(finest) > 300
    assert away.max() < 1.5 * np.sqrt(len(finest) / np.pi) * 16 + 32, "a disc, as far as squares can be one"


def test_relevance_multiplied_in_shifts_levels() -> None:
    """Half as relevant is one level coarser; even relevance changes nothing."""
    fovea = ts.Fovea(fixations_yx=(512, 512), e0_px=64)
    gains = fovea.gains((64, 64), leaf_px=16, levels=6)
    plain = allocate(gains, 376, leaf_px=16).leaves
    assert_array_equal(allocate([gain * np.float32(0.3) for gain in gains], 376, leaf_px=16).leaves, plain)
    halved = [gain.copy() for gain in gains]
    for gain in halved[:-1]:
        gain[:, gain.shape[1] // 2 :] /= 2
    leaves = allocate(halved, 376, leaf_px=16).leaves
    left, right = (leaves[(leaves[:, 2] >= 512) == side] for side in (False, True))
    mean_left, mean_right = (np.average(one[:, 0], weights=one[:, 3] ** 2) for one in (left, right))
    assert mean_left + 0.4 < mean_right < mean_left + 1.6


def test_scaled_is_the_same_place() -> None:
    """A plan at half the resolution looks at the same tissue: its tokens are those of the image at half the size."""
    fovea = ts.Fovea(fixations_yx=[(300, 800)], e0_px=90, max_level=3)
    half = fovea.scaled((2.0, 2.0))
    assert half == ts.Fovea(fixations_yx=[(150, 400)], e0_px=45, max_level=3)
    finer = fovea.tokens(SQUARE, patch_px=32)
    coarser = half.tokens(Shape(y=512, x=512), patch_px=16)
    assert_array_equal(coarser * [1, 2, 2, 2], finer)
    assert fovea.scaled((1.0, 4.0)).e0_px == 45


def test_a_record_like_all_others() -> None:
    fovea = ts.Fovea(fixations_yx=np.array([[1, 2], [3, 4]]), e0_px=5)
    assert fovea.fixations_yx == ((1.0, 2.0), (3.0, 4.0))
    assert {pickle.loads(pickle.dumps(fovea)): 1}[fovea] == 1
    assert ts.Fovea(**json.loads(json.dumps(fovea.recipe))) == fovea
    with pytest.raises(FrozenInstanceError):
        fovea.e0_px = 4  # type: ignore[misc]
    counted = ts.Fovea(fixations_yx=((1, 2), (3, 4)), e0_px=np.float32(5), max_level=np.int64(3))
    assert json.loads(json.dumps(counted.recipe)) == {**fovea.recipe, "max_level": 3}
    assert fovea.depth(Shape(y=1, x=1), patch_px=16) == 0
    assert fovea.depth(Shape(y=16, x=17), patch_px=16) == 1
    assert len(fovea.tokens(Shape(y=5, x=9), patch_px=16)) == 1


GOOD = {"fixations_yx": ((5, 5),), "e0_px": 2.0}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"fixations_yx": ()}, "`fixations_yx`.*one or more pairs"),
        ({"fixations_yx": 5}, "one or more pairs"),
        ({"fixations_yx": None}, "one or more pairs"),
        ({"fixations_yx": "5,5"}, "one or more pairs"),
        ({"fixations_yx": ((1, 2, 3),)}, "one or more pairs"),
        ({"fixations_yx": ((1, 2), (3,))}, "one or more pairs"),
        ({"fixations_yx": ((1, float("nan")),)}, "y 1, x nan.*tracker lost"),
        ({"fixations_yx": ((float("inf"), 0),)}, "y inf, x 0"),
        ({"e0_px": 0}, "`e0_px` of `Fovea`.*above 0"),
        ({"e0_px": -3.0}, "`e0_px`"),
        ({"e0_px": float("nan")}, "`e0_px`"),
        ({"e0_px": "45"}, "`e0_px`"),
        ({"max_level": -1}, "`max_level`"),
        ({"max_level": 2.5}, "`max_level`"),
        ({"law": "acuity"}, "`law`.*'acuity'.*of_degrees"),
    ],
)
def test_what_is_no_fovea_is_refused(keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ts.Fovea(**{**GOOD, **keywords})


@pytest.mark.parametrize(("y", "x", "told"), [(-1, 5, "y -1, x 5"), (5, 41, "y 5, x 41"), (40, 5, "y goes first")])
def test_a_fixation_outside_is_refused_everywhere(y, x, told) -> None:
    fovea, shape = ts.Fovea(fixations_yx=((2, 2), (y, x)), e0_px=2.0), Shape(y=20, x=40)
    with pytest.raises(ConfigError, match=told):
        fovea.levels(shape)
    with pytest.raises(ConfigError, match=told):
        fovea.tokens(shape, patch_px=4)
    with pytest.raises(ConfigError, match=told):
        fovea.gains((5, 10), leaf_px=4, levels=2)
    assert ts.Fovea(fixations_yx=(20, 40), e0_px=1).levels(shape).shape == (20, 40), "the far corner is in the image"


@pytest.mark.parametrize(("leaf_px", "levels"), [(0, 2), (float("nan"), 2), (4, 0), (4, 41), (4, 2.5)])
def test_gains_of_no_tree_are_refused(leaf_px, levels) -> None:
    with pytest.raises(ConfigError, match=r"`(leaf_px|levels)` of `Fovea\.gains`"):
        ts.Fovea(**GOOD).gains((5, 10), leaf_px, levels)


@pytest.mark.parametrize("patch_px", [0, 2.5, -4])
def test_tokens_of_no_patch_are_refused(patch_px) -> None:
    with pytest.raises(ConfigError, match="`patch_px`"):
        ts.Fovea(**GOOD).tokens(SQUARE, patch_px=patch_px)
