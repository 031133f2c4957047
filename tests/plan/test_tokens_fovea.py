"""Plans of tokens around where somebody looks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import tilestream as ts
from tests.plan.build import blank
from tilestream.errors import ConfigError
from tilestream.fovea import fixations_of
from tilestream.types import ScoreMap, Shape

SQUARE = Shape(y=1024, x=1024)
FOVEA = ts.Fovea(fixations_yx=(700, 300), e0_px=45)


def row_sets(*lists):
    return [{tuple(row) for row in one.tolist()} for one in lists]


@pytest.mark.parametrize("law", ["inverse-linear", "gaussian"])
def test_as_many_tokens_as_the_fovea_asks_for_are_its_own(law) -> None:
    fovea = ts.Fovea(fixations_yx=[(700, 300), (100, 900)], e0_px=90, law=law)
    wanted = fovea.tokens(SQUARE, patch_px=16)
    plan = ts.plan_tokens(blank(SQUARE), budget=len(wanted), fovea=fovea)
    assert len(set(map(tuple, wanted.tolist()))) == len(plan)
    planned, asked = row_sets(plan.tokens, wanted)
    assert planned == asked


@given(data=st.data())
def test_budgets_are_kept_wherever_one_looks(data: st.DataObject) -> None:
    """0.97 · B ≤ tokens ≤ B from B = 67 on; below, three tokens a split leave up to 2 of 64 to 66 unspent."""
    shape = Shape(y=data.draw(st.integers(300, 1100)), x=data.draw(st.integers(300, 1100)))
    at = data.draw(st.tuples(st.floats(0, shape.y), st.floats(0, shape.x)))
    most = min(1000, (shape.y // 16) * (shape.x // 16))
    budget = data.draw(st.integers(64, most))
    law = data.draw(st.sampled_from(["inverse-linear", "gaussian"]))
    plan = ts.plan_tokens(blank(shape), budget=budget, fovea=ts.Fovea(fixations_yx=at, e0_px=45, law=law))
    assert (0.97 if budget > 66 else 0.968) * budget <= len(plan) <= budget
    level, y, x, size = plan.tokens.T
    finest = plan.tokens[level == level.min()]
    away = np.hypot(
        np.maximum(np.maximum(y - at[0], at[0] - y - size), 0), np.maximum(np.maximum(x - at[1], at[1] - x - size), 0)
    )
    assert level[np.argmin(away)] == level.min(), "what is looked at is finest"
    assert len(finest) >= 1


def test_a_plan_at_another_resolution_looks_at_the_same_place() -> None:
    pyr = blank(SQUARE, mpp_yx=(0.25, 0.25))
    plan = ts.plan_tokens(pyr, budget=100, fovea=FOVEA, mpp=0.5)
    finest = plan.tokens[plan.tokens[:, 0] == 0]
    assert_array_equal(np.abs(finest[:, 1:3].mean(axis=0) + 8 - (350, 150)) < 16, True)
    assert_array_equal(
        plan.tokens, ts.plan_tokens(blank(Shape(y=512, x=512)), budget=100, fovea=FOVEA.scaled((2, 2))).tokens
    )


def test_fixations_found_from_scores() -> None:
    """From where a query answers best to tokens there."""
    values = np.zeros((32, 32), np.float32)
    values[5, 20], values[25, 4] = 1, 0.9
    scores = ScoreMap(name="query", values=values, valid=np.ones((32, 32), bool), cell_yx=(32.0, 32.0), shape=SQUARE)
    fovea = ts.Fovea(fixations_yx=fixations_of(scores, 2), e0_px=30)
    assert fovea.fixations_yx == ((176, 656), (816, 144))
    plan = ts.plan_tokens(blank(SQUARE), budget=150, fovea=fovea)
    finest = plan.tokens[plan.tokens[:, 0] == 0]
    for y, x in fovea.fixations_yx:
        assert (np.hypot(finest[:, 1] + 8 - y, finest[:, 2] + 8 - x) < 24).any()


@pytest.mark.parametrize("at", [(-1, 5), (5, 1025), (2000, 2000)])
def test_a_fixation_outside_is_refused(at) -> None:
    with pytest.raises(ConfigError, match=r"fixation of `Fovea`.*from 0 to 1024"):
        ts.plan_tokens(blank(SQUARE), budget=100, fovea=ts.Fovea(fixations_yx=at, e0_px=45))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"fovea": (512, 512)}, r"`fovea` of `plan_tokens`: got a tuple.*ts\.Fovea"),
        ({"fovea": "512,512"}, r"`fovea` of `plan_tokens`"),
        ({"relevance": "entropy"}, r"`relevance` of `plan_tokens`: got a str.*ts\.Relevance\.of"),
        ({"relevance": lambda pyr: np.ones((3, 3))}, r"`relevance` of `plan_tokens`: got a ndarray.*a map of scores"),
        ({"budget": 15, "max_level": 4}, r"`budget`.*got 15.*at least 16"),
        ({"budget": float("nan")}, r"`budget`.*got nan"),
        ({"budget": None}, r"`budget`.*got None"),
        ({"budget": 0}, r"`budget`.*got 0.*at least 1"),
        ({"budget": 99.5}, r"`budget`.*got 99\.5"),
    ],
)
def test_what_cannot_be_planned_is_refused(keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ts.plan_tokens(blank(SQUARE), **{"budget": 100, "fovea": FOVEA, **keywords})
