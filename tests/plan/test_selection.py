import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blobs
from tests.strategies import shapes
from tilestream.grid import TileGrid
from tilestream.plan import Selection, mask_outline
from tilestream.plan.outline import fill_polygons
from tilestream.plan.selection import tile_shares
from tilestream.types import PlanLevel, Shape


def level_of(area, scale=1.0):
    shape = Shape(y=-int(-area.y // scale), x=-int(-area.x // scale))
    return PlanLevel(stored=0, shape=shape, scale_yx=(scale, scale))


@given(
    mask=shapes(max_px=12),
    factor=st.integers(1, 5),
    cut=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    tile_px=st.integers(1, 30),
    edge=st.sampled_from(["cover", "shift", "drop"]),
    seed=st.integers(0, 99),
)
def test_shares_are_exact(mask, factor, cut, tile_px, edge, seed):
    wanted = np.random.default_rng(seed).random(mask.yx) > 0.5
    fine = np.kron(wanted, np.ones((factor, factor)))
    # the last mask pixels reach beyond the image
    area = Shape(y=fine.shape[0] - min(cut[0], factor - 1), x=fine.shape[1] - min(cut[1], factor - 1))
    fine = fine[: area.y, : area.x]
    selection = Selection(name="s", mask=wanted, scale_yx=(factor, factor), area=area)
    grid = TileGrid(area=area, tile_px=tile_px, step_px=tile_px, edge=edge)
    expected = [[fine[y : y + tile_px, x : x + tile_px].mean() for x in grid.starts_x()] for y in grid.starts_y()]
    got = tile_shares(selection, level_of(area), grid)
    np.testing.assert_allclose(got, np.reshape(expected, grid.shape.yx), atol=1e-6)


@given(scale=st.floats(0.3, 9), factor=st.floats(1, 40), seed=st.integers(0, 9))
def test_shares_add_up_to_the_selected_area(scale, factor, seed):
    area = Shape(y=1013, x=777)
    mask = Shape(y=-int(-area.y // factor), x=-int(-area.x // factor))
    wanted = np.random.default_rng(seed).random(mask.yx) > 0.5
    selection = Selection(name="s", mask=wanted, scale_yx=(factor, factor), area=area)
    level = level_of(area, scale)
    grid = TileGrid(area=level.shape, tile_px=17, step_px=17)
    size_y, size_x = (
        np.minimum((starts + 17) * scale, length) - starts * scale
        for starts, length in ((grid.starts_y(), area.y), (grid.starts_x(), area.x))
    )
    total = float(size_y @ tile_shares(selection, level, grid).astype(float) @ size_x)
    assert total == pytest.approx(selection.selected_share * area.area, rel=1e-4, abs=1)
    y, x = np.minimum(np.arange(mask.y + 1) * factor, area.y), np.minimum(np.arange(mask.x + 1) * factor, area.x)
    assert total == pytest.approx(float(np.diff(y) @ wanted @ np.diff(x)), rel=1e-4, abs=1)


@given(
    mask=shapes(max_px=40),
    seed=st.integers(0, 99),
    cell=st.integers(1, 4),
    factor=st.floats(1, 33),
    reach=st.floats(0.1, 1),
)
def test_outline_and_mask_are_the_same(mask, seed, cell, factor, reach):
    # the last mask pixels lie partly outside, but never wholly
    area = Shape(y=int((mask.y - reach) * factor) + 1, x=int((mask.x - reach) * factor) + 1)
    made = blobs(mask, area, seed=seed, cell=cell)
    selection = Selection(name="s", mask=made.mask, scale_yx=(factor, factor), area=area)
    outline = mask_outline(selection)
    assert all(polygon.is_valid for polygon in outline)
    assert sum(polygon.area for polygon in outline) == pytest.approx(shapely.union_all(list(outline)).area)
    assert sum(polygon.area for polygon in outline) == pytest.approx(selection.selected_share * area.area, rel=0.01)
    if outline:
        back = fill_polygons(outline, mask, scale_yx=(factor, factor), area=area)
        np.testing.assert_array_equal(back, made.mask)


def test_outline_has_holes_and_no_needless_corners():
    mask = np.zeros((9, 12), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:6] = False
    (polygon,) = mask_outline(Selection(name="s", mask=mask, scale_yx=(4.0, 2.0), area=Shape(y=36, x=24)))
    assert sorted(polygon.exterior.coords[:-1]) == [(2, 4), (2, 32), (16, 4), (16, 32)]
    (hole,) = polygon.interiors
    assert sorted(hole.coords[:-1]) == [(6, 12), (6, 20), (12, 12), (12, 20)]


def test_nothing_has_no_outline():
    empty = Selection(name="s", mask=np.zeros((4, 5), bool), scale_yx=(1, 1), area=Shape(y=4, x=5))
    assert mask_outline(empty) == ()
    assert empty.selected_share == 0


@given(data=st.data(), count=st.integers(1, 4))
def test_fill_follows_the_pixel_centres(data, count):
    shape, area = Shape(y=23, x=31), Shape(y=46, x=62)
    number = st.floats(-9, 70, width=32)
    polygons = []
    for _ in range(count):
        points = data.draw(st.lists(st.tuples(number, number), min_size=3, max_size=9))
        hull = shapely.MultiPoint(points).convex_hull
        if hull.geom_type == "Polygon" and hull.area > 1:
            outer = shapely.segmentize(hull, 5.0)
            polygons += [outer, shapely.Polygon(outer.exterior, [shapely.affinity.scale(outer, 0.4, 0.4).exterior])]
    if not polygons:
        return
    y, x = np.indices(shape.yx)
    centres = shapely.points(2 * x + 1.0, 2 * y + 1.0)
    union = shapely.union_all(polygons)
    got = fill_polygons(polygons, shape, scale_yx=(2.0, 2.0), area=area)
    clear = shapely.distance(centres, union.boundary) > 1e-6  # a centre on the line may fall on either side
    np.testing.assert_array_equal(got[clear], shapely.contains(union, centres)[clear])
