"""Plans that take regions whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank, blobs
from tests.strategies import shapes
from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.plan import plan_tiles
from tilestream.plan.selection import Selection, tile_shares
from tilestream.types import Shape

TILE_PX, REGION_PX = 10, 40


def corners(plan):
    return {(int(y), int(x)) for unit in plan.start() for y, x in unit.tile_yx}


@given(area=shapes(min_px=2, max_px=300), seed=st.integers(0, 99), min_share=st.sampled_from([0.05, 0.5, 1.0]))
def test_a_region_has_all_of_its_tiles_or_none(area, seed, min_share):
    where = blobs(Shape(y=-(-area.y // 3), x=-(-area.x // 3)), area, seed=seed, cell=7)
    plan = plan_tiles(
        blank(area), tile_px=TILE_PX, region_px=REGION_PX, where=where, min_share=min_share, whole_regions=True,
        super_tile_px=80,
    )  # fmt: skip
    regions = TileGrid(area=area, tile_px=REGION_PX, step_px=REGION_PX)
    share = tile_shares(where, plan.level, regions)
    expected = {
        (y, x)
        for y in range(0, area.y, TILE_PX)
        for x in range(0, area.x, TILE_PX)
        if share[y // REGION_PX, x // REGION_PX] >= np.float32(min_share)
    }
    assert corners(plan) == expected
    # what is known of each tile is still its own share
    tile = tile_shares(where, plan.level, plan.grid)
    for unit in plan.start():
        np.testing.assert_array_equal(plan.shares(unit), [tile[y // TILE_PX, x // TILE_PX] for y, x in unit.tile_yx])


def selected(*cells, shape=(4, 4)):
    mask = np.zeros(shape, np.bool_)
    for cell in cells:
        mask[cell] = True
    return Selection(name="s", mask=mask, scale_yx=(40, 40), area=Shape(y=160, x=160))


def test_the_digest_tells_whole_regions_from_others_and_others_stay_as_they_were():
    area = blank(Shape(y=160, x=160))
    given = {"tile_px": 10, "where": selected((0, 0)), "super_tile_px": 80}
    plain, regions = plan_tiles(area, **given), plan_tiles(area, **given, region_px=40)
    whole, unit = (plan_tiles(area, **given, region_px=px, whole_regions=True) for px in (40, None))
    assert plain.digest == regions.digest
    assert corners(whole) == corners(plain)
    assert whole.digest != plain.digest
    assert len(unit) == 64  # by default a region is the unit of work
    assert plan_tiles(area, **given | {"where": "all"}, whole_regions=True).digest == plan_tiles(
        area, **given | {"where": "all"}
    ).digest  # fmt: skip


def test_regions_that_hold_too_little_are_told():
    area = blank(Shape(y=160, x=160))
    plan = plan_tiles(area, tile_px=10, where=selected((0, 0)), super_tile_px=160, min_share=0.2, whole_regions=True)
    assert len(plan) == 0
    assert plan.notes[-1] == "no region of which 0.2 is selected"


def test_regions_that_tiles_do_not_fill_are_refused():
    with pytest.raises(ConfigError, match="`region_px` of whole regions: got 25, expected a multiple of the step, 10"):
        plan_tiles(blank(Shape(y=99, x=99)), tile_px=10, region_px=25, whole_regions=True)
