import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank, blobs, described
from tests.strategies import shapes
from tilestream.errors import ConfigError
from tilestream.fovea import Fovea
from tilestream.kernels import allocate
from tilestream.plan import plan_tokens
from tilestream.pyramid import open_pyramid
from tilestream.stream.batches import stream_tiles
from tilestream.types import Plan, Receipt, ScoreMap, Shape


def scores_of(shape, *, seed=0, cell=13.5, holes=0.3):
    generator = np.random.default_rng(seed)
    grid = tuple(int(-(-edge // cell)) for edge in shape.yx)
    values = generator.random(grid, np.float32)
    valid = generator.random(grid) >= holes
    return ScoreMap(name="s", values=values * valid, valid=valid, cell_yx=(cell, cell), shape=shape)


@st.composite
def grounds(draw):
    """An image with what of it is wanted and how much each place matters, and the squares of a plan."""
    area = draw(shapes(min_px=1, max_px=300))
    where = "all"
    if draw(st.booleans()):
        where = blobs(Shape(y=-(-area.y // 3), x=-(-area.x // 3)), area, seed=draw(st.integers(0, 99)), cell=7)
    return {
        "pyr": blank(area),
        "where": where,
        "relevance": draw(st.none() | st.builds(scores_of, st.just(area), seed=st.integers(0, 9))),
        "patch_px": draw(st.integers(4, 40)),
        "branching": draw(st.sampled_from([4, 16])),
    }


def covered(plan, chosen):
    """How many of some tokens cover each pixel of the base level."""
    found = np.zeros(plan.base.shape.yx, np.int64)
    for _, y, x, size in plan.tokens[chosen].tolist():
        found[y : y + size, x : x + size] += 1
    return found


def wanted_pixels(known):
    """Which pixels lie in finest squares that are wanted, and the number of their squares of the coarsest level."""
    full = plan_tokens(**{**known, "relevance": None, "branching": None}, budget=10**6, levels=(0,))
    return covered(full, np.ones(len(full), np.bool_)) > 0


@given(known=grounds(), budget=st.integers(1, 400), count=st.sampled_from(["leaves", "nodes"]))
def test_leaves_cover_what_is_wanted_once_within_the_budget(known, budget, count):
    plan = plan_tokens(**known, budget=budget, count=count)
    wanted = wanted_pixels(known)
    cover = covered(plan, plan.is_leaf)
    assert len(plan) <= budget
    assert (cover[wanted] == 1).all()
    assert cover.max(initial=0) <= 1
    assert len(np.unique(plan.tokens, axis=0)) == len(plan)
    for _, y, x, size in plan.tokens.tolist():
        assert wanted[y : y + size, x : x + size].any()


@given(known=grounds(), budget=st.integers(1, 400), edge=st.integers(1, 5))
def test_rows_are_the_rows_of_tokens(known, budget, edge):
    plan = plan_tokens(**known, budget=budget, super_tile_px=edge * known["patch_px"])
    units = list(plan.start())
    assert sorted(row for unit in units for row in unit.rows) == list(range(len(plan)))
    assert len({unit.key for unit in units}) == len(units) == plan.units
    depths = [unit.depth for unit in units]
    assert depths == sorted(depths, reverse=True)
    for unit in units:
        tokens = plan.tokens[unit.rows.start : unit.rows.stop]
        size = known["patch_px"] << unit.depth
        assert unit.key.startswith(f"T{unit.depth}-")
        assert (tokens[:, [0, 3]] == (unit.depth, size)).all()
        assert (unit.tile_yx * 2**unit.depth == tokens[:, 1:3]).all()
        assert (unit.tile_yx // plan.super_tile_px == (unit.iy, unit.ix)).all()
        assert unit.level == plan.level_of(unit.depth)
    assert [row for unit in plan.in_row_order() for row in unit.rows] == list(range(len(plan)))


def test_a_plan_of_tokens_is_a_plan():
    plan: Plan = plan_tokens(blank(Shape(y=64, x=64)), budget=9)
    receipt = Receipt(key="T0-y0-x0", recipe="", outputs={}, tiles=1)
    assert len(plan) == 7
    assert not list(plan.after(receipt))


def test_a_complete_tree_of_273_nodes():
    plan = plan_tokens(blank(Shape(y=4096, x=4096)), budget=273, count="nodes", branching=16, patch_px=256)
    assert Counter(plan.tokens[:, 0].tolist()) == {4: 1, 2: 16, 0: 256}
    assert plan.is_leaf.sum() == 256


@pytest.mark.parametrize(
    ("edge", "patch_px", "e0_px", "tokens", "most"), [(1024, 16, 45.0, 268, 4), (131_072, 256, 2048.0, 2620, 9)]
)
def test_a_fovea_in_the_middle(edge, patch_px, e0_px, tokens, most):
    pyr, fovea = described(edge, edge), Fovea(fixations_yx=(edge / 2, edge / 2), e0_px=e0_px)
    plan = plan_tokens(pyr, budget=tokens, fovea=fovea, patch_px=patch_px, max_level=most)
    gains = fovea.gains((edge // patch_px, edge // patch_px), leaf_px=patch_px, levels=most)
    assert len(plan) == tokens
    assert {tuple(row) for row in plan.tokens.tolist()} == set(
        map(tuple, allocate(gains, tokens, leaf_px=patch_px).leaves.tolist())
    )


def test_too_small_a_budget_says_how_small_it_can_be():
    with pytest.raises(ConfigError, match="at least 4, the wanted squares of the coarsest level"):
        plan_tokens(blank(Shape(y=64, x=64)), budget=3, max_level=1)


@pytest.mark.parametrize(
    ("options", "advice"),
    [({}, "Give at least 32, or `levels` that begin at 1"), ({"levels": (0,)}, "Give at least 32")],
)
def test_a_table_that_would_not_fit_into_memory_is_refused(options, advice):
    with pytest.raises(ConfigError, match=advice):
        plan_tokens(described(100_000, 80_000), budget=256, **options)


def test_tokens_are_streamed_at_their_level():
    generator = np.random.default_rng(1)
    image = generator.integers(0, 255, (3, 70, 90), dtype=np.uint8)
    pyr = open_pyramid(image)
    plan = plan_tokens(pyr, budget=20, patch_px=16)
    rows = np.concatenate([batch.rows for batch in stream_tiles(pyr, plan)])
    assert sorted(rows.tolist()) == list(range(len(plan)))
    for batch in stream_tiles(pyr, plan):
        for row, pixels in zip(batch.rows.tolist(), batch.pixels, strict=True):
            level, y, x, size = plan.tokens[row].tolist()
            part = image[:, y : y + size, x : x + size].astype(np.float64)
            if part.shape[1:] == (size, size):
                mean = part.reshape(3, 16, 2**level, 16, 2**level).mean(axis=(2, 4))
                assert np.abs(pixels - mean).max() <= 0.5


def test_digests_tell_plans_apart():
    pyr = blank(Shape(y=128, x=128))
    plans = [
        plan_tokens(pyr, budget=20, **options)
        for options in (
            {},
            {"count": "nodes"},
            {"patch_px": 8},
            {"super_tile_px": 32},
            {"relevance": scores_of(pyr.info.shape, holes=0.0)},
            {"relevance": scores_of(pyr.info.shape, seed=1, holes=0.0)},
            {"levels": (0,)},
        )
    ]
    assert len({plan.digest for plan in plans}) == len(plans)
    again = pickle.loads(pickle.dumps(plan_tokens(pyr, budget=20)))
    assert again.digest == plans[0].digest
    assert [unit.key for unit in replace(again, begin_at=0.5).start()] != []
    assert replace(again, begin_at=0.5).digest == again.digest
