import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank
from tilestream.errors import ConfigError
from tilestream.plan import Snap, plan_tiles
from tilestream.types import Shape


def scene(affine):
    return blank(Shape(y=700, x=900), crs="EPSG:32629", affine=affine)


def corners_xy(plan, affine):
    """CRS position of the corners of all tiles."""
    yx = np.concatenate([unit.tile_yx for unit in plan.start()]) * plan.level.scale_yx
    return {(affine[0] * x + affine[2], affine[4] * y + affine[5]) for y, x in yx}


@given(east=st.integers(-300, 300), north=st.integers(-300, 300), up=st.sampled_from([1, -1]))
def test_a_place_is_the_same_tile_on_each_date(east, north, up):
    affine = (10.0, 0.0, 300_000.0 + 10 * east, 0.0, 10.0 * up, 4_000_000.0 + 10 * north)
    plan = plan_tiles(scene(affine), where="all", tile_px=128, snap=Snap(size=1280.0))
    found = corners_xy(plan, affine)
    assert all(x % 1280 == 0 and y % 1280 == 0 for x, y in found)
    low, high = sorted([affine[5], affine[5] + 700 * 10 * up])
    inside = [0, 1280] if up > 0 else [-1280, 0]  # a tile reaches down from its corner in a north-up image
    rows = {y for _, y in found}
    expected = [y for y in range(-1280_00, 8_000_000, 1280) if y + inside[0] < high and y + inside[1] > low]
    assert sorted(rows) == expected


def test_grid_decides_the_resolution():
    plan = plan_tiles(scene((10.0, 0, 0, 0, -10.0, 0)), where="all", tile_px=64, snap=Snap(size=1280.0))
    assert plan.level.ratio_yx == (2, 2)
    assert plan.grid.origin_yx == (0, 0)


@pytest.mark.parametrize(
    ("affine", "snap", "words"),
    [
        ((10.0, 0.1, 0, 0.1, -10.0, 0), Snap(size=1280.0), "without rotation"),
        ((10.0, 0, 3.0, 0, -10.0, 0), Snap(size=1280.0), "along x.*whole number"),
        ((10.0, 0, 0, 0, -10.0, 0), Snap(size=1280.0 * 1.01234567), "a ratio with a denominator"),
        ((10.0, 0, 0, 0, -10.0, 0), Snap(size=0.0), "above 0"),
    ],
)
def test_pixels_off_the_grid_are_refused(affine, snap, words):
    with pytest.raises(ConfigError, match=words):
        plan_tiles(scene(affine), where="all", tile_px=128, snap=snap)


def test_contradictions_are_refused():
    north_up = scene((10.0, 0, 0, 0, -10.0, 0))
    with pytest.raises(ConfigError, match="not moved"):
        plan_tiles(north_up, where="all", tile_px=128, snap=Snap(size=1280.0), edge="shift")
    with pytest.raises(ConfigError, match="no `mpp`"):
        plan_tiles(north_up, where="all", tile_px=128, snap=Snap(size=1280.0), mpp=0.5)
    with pytest.raises(ConfigError, match="without CRS"):
        plan_tiles(blank(Shape(y=9, x=9)), where="all", tile_px=8, snap=Snap(size=80.0))
