"""What splits are worth, and which are made: beside direct sums, `kernels.allocate` and exhaustive search."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import shapes
from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.kernels import allocate
from tilestream.plan.mass import area_shares, score_mass
from tilestream.plan.tree import TokenTree, best, cut, gains_of, masses, nodes_of, pooled
from tilestream.types import PlanLevel, ScoreMap, Shape


@given(
    shape=shapes(max_px=60), cell=st.tuples(st.integers(1, 25), st.integers(1, 25)), square=st.integers(1, 30),
    scale=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_mass_is_the_sum_over_pixels(shape, cell, square, scale, seed):
    generator = np.random.default_rng(seed)
    cells = tuple(-(-edge // one) for edge, one in zip(shape.yx, cell, strict=True))
    values, valid = generator.random(cells, np.float32), generator.random(cells) > 0.3
    scores = ScoreMap(name="s", values=values * valid, valid=valid, cell_yx=tuple(map(float, cell)), shape=shape)
    level = PlanLevel(
        stored=0, shape=Shape(y=-(-shape.y // scale), x=-(-shape.x // scale)), scale_yx=(float(scale), float(scale))
    )
    grid = TileGrid(area=level.shape, tile_px=square, step_px=square)
    by_pixel = np.repeat(np.repeat(values * valid, cell[0], 0), cell[1], 1)[: shape.y, : shape.x].astype(np.float64)
    padded = np.zeros(tuple(count * square * scale for count in grid.shape.yx))
    padded[: shape.y, : shape.x] = by_pixel
    edge = square * scale
    expected = padded.reshape(grid.shape.y, edge, grid.shape.x, edge).sum((1, 3)) / edge**2
    found = score_mass(scores, level, grid)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert not found[expected == 0].any()  # exactly, so that glass is never opened
    if scale == 1:
        padded[: shape.y, : shape.x] = 1
        expected = padded.reshape(grid.shape.y, edge, grid.shape.x, edge).sum((1, 3)) / edge**2
        np.testing.assert_allclose(area_shares(level, grid), expected, atol=1e-12)


def test_negative_scores_are_refused():
    shape = Shape(y=10, x=10)
    scores = ScoreMap(
        name="query", values=np.float32([[-0.25]]), valid=np.ones((1, 1), bool), cell_yx=(10.0, 10.0), shape=shape
    )
    level = PlanLevel(stored=0, shape=shape, scale_yx=(1.0, 1.0))
    with pytest.raises(ConfigError, match=r"scores of `query`: got -0.25 at least.*`Relevance`"):
        score_mass(scores, level, TileGrid(area=shape, tile_px=5, step_px=5))


@st.composite
def trees(draw, max_leaves=12, holes=True):
    """A tree with masses of its finest nodes."""
    grid = (draw(st.integers(1, max_leaves)), draw(st.integers(1, max_leaves)))
    side = draw(st.sampled_from([2, 4]))
    most = 1
    while side ** (most - 1) < max(grid):
        most += 1
    count = draw(st.integers(min(2, most), most))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    wanted = generator.random(grid) > (draw(st.sampled_from([0.0, 0.4, 0.8])) if holes else 0.0)
    leaf_mass = np.round(generator.random(grid) ** 3, 2)
    if not holes:
        leaf_mass += 0.01
    gap = side.bit_length() - 1
    tree = TokenTree.over(wanted, levels=tuple(range(0, count * gap, gap)), side=side)
    return tree, masses(tree, leaf_mass)


@given(known=trees(max_leaves=40, holes=False), budget=st.integers(1, 500), nodes=st.booleans())
def test_cuts_are_those_of_the_kernel(known, budget, nodes):
    tree, mass = known
    gains = [one.astype(np.float32) for one in gains_of(tree, mass)]
    budget = max(budget, tree.roots)
    found, leaves = nodes_of(tree, cut(tree, gains, budget, nodes=nodes))
    if not gains:
        assert found[0].all()
        return
    expected = allocate(
        gains, budget, count="nodes" if nodes else "leaves", branching=tree.side**2, leaf_grid=tree.wanted[0].shape
    )
    rows = [
        (level, y * tree.side**grid, x * tree.side**grid)
        for grid, level in enumerate(tree.levels)
        for y, x in np.argwhere((found if nodes else leaves)[grid]).tolist()
    ]
    assert sorted(rows) == sorted(tuple(row[:3]) for row in (expected.nodes if nodes else expected.leaves).tolist())


def optimum(tree, gains, budget, *, nodes):
    """The largest sum of gains by trying everything."""

    @cache
    def value(grid, y, x, left):
        """Of the tree below a node, with so much to spend."""
        if not grid or not gains[grid - 1][y, x]:
            return 0.0
        inside = tree.wanted[grid - 1][y * tree.side : (y + 1) * tree.side, x * tree.side : (x + 1) * tree.side]
        children = [(y * tree.side + dy, x * tree.side + dx) for dy, dx in np.argwhere(inside).tolist()]
        rest = left - len(children) + (not nodes)
        return max(0.0, float(gains[grid - 1][y, x]) + spread(grid - 1, tuple(children), rest)) if rest >= 0 else 0.0

    @cache
    def spread(grid, places, left):
        if not places:
            return 0.0
        return max(value(grid, *places[0], part) + spread(grid, places[1:], left - part) for part in range(left + 1))

    top = len(tree.levels) - 1
    return spread(top, tuple(map(tuple, np.argwhere(tree.wanted[top]).tolist())), budget - tree.roots)


@given(known=trees(max_leaves=6), more=st.integers(0, 14), nodes=st.booleans())
def test_small_trees_with_holes_are_cut_best(known, more, nodes):
    tree, mass = known
    gains = [np.round(one * 64).astype(np.float32) for one in gains_of(tree, mass)]
    budget = tree.roots + more
    splits = cut(tree, gains, budget, nodes=nodes)
    found, leaves = nodes_of(tree, splits)
    assert sum(int(one.sum()) for one in (found if nodes else leaves)) <= budget
    gained = sum(float(gain[split].sum()) for gain, split in zip(gains, splits, strict=True))
    assert gained == optimum(tree, gains, budget, nodes=nodes)


@given(known=trees(max_leaves=30), more=st.integers(0, 200), nodes=st.booleans())
def test_budgets_are_spent_where_there_is_mass_and_nowhere_else(known, more, nodes):
    tree, mass = known
    budget = tree.roots + more
    splits = cut(tree, gains_of(tree, mass), budget, nodes=nodes)
    found, leaves = nodes_of(tree, splits)
    left = budget - sum(int(one.sum()) for one in (found if nodes else leaves))
    assert left >= 0
    for grid, split in enumerate(splits, 1):
        assert (split <= (mass[grid] > 0)).all()
        could = leaves[grid] & (mass[grid] > 0)
        if could.any():
            assert left < tree.children[grid - 1][could].max() - (not nodes)
    value = sum(float(one[split].sum()) for one, split in zip(gains_of(tree, mass), splits, strict=True))
    more_splits = cut(tree, gains_of(tree, mass), budget + 1, nodes=nodes)
    more_value = sum(float(one[split].sum()) for one, split in zip(gains_of(tree, mass), more_splits, strict=True))
    assert more_value >= value * (1 - 1e-5)


@given(known=trees(max_leaves=30), budget=st.integers(1, 200))
def test_the_best_squares_alone(known, budget):
    tree, mass = known
    chosen = best(mass[0], budget)
    assert chosen.sum() == min(budget, np.count_nonzero(mass[0]))
    if chosen.any() and (~chosen & (mass[0] > 0)).any():
        assert mass[0][chosen].min() >= mass[0][~chosen].max()
    assert not chosen[~tree.wanted[0]].any()


@given(grid=st.tuples(st.integers(1, 20), st.integers(1, 20)), side=st.integers(1, 7), whole=st.booleans())
def test_pooled(grid, side, whole):
    values = np.random.default_rng(1).random(grid)
    values = values > 0.5 if whole else values
    padded = np.zeros(tuple(-(-edge // side) * side for edge in grid))
    padded[: grid[0], : grid[1]] = values
    expected = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side).sum((1, 3))
    np.testing.assert_allclose(pooled(values, side), expected, rtol=1e-14)
