from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from tests.kernels.answers import MAX_PX, Answer
from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.kernels.coverage import TileAxis, coverage, covered_area
from tilestream.plan.selection import Selection, tile_shares
from tilestream.types import PlanLevel, Shape

SIZES = st.sampled_from([1, 2, 5, Fraction(1, 2), Fraction(7, 3), Fraction(16, 5), 33])


def weights(axis, length):
    """Overlap of every tile with every pixel, as fractions; and the length of each tile inside."""
    size, origin = Fraction(axis.size), Fraction(axis.origin)
    step = size if axis.step is None else Fraction(axis.step)
    end = Fraction(length if axis.end is None else axis.end)
    n = max(0, -((origin - end) // step)) if axis.n is None else axis.n
    low = [min(max(origin + j * step, 0), end) for j in range(n)]
    high = [min(max(origin + j * step + size, 0), end) for j in range(n)]
    overlap = [
        [max(Fraction(0), min(b, i + 1) - max(a, i)) for i in range(length)] for a, b in zip(low, high, strict=True)
    ]
    return np.array(overlap, object).reshape(n, length), np.array(high, object) - np.array(low, object)


def axes(data, length):
    return TileAxis(
        size=data.draw(SIZES),
        step=data.draw(st.one_of(st.none(), SIZES)),
        origin=data.draw(st.sampled_from([0, 0, -3, Fraction(-7, 2), Fraction(5, 4)])),
        end=data.draw(st.sampled_from([None, length - Fraction(1, 3)])),
        n=data.draw(st.sampled_from([None, None, 0, 3])),
    )


@given(data=st.data())
def test_areas_are_exact(data: st.DataObject, on: Answer) -> None:
    n, height, width = (
        data.draw(st.integers(1, 2)),
        data.draw(st.integers(1, MAX_PX)),
        data.draw(st.integers(1, MAX_PX)),
    )
    mask = np.random.default_rng(data.draw(st.integers(0, 99))).random((n, height + 1, width)) < 0.4
    mask = data.draw(st.sampled_from([mask[:, 1:], mask[:, 1:, ::-1], np.asfortranarray(mask)[:, :-1]]))
    mask = mask if n > 1 else mask[0]
    tiles = axes(data, height), axes(data, width)
    (of_y, inside_y), (of_x, inside_x) = weights(tiles[0], height), weights(tiles[1], width)
    expected = of_y @ mask.astype(int).astype(object) @ of_x.T
    areas, unit = on(covered_area, mask, tiles)
    assert areas.dtype == np.int64
    assert_array_equal(areas.astype(object) * unit, expected)
    whole = np.multiply.outer(inside_y, inside_x)
    shares = expected / np.where(whole == 0, 1, whole) if whole.size else expected
    found = on(coverage, mask, tiles)
    assert_array_equal(found, shares.astype(np.float64).astype(np.float32))
    out = np.full(found.shape, 7, np.float32)
    assert_array_equal(on(coverage, mask, tiles, out=out), found)


def test_whole_tiles_are_counts(on: Answer) -> None:
    mask = np.random.default_rng(0).random((8, 12)) < 0.5
    tile = TileAxis(size=4)
    counts, unit = on(covered_area, mask, (tile, tile), out=np.zeros((2, 3), np.int64))
    assert unit == 1
    assert_array_equal(counts, mask.reshape(2, 4, 3, 4).sum(axis=(1, 3)))


def test_long_rows_do_not_overflow() -> None:
    mask = np.ones((1, 3 * 2**20 + 5), bool)
    areas, _ = covered_area(mask, (TileAxis(size=1), TileAxis(size=mask.shape[1])))
    assert areas.item() == mask.shape[1]


@given(seed=st.integers(0, 99), tile_px=st.integers(1, 300), step_px=st.integers(1, 300))
def test_shares_are_those_of_the_plan(seed: int, tile_px: int, step_px: int) -> None:
    noise = np.random.default_rng(seed)
    mask, scale, own = noise.random((13, 17)) < 0.5, noise.choice([8.0, 12.5, 32.0]), noise.choice([1.0, 2.5])
    area = Shape(y=int(13 * scale) - 3, x=int(17 * scale) - 5)
    selection = Selection(name="mask", mask=mask, scale_yx=(scale, scale), area=area)
    shape = Shape(y=int(area.y // own), x=int(area.x // own))
    grid = TileGrid(area=shape, tile_px=tile_px, step_px=step_px)
    expected = tile_shares(selection, PlanLevel(stored=0, shape=shape, scale_yx=(own, own)), grid)
    ratio = Fraction(own) / Fraction(scale)
    tiles = [
        TileAxis(size=tile_px * ratio, step=step_px * ratio, end=Fraction(length) / Fraction(scale), n=n)
        for length, n in zip(area.yx, grid.shape.yx, strict=True)
    ]
    np.testing.assert_allclose(coverage(mask, (tiles[0], tiles[1])), expected, atol=2e-7)


@pytest.mark.parametrize(
    ("mask", "axis", "message"),
    [
        (np.zeros((4, 4), np.uint8), TileAxis(size=2), "`mask` of `coverage`: got uint8"),
        (np.zeros((4, 4, 4, 4), bool), TileAxis(size=2), "2 or 3 axes"),
        (np.zeros((0, 4), bool), TileAxis(size=2), "at least one sample"),
        (np.zeros((4, 4), bool), TileAxis(size=0), "`TileAxis`.*above 0"),
        (np.zeros((4, 4), bool), TileAxis(size=1, end=5), "end inside the mask"),
        (np.zeros((4, 4), bool), TileAxis(size=Fraction(1, 2**61 - 1)), "limit_denominator"),
        (np.zeros((4, 4), bool), TileAxis(size=Fraction(1, 2**40 - 1)), "`tiles_yx`.*62 bits"),
    ],
)
def test_what_cannot_be_measured_is_refused(mask, axis, message) -> None:
    with pytest.raises(ConfigError, match=message):
        coverage(mask, (axis, axis))


def test_outputs_and_places_are_checked() -> None:
    mask, tile = np.zeros((4, 4), bool), TileAxis(size=2)
    with pytest.raises(ConfigError, match="`out` of `coverage`"):
        coverage(mask, (tile, tile), out=np.zeros((2, 3), np.float32))
    with pytest.raises(ConfigError, match="`backend`"):
        covered_area(mask, (tile, tile), backend="cuda")
