"""Plans that ask for levels by name: one alone, a number of each, and by the policy of the founding documents."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank, described, info
from tests.plan.test_tokens import grounds, scores_of, wanted_pixels
from tests.strategies import shapes
from tilestream.errors import ConfigError
from tilestream.fovea import Fovea
from tilestream.kernels.taps import MAX_TERM
from tilestream.plan import plan_tiles, plan_tokens
from tilestream.plan.levels import choose_level
from tilestream.plan.tokens import founding_levels
from tilestream.pyramid.tokenlevels import token_level
from tilestream.types import PlanLevel, ScoreMap, Shape

SQUARE = Shape(y=1024, x=1024)


def spot(y, x, *, shape=SQUARE, cell=32):
    """Scores that fall off around a place."""
    rows, columns = (np.arange(-(-edge // cell)) * cell + cell / 2 for edge in shape.yx)
    values = np.exp(-np.hypot(rows[:, None] - y, columns - x) / 150).astype(np.float32)
    return ScoreMap(
        name="spot", values=values, valid=np.ones(values.shape, bool), cell_yx=(float(cell), float(cell)), shape=shape
    )


@given(known=grounds(), budget=st.integers(1, 300), level=st.integers(0, 2))
def test_one_level_is_its_best_squares(known, budget, level):
    options = {**known, "branching": None, "levels": (level,)}
    plan, every = plan_tokens(**options, budget=budget), plan_tokens(**{**options, "relevance": None}, budget=10**6)
    scored = plan_tokens(**options, budget=10**6)
    assert not plan.is_cut
    assert (plan.tokens[:, 0] == level).all()
    assert len(plan) == min(budget, len(scored)) <= len(every)
    assert set(map(tuple, plan.tokens.tolist())) <= set(map(tuple, scored.tokens.tolist()))
    if level == 0 and known["where"] == "all" and known["relevance"] is None:
        tiles = plan_tiles(known["pyr"], tile_px=known["patch_px"], where="all")
        assert len(every) == len(tiles)


def test_the_best_tiles_around_a_spot():
    plan = plan_tokens(blank(SQUARE), budget=25, levels=(0,), patch_px=64, relevance=spot(300, 700))
    middle = plan.tokens[:, 1:3] + 32
    assert len(plan) == 25
    assert np.hypot(*(middle - (300, 700)).T).max() < 64 * 3.5
    assert (np.diff(plan.scores[np.argsort(np.hypot(*(middle - (300, 700)).T))]) < 0.1).all()
    elsewhere = Fovea(fixations_yx=(900, 100), e0_px=5)
    both = plan_tokens(blank(SQUARE), budget=25, levels=(0,), patch_px=64, relevance=spot(300, 700), fovea=elsewhere)
    assert (both.tokens[:, 1:3] // 64).tolist() != (plan.tokens[:, 1:3] // 64).tolist()


@given(known=grounds(), budgets=st.dictionaries(st.sampled_from([0, 2, 4]), st.integers(1, 40), min_size=1))
def test_budgets_of_levels(known, budgets):
    levels = sorted(budgets)
    if len({b - a for a, b in pairwise(levels)}) > 1:
        return
    plan = plan_tokens(**{**known, "branching": None}, level_budgets=budgets)
    assert not plan.is_cut
    counts = Counter(plan.tokens[:, 0].tolist())
    assert all(counts[level] <= most for level, most in budgets.items())
    assert set(counts) <= set(budgets)
    tokens = {tuple(row) for row in plan.tokens.tolist()}
    for finer, coarser in pairwise(levels):
        size = known["patch_px"] << coarser
        for level, y, x, _ in tokens:
            if level == finer:
                assert (coarser, y // size * size, x // size * size, size) in tokens
    inner = {(level, y, x) for level, y, x, _ in plan.tokens[~plan.is_leaf].tolist()}
    assert all(level > levels[0] for level, _, _ in inner)


def test_budgets_of_levels_go_inside_one_another():
    pyr, relevance = blank(SQUARE), spot(300, 700)
    plan = plan_tokens(pyr, level_budgets={0: 100, 2: 9, 4: 4}, relevance=relevance)
    assert Counter(plan.tokens[:, 0].tolist()) == {0: 100, 2: 9, 4: 4}
    one = plan_tokens(pyr, level_budgets={0: 100}, relevance=relevance)
    assert one.tokens.tolist() == plan_tokens(pyr, levels=(0,), budget=100, relevance=relevance).tokens.tolist()


@pytest.mark.parametrize(
    ("budget", "finest"), [(40, 4), (127, 4), (128, 2), (255, 2), (256, 0), (4000, 0)]
)  # of levels 0 to 6
def test_the_policy_of_the_founding_documents(budget, finest):
    plan = plan_tokens(blank(SQUARE), budget=budget, policy="founding", relevance=spot(300, 700))
    assert plan.tokens[:, 0].min() == finest
    free = plan_tokens(blank(SQUARE), budget=budget, relevance=spot(300, 700))
    assert worth(free) >= worth(plan) * (1 - 1e-6)
    assert len(plan) <= budget


def worth(plan):
    """What the splits gain: of each token, what all nodes above it have gained, shared among what lies in them."""
    gained = {}
    for (level, y, x, size), score in zip(plan.tokens.tolist(), plan.scores.tolist(), strict=True):
        for above in range(level + 1, 7):
            edge = 16 << above
            node = above, y // edge, x // edge
            gained[node] = gained.get(node, 0.0) + 2.0**above * score * (size / edge) ** 2
    return sum(gained.values())


@pytest.mark.parametrize(("count", "budget", "kept"), [(1, 50, 1), (2, 50, 1), (2, 200, 2), (7, 50, 3), (7, 256, 7)])
def test_thirds_of_levels(count, budget, kept):
    assert founding_levels(budget)(range(count)) == tuple(range(count))[count - kept :]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"level_budgets": {0: 10}, "budget": 9}, "neither of them"),
        ({"level_budgets": {0: 10}, "levels": (0,)}, "neither of them"),
        ({"level_budgets": {0: 10, 1: 0}}, "at least 1 token"),
        ({"level_budgets": {0: 10, 1: 9, 3: 9}}, "evenly spaced"),
        ({"policy": "founding", "levels": (0, 1), "budget": 9}, "no `levels`"),
        ({"policy": "greedy", "budget": 9}, "`founding` or none"),
        ({"count": "tiles", "budget": 9}, "`leaves` or `nodes`"),
        ({"branching": 8, "budget": 9}, "a power of 4"),
        ({"branching": 16, "levels": (0, 1), "budget": 9}, "branching 4"),
        ({"levels": (), "budget": 9}, "evenly spaced"),
        ({"levels": (2, 2), "budget": 9}, "evenly spaced"),
        ({"max_level": -1, "budget": 9}, "a token level from 0"),
        ({"patch_px": 0, "budget": 9}, "at least 1 px"),
        ({"min_share": 0.0, "budget": 9}, "above 0, at most 1"),
        ({"super_tile_px": 40, "budget": 9}, "a multiple of 16 px"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    where = {"where": options.pop("where", "all")} if "min_share" not in options else {"where": selection_of_all()}
    with pytest.raises(ConfigError, match=said):
        plan_tokens(blank(Shape(y=64, x=64)), **where, **options)


def selection_of_all():
    from tilestream.plan import Selection

    return Selection(name="s", mask=np.ones((4, 4), bool), scale_yx=(16, 16), area=Shape(y=64, x=64))


def test_scores_of_another_image_are_refused():
    with pytest.raises(ConfigError, match="one of this image, 64 x 64 px"):
        plan_tokens(blank(Shape(y=64, x=64)), budget=9, relevance=scores_of(Shape(y=65, x=64)))


def test_where_nothing_is_relevant_the_coarsest_level_is_read_and_a_note_says_so():
    shape = Shape(y=64, x=64)
    nothing = ScoreMap(
        name="n", values=np.zeros((1, 1), np.float32), valid=np.zeros((1, 1), bool), cell_yx=(64.0, 64.0), shape=shape
    )
    plan = plan_tokens(blank(shape), budget=50, relevance=nothing)
    assert len(plan) == 1
    assert any("nothing relevant found" in note for note in plan.notes)


@given(known=grounds(), budget=st.integers(1, 100))
def test_a_budget_for_all_is_a_plan_of_tiles(known, budget):
    every = plan_tokens(**{**known, "relevance": None, "branching": 4}, budget=10**6)
    tiles = plan_tiles(known["pyr"], tile_px=known["patch_px"], where=known["where"])
    if len(every):
        assert (every.tokens[:, 0] == 0).all()
    assert len(every) == len(tiles)
    assert wanted_pixels(known).sum() == sum(
        min(size, known["pyr"].info.shape.y - y) * min(size, known["pyr"].info.shape.x - x)
        for _, y, x, size in every.tokens.tolist()
    )


def test_levels_are_read_from_the_coarsest_that_is_fine_enough():
    known = info(10_001, 20_003, scales=(1.0, 4.0, 16.01))
    base = PlanLevel(stored=0, shape=known.shape, scale_yx=(1.0, 1.0))
    levels = [token_level(known, base, depth) for depth in range(6)]
    assert [level.stored for level in levels] == [0, 0, 1, 1, 2, 2]
    assert [level.ratio_yx[0] for level in levels[:4]] == [1, 2, 1, 2]
    assert levels[4].shape == Shape(y=626, x=1251)
    assert abs(levels[4].ratio_yx[1] * 16.01 / 16 - 1) < 1e-3
    assert all(level.scale_yx == (2.0**depth, 2.0**depth) for depth, level in enumerate(levels))


@given(
    shape=shapes(min_px=500, max_px=300_000), mpp=st.sampled_from([None, 0.37, 0.5, 1.0, 2.0]),
    steps=st.lists(st.sampled_from([2.0, 4.0, 2.0003, 4.0012, 3.97, 2.5]), max_size=5),
)  # fmt: skip
def test_ratios_of_levels_can_be_resampled_by_and_hit_the_place(shape, mpp, steps):
    scales = np.cumprod([1.0, *steps])
    known = info(*shape.yx, scales=tuple(scales[min(shape.yx) / scales > 4].tolist()), mpp_yx=(0.2527, 0.2531))
    base = choose_level(known, mpp=mpp).level
    for depth in range(12):
        level = token_level(known, base, depth)
        for axis, ratio in enumerate(level.ratio_yx):
            assert max(ratio.numerator, ratio.denominator) <= MAX_TERM
            stored, finest = known.levels[level.stored], known.levels[base.stored]
            if depth:  # to a stored pixel, since sizes were rounded, or to a hundredth of its own
                exact = float(base.ratio_yx[axis]) * finest.scale_yx[axis] * 2**depth / stored.scale_yx[axis]
                # a coarse pixel may reach far beyond the image
                across = min(level.shape.yx[axis], stored.shape.yx[axis] / exact)
                assert abs(float(ratio) - exact) * across <= 1.05 + 0.01 * exact


def test_a_plan_at_another_resolution_halves_that():
    pyr = described(8000, 6000, scales=(1.0, 2.0, 4.0, 8.0), mpp_yx=(0.3, 0.3))
    plan = plan_tokens(pyr, budget=200, patch_px=64, mpp=1.0)
    assert plan.mpp_yx == pytest.approx((1.0, 1.0), rel=0.01)
    assert [level.stored for level in plan.levels[:3]] == [1, 2, 3]
    assert len({level.ratio_yx for level in plan.levels[:3]}) == 1
    for depth, level in enumerate(plan.levels):
        assert level.scale_yx[0] == plan.base.scale_yx[0] * 2**depth
        assert float(level.ratio_yx[0]) * pyr.levels[level.stored].scale_yx[0] == pytest.approx(level.scale_yx[0])


def test_tokens_of_levels_that_are_not_stored_come_with_a_note():
    plan = plan_tokens(described(8000, 6000), budget=5, patch_px=64)
    assert any("are reduced 64 times from level 0" in note for note in plan.notes)
    stored = described(8000, 6000, scales=tuple(2.0**level for level in range(8)))
    assert not plan_tokens(stored, budget=5, patch_px=64).notes


def test_tokens_between_stored_levels_come_with_a_note_that_names_better_ones():
    fours = described(8000, 6000, scales=(1.0, 4.0, 16.0, 64.0))
    (note,) = plan_tokens(fours, budget=300, patch_px=64).notes
    assert "up to 4 times the pixels" in note
    assert "`--levels 0,2,4,6`" in note
    chosen = plan_tokens(fours, budget=300, patch_px=64, levels=(0, 2, 4, 6))
    assert not chosen.notes
    assert chosen.pixels_read(fours) < plan_tokens(fours, budget=300, patch_px=64).pixels_read(fours) / 2
    # beyond the coarsest stored level there is nothing to name
    assert not plan_tokens(described(8000, 6000, scales=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0)), budget=5, patch_px=64).notes
