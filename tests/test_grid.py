import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import shapes
from tilestream.errors import ConfigError
from tilestream.grid import EDGES, TileGrid, hilbert_index, hilbert_order, super_tile_edge
from tilestream.types import Shape

tiles_px = st.integers(1, 70)


def corners(grid):
    y, x = np.meshgrid(grid.starts_y(), grid.starts_x(), indexing="ij")
    return np.stack([y.ravel(), x.ravel()], axis=1)


def cover(grid, halo_px=0):
    """How often each pixel of the level lies in a core, trimmed from tiles that were read with a halo."""
    count = np.zeros(grid.area.yx, int)
    for y, x in corners(grid):
        tile = np.zeros((grid.tile_px + 2 * halo_px,) * 2, int)
        tile[halo_px : halo_px + grid.tile_px, halo_px : halo_px + grid.tile_px] = 1
        y0, x0 = y - halo_px, x - halo_px
        part = count[max(0, y0) : max(0, y0 + len(tile)), max(0, x0) : max(0, x0 + len(tile))]
        oy, ox = max(0, -y0), max(0, -x0)
        part += tile[oy : oy + part.shape[0], ox : ox + part.shape[1]]
    return count


@given(area=shapes(), tile_px=tiles_px, halo_px=st.integers(0, 9))
def test_cores_partition_the_area(area, tile_px, halo_px):
    grid = TileGrid(area=area, tile_px=tile_px, step_px=tile_px, halo_px=halo_px)
    assert (cover(grid, halo_px) == 1).all()


@given(area=shapes(), tile_px=tiles_px, halo_px=st.integers(0, 9), seed=st.integers(0, 99))
def test_halos_trim_back_to_identity(area, tile_px, halo_px, seed):
    image = np.random.default_rng(seed).integers(0, 255, area.yx)
    grid = TileGrid(area=area, tile_px=tile_px, step_px=tile_px, halo_px=halo_px)
    reach = halo_px + tile_px
    around = np.pad(image, reach)
    back = np.zeros_like(around)
    for y, x in corners(grid):
        y, x = y + reach, x + reach
        tile = around[y - halo_px : y + tile_px + halo_px, x - halo_px : x + tile_px + halo_px]
        back[y : y + tile_px, x : x + tile_px] = tile[halo_px : halo_px + tile_px, halo_px : halo_px + tile_px]
    np.testing.assert_array_equal(back, around)


@given(area=shapes(), tile_px=tiles_px, data=st.data())
def test_overlapping_steps_cover_everything(area, tile_px, data):
    step_px = data.draw(st.integers(1, tile_px))
    grid = TileGrid(area=area, tile_px=tile_px, step_px=step_px)
    assert (cover(grid) >= 1).all()
    if grid.shape.y > 1:  # the last row of tiles was needed
        assert grid.starts_y()[-2] + tile_px < area.y


@given(area=shapes(), tile_px=tiles_px, data=st.data())
def test_shift_covers_from_inside(area, tile_px, data):
    step_px = data.draw(st.integers(1, tile_px))
    grid = TileGrid(area=area, tile_px=tile_px, step_px=step_px, edge="shift")
    assert (cover(grid) >= 1).all()
    if tile_px <= min(area.yx):
        assert (corners(grid) + tile_px <= area.yx).all()
    assert len(np.unique(corners(grid), axis=0)) == grid.shape.area


@given(area=shapes(), tile_px=tiles_px, step_px=st.integers(1, 99))
def test_drop_keeps_all_whole_tiles(area, tile_px, step_px):
    grid = TileGrid(area=area, tile_px=tile_px, step_px=step_px, edge="drop")
    assert (corners(grid) + tile_px <= area.yx).all()
    if tile_px <= area.y:
        assert grid.starts_y()[-1] + step_px + tile_px > area.y
    else:
        assert grid.shape.y == 0


@given(area=shapes(), tile_px=tiles_px, step_px=st.integers(1, 120), edge=st.sampled_from(EDGES))
def test_every_tile_touches_the_image(area, tile_px, step_px, edge):
    grid = TileGrid(area=area, tile_px=tile_px, step_px=step_px, edge=edge)
    assert (corners(grid) < area.yx).all()
    assert (corners(grid) >= 0).all()


@given(area=shapes(), tile_px=tiles_px, data=st.data())
def test_an_earlier_origin_still_partitions(area, tile_px, data):
    origin = tuple(-data.draw(st.integers(0, tile_px - 1)) for _ in "yx")
    grid = TileGrid(area=area, tile_px=tile_px, step_px=tile_px, origin_yx=origin)
    assert (cover(grid) == 1).all()
    assert tuple(corners(grid)[0]) == origin


@given(shape=shapes(max_px=60))
def test_hilbert_order_visits_each_cell_once(shape):
    order = hilbert_order(shape)
    assert len(order) == shape.area
    assert len(np.unique(order, axis=0)) == shape.area
    assert (order >= 0).all()
    assert (order < shape.yx).all()


@pytest.mark.parametrize("order", range(1, 7))
def test_hilbert_steps_to_a_neighbour(order):
    path = hilbert_order(Shape(y=2**order, x=2**order))
    assert (np.abs(np.diff(path, axis=0)).sum(axis=1) == 1).all()
    distance = hilbert_index(path[:, 0], path[:, 1], order=order)
    np.testing.assert_array_equal(distance, np.arange(4**order))


def test_hilbert_order_of_nothing():
    assert hilbert_order(Shape(y=0, x=5)).shape == (0, 2)


@pytest.mark.parametrize(
    ("step_px", "region_px", "edge_px"),
    [(256, 1, 4096), (224, 1, 4032), (256, 4096, 4096), (192, 256, 3840), (5000, 1, 5000)],
)
def test_super_tile_edge_is_a_common_multiple(step_px, region_px, edge_px):
    assert super_tile_edge(step_px, region_px=region_px) == edge_px


def test_super_tile_edge_asked_for():
    assert super_tile_edge(128, region_px=256, super_tile_px=512) == 512
    with pytest.raises(ConfigError, match=r"got 1000 px, expected a multiple of 768 px .* Give 768, or"):
        super_tile_edge(192, region_px=256, super_tile_px=1000)


@pytest.mark.parametrize("wrong", [{"tile_px": 0}, {"step_px": 0}, {"halo_px": -1}, {"edge": "wrap"}])
def test_impossible_grids_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        TileGrid(**{"area": Shape(y=9, x=9), "tile_px": 3, "step_px": 3, **wrong})
