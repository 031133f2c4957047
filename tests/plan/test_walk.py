import json
import pickle
from dataclasses import asdict
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank, blobs
from tests.strategies import shapes
from tilestream.errors import ConfigError, StageError
from tilestream.plan import plan_walk
from tilestream.types import Plan, Receipt, Shape


def score_of(seed, depth, y, x):
    """What a stage sees of a square: some of them nothing, some of them alike."""
    drawn = Random(f"{seed} {depth} {y} {x}").randrange(8)
    return None if drawn == 0 else drawn / 8


def receipt_of(unit, seed=0):
    scores = tuple(score_of(seed, unit.depth, y, x) for y, x in unit.tile_yx.tolist())
    return Receipt(key=unit.key, recipe="", outputs={}, tiles=len(scores), scores=scores)


def walked(plan, *, seed=0, order=None, keep=None):
    """Carry a plan out, units in any order; return all units and receipts by key."""
    order = order or Random(0)
    waiting, units, receipts = list(plan.start()), {}, {}
    while waiting:
        unit = waiting.pop(order.randrange(len(waiting)))
        assert unit.key not in units
        units[unit.key], receipts[unit.key] = unit, receipt_of(unit, seed)
        waiting += plan.after(receipts[unit.key])
    return units, receipts


@st.composite
def walks(draw):
    """A walk that has begun, and how it was asked for."""
    area = draw(shapes(min_px=1, max_px=400))
    where = "all"
    if draw(st.booleans()):
        where = blobs(Shape(y=-(-area.y // 3), x=-(-area.x // 3)), area, seed=draw(st.integers(0, 99)), cell=7)
    asked = {
        "budget": draw(st.integers(1, 300)),
        "patch_px": draw(st.integers(4, 40)),
        "where": where,
        **draw(st.sampled_from([{}, {"branching": 16}, {"levels": (0, 2, 4, 6, 8)}, {"levels": (1, 4, 7, 10)}])),
    }
    return blank(area), asked


def state_of(plan):
    return plan.tokens.tolist(), plan.opened.tolist(), np.nan_to_num(plan.scores, nan=-1).tolist(), plan.units


@given(asked=walks(), seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_any_order_of_receipts_gives_the_same_tokens(asked, seed, order):
    pyr, options = asked
    plan, other = plan_walk(pyr, **options), plan_walk(pyr, **options)
    units, receipts = walked(plan, seed=seed)
    walked(other, seed=seed, order=order)
    assert state_of(other) == state_of(plan)
    shuffled = list(receipts.values())
    order.shuffle(shuffled)
    fresh = {unit.key for unit in other.start()}
    for receipt in shuffled:  # also those of levels that are not open yet, and twice
        fresh |= {unit.key for unit in other.after(receipt)}
        assert not list(other.after(receipt))
    assert state_of(other) == state_of(plan)
    assert fresh == set(units)
    assert other.is_complete


def resumed(plan, done, seed):
    """Go on where only some receipts are left, as the engine does; return the keys of units that were carried out."""
    waiting, carried_out = [], []

    def is_done(unit):
        if unit.key not in done:
            return False
        for opened in plan.after(done[unit.key]):
            if not is_done(opened):
                waiting.append(opened)
        return True

    waiting += [unit for unit in plan.start() if not is_done(unit)]
    while waiting:
        unit = waiting.pop()
        carried_out.append(unit.key)
        for opened in plan.after(receipt_of(unit, seed)):
            if not is_done(opened):
                waiting.append(opened)
    return carried_out


@given(asked=walks(), seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_a_walk_goes_on_from_any_of_its_receipts(asked, seed, order):
    pyr, options = asked
    plan = plan_walk(pyr, **options)
    units, receipts = walked(plan, seed=seed)
    expected = state_of(plan)
    left = order.sample(sorted(receipts), k=order.randint(0, len(receipts)))
    kept = {key: Receipt(**json.loads(json.dumps(asdict(receipts[key])))) for key in left}
    again = pickle.loads(pickle.dumps(plan))
    carried_out = resumed(again, kept, seed)
    assert state_of(again) == expected
    assert sorted(carried_out) == sorted(set(units) - set(left))
    assert state_of(plan.replay(kept.values()).replay(receipts.values())) == expected


@given(asked=walks())
def test_a_key_names_rows_and_places_whatever_scores_were(asked):
    pyr, options = asked
    (one, _), (other, _) = (walked(plan_walk(pyr, **options), seed=seed) for seed in (0, 1))
    for key in one.keys() & other.keys():
        assert one[key].rows == other[key].rows
        assert (one[key].tile_yx == other[key].tile_yx).all()


@given(asked=walks(), seed=st.integers(0, 9), edge=st.integers(1, 8))
def test_rows_follow_levels_and_units_do_not_decide_tokens(asked, seed, edge):
    pyr, options = asked
    plan = plan_walk(pyr, **options)
    units, _ = walked(plan, seed=seed)
    assert sorted(row for unit in units.values() for row in unit.rows) == list(range(len(plan)))
    depths = plan.tokens[:, 0].tolist()
    assert depths == sorted(depths, reverse=True)
    for unit in units.values():
        assert 1 <= len(unit.tile_yx) <= 64
        assert unit.plan == plan.digest
        assert unit.level == plan.level_of(unit.depth)
        rows = slice(unit.rows.start, unit.rows.stop)
        assert (unit.tile_yx * 2**unit.depth == plan.tokens[rows, 1:3]).all()
    cut_otherwise = plan_walk(pyr, **options, super_tile_px=edge * options["patch_px"])
    walked(cut_otherwise, seed=seed)
    assert set(map(tuple, cut_otherwise.tokens.tolist())) == set(map(tuple, plan.tokens.tolist()))


@given(asked=walks(), seed=st.integers(0, 9))
def test_the_budget_is_spent_on_the_best_squares(asked, seed):
    pyr, options = asked
    plan = plan_walk(pyr, **options)
    walked(plan, seed=seed)
    side, levels = plan.ground.tree.side, plan.ground.tree.levels
    assert len(plan) <= options["budget"]
    tokens, opened, scores = plan.tokens, plan.opened, plan.scores
    assert not opened[np.isnan(scores)].any()
    for level in set(tokens[:, 0].tolist()):
        here = (tokens[:, 0] == level) & ~np.isnan(scores)
        closed, best = scores[here & ~opened], scores[here & opened]
        if level > levels[0] and len(closed) and len(best):
            assert best.min() >= closed.max()
        if level > levels[0] and len(closed) and not len(best):
            assert len(plan) > options["budget"] - side**2
    cover = np.zeros(plan.base.shape.yx, np.int64)
    for _, y, x, size in tokens[~opened].tolist():
        cover[y : y + size, x : x + size] += 1
    finest = plan.ground.tree.wanted[0].repeat(options["patch_px"] << levels[0], axis=0)
    finest = finest.repeat(options["patch_px"] << levels[0], axis=1)[: cover.shape[0], : cover.shape[1]]
    assert (cover[finest] == 1).all()
    assert cover.max(initial=0) <= 1
    alone = plan.walked()
    assert alone.tokens.tolist() == tokens.tolist()
    assert (alone.is_leaf == ~opened).all()


def test_levels_share_what_is_left_evenly():
    plan = plan_walk(blank(Shape(y=1024, x=1024)), budget=100, patch_px=16, where="all")
    walked(plan)
    assert [int((plan.tokens[:, 0] == level).sum()) for level in (6, 5, 4, 3, 2, 1, 0)] == [1, 4, 16, 16, 20, 20, 20]


def test_a_walk_is_a_plan_and_knows_its_tokens_so_far():
    plan = plan_walk(blank(Shape(y=128, x=128)), budget=30, patch_px=16, where="all", max_level=2)
    as_plan: Plan = plan
    assert len(as_plan) == 4
    assert not plan.is_complete
    assert np.isnan(plan.scores).all()
    (unit,) = plan.start()
    opened = as_plan.after(Receipt(key=unit.key, recipe="", outputs={}, tiles=4, scores=(0.1, None, 0.4, 0.3)))
    assert [unit.key[:8] for unit in opened] == ["T1-y0-x0"]
    assert plan.opened.tolist() == [True, False, True, True] + [False] * 12
    assert len(as_plan) == 16


def test_a_damaged_square_counts_as_the_median_of_its_level():
    plan = plan_walk(blank(Shape(y=128, x=128)), budget=30, patch_px=16, where="all", max_level=2)
    (unit,), scores = plan.start(), (0.1, None, 0.4, 0.3)
    plan.after(Receipt(key=unit.key, recipe="", outputs={}, tiles=4, scores=scores, damaged={"cut": (1,)}))
    assert plan.opened.tolist()[:4] == [False, True, True, True]
    assert np.isnan(plan.scores[1])
    alone = plan_walk(blank(Shape(y=128, x=128)), budget=30, patch_px=16, where="all", max_level=3)
    (unit,) = alone.start()
    opened = alone.after(Receipt(key=unit.key, recipe="", outputs={}, tiles=1, scores=(None,), damaged={"cut": (0,)}))
    assert [unit.key[:8] for unit in opened] == ["T2-y0-x0"]


@pytest.mark.parametrize("scores", [(), (0.5,), (0.5,) * 5])
def test_a_receipt_without_a_score_a_tile_is_refused(scores):
    plan = plan_walk(blank(Shape(y=128, x=128)), budget=30, patch_px=16, where="all", max_level=2)
    (unit,) = plan.start()
    with pytest.raises(StageError, match=r"unit T2-y0-x0-\w+: got . scores, expected 4, one a tile"):
        plan.after(Receipt(key=unit.key, recipe="", outputs={}, tiles=4, scores=scores))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 3, "max_level": 2}, "at least 4, the wanted squares of the coarsest level"),
        ({"budget": 0}, "at least 1 token"),
        ({"budget": 9, "super_tile_px": 144}, "at most 128 px, 8 tokens"),
        ({"budget": 9, "levels": (0, 1, 3)}, "evenly spaced"),
    ],
)
def test_what_no_walk_can_keep_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        plan_walk(blank(Shape(y=128, x=128)), patch_px=16, where="all", **options)


def test_nothing_wanted_is_a_walk_without_tokens():
    area = Shape(y=90, x=90)
    nothing = blobs(Shape(y=9, x=9), area)
    nothing.mask[:] = False
    plan = plan_walk(blank(area), budget=10, where=nothing)
    assert (len(plan), list(plan.start()), plan.is_complete) == (0, [], True)
    assert plan.tokens.shape == (0, 4)
