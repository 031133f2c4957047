import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.errors import ConfigError
from tilestream.relevance.normalise import check_normalisation, normalised
from tilestream.types import ScoreMap, Shape


def scores(values, valid=None, **fields):
    values = np.atleast_2d(np.asarray(values, np.float32))
    known = np.ones(values.shape, np.bool_) if valid is None else np.atleast_2d(valid)
    shape = Shape(y=values.shape[0], x=values.shape[1])
    return ScoreMap(name="made", values=values, valid=known, cell_yx=(1.0, 1.0), shape=shape, **fields)


def test_robust_is_the_formula():
    values = np.arange(9.0)
    expected = 1 / (1 + np.exp(-(values - 4) / 4))  # quartiles 2 and 6
    np.testing.assert_allclose(normalised(scores(values), "robust")[0], expected, rtol=1e-6)


def test_above_a_floor_it_begins_at_0():
    values = np.array([0, 1, 2, 2.0001, 4, 6, 8, 10])
    found = normalised(scores(values, floor=2.0), "robust")[0]
    assert not found[:3].any()
    assert 0 < found[3] < 1e-3
    low, median, high = np.percentile(values[3:], (25, 50, 75))
    s = 1 / (1 + np.exp(-(values - median) / (high - low)))
    least = 1 / (1 + np.exp(-(2 - median) / (high - low)))
    np.testing.assert_allclose(found[3:], (s[3:] - least) / (1 - least), atol=1e-7)


def test_rank_shares_ties():
    np.testing.assert_allclose(normalised(scores([5, 1, 5, 9]), "rank")[0], [0.5, 0.125, 0.5, 0.875])


@given(
    values=hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32)),
    how=st.sampled_from(["robust", "rank"]),
    floor=st.sampled_from([None, 0.0, 50.0]),
)
def test_order_is_kept_and_0_to_1(values, how, floor):
    found = normalised(scores(values, floor=floor), how)[0]
    assert (found >= 0).all()
    assert (found <= 1).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


@pytest.mark.parametrize("how", ["robust", "rank"])
def test_tissue_on_a_slide_of_glass_is_told_apart(how):
    """99 % glass: by median and quartiles of everything, each piece of tissue would be 1."""
    rng = np.random.default_rng(0)
    values = rng.normal(0.01, 0.003, 10_000).clip(0)
    values[:100] = np.linspace(0.3, 0.8, 100)
    found = normalised(scores(values, floor=0.2), how)[0]
    tissue, glass = found[:100], found[100:]
    assert not glass.any()
    assert 0 < tissue.min() < 0.3
    assert tissue.max() > 0.6
    assert (np.diff(tissue) > 0).all()


@pytest.mark.parametrize("how", ["robust", "rank"])
def test_nothing_above_the_floor_is_nothing(how):
    values = np.random.default_rng(0).random(100) * 0.2
    assert not normalised(scores(values, floor=0.2), how).any()


@pytest.mark.parametrize("how", ["robust", "rank"])
@pytest.mark.parametrize("value", [0.0, -3.0, 7e5])
def test_one_value_prefers_nothing(how, value):
    np.testing.assert_array_equal(normalised(scores(np.full(50, value)), how), 0.5)


def test_differences_of_rounding_are_none():
    values = 7e5 * (1 + 1e-7 * np.arange(20))
    np.testing.assert_array_equal(normalised(scores(values), "robust"), 0.5)


def test_a_few_that_differ_from_the_rest_stand_out():
    found = normalised(scores([0.0] * 99 + [4.0]), "robust")[0]
    np.testing.assert_allclose(found[:99], 0.5)
    assert found[99] == pytest.approx(1 / (1 + np.exp(-1)))


@pytest.mark.parametrize("how", ["robust", "rank"])
def test_what_is_not_valid_has_no_part(how):
    values = np.arange(10.0)
    valid = np.ones(15, np.bool_)
    valid[10:] = False
    found = normalised(scores(np.concatenate([values, np.zeros(5)]), valid), how)[0]
    np.testing.assert_array_equal(found[:10], normalised(scores(values), how)[0])
    assert not found[10:].any()
    assert not normalised(scores(np.zeros(4), np.zeros(4, np.bool_)), how).any()


def test_absolute_maps_stay_as_they_are():
    values = np.float32([0, 0.25, 1])
    for how in ("robust", "rank", "none"):
        np.testing.assert_array_equal(normalised(scores(values, absolute=True), how)[0], values)
    np.testing.assert_array_equal(normalised(scores(values), "none")[0], values)


def test_values_that_nothing_normalises_are_refused():
    with pytest.raises(ConfigError, match=r"from -1 to 2 that are not normalised"):
        normalised(scores([-1, 2]), "none")
    with pytest.raises(ConfigError, match="'robust' or 'rank' or 'none'"):
        check_normalisation("zscore")
