"""Units of maps: whole tiles where that can be, small enough for memory, and told where tiles are computed twice."""

from functools import cache

import numpy as np
import pytest

import tilestream as ts
from tilestream.pipelines.map_layout import chunk_edge, map_info, map_layout, overhead, told_overhead
from tilestream.plan.dense import DenseGrid
from tilestream.stream.mapform import map_form
from tilestream.types import StageContract


@cache
def pyramid():
    """Return an image of 600 megapixels, which are hashed."""
    return ts.open_pyramid(np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 20_000, 30_000), (0, 0, 0)))


def grid_of(tile_px, *, halo_px=0, stride=1, super_tile_px=None, blend=False):
    plan = ts.plan_tiles(pyramid(), tile_px=tile_px, halo_px=halo_px, where="all", super_tile_px=super_tile_px)
    return DenseGrid(plan=plan, stride=stride, is_blended=blend)


@pytest.mark.parametrize(
    ("tile", "stride", "super_tile", "pixel_bytes", "edge"),
    [
        (256, 1, None, 1, 256),
        (512, 1, None, 4, 256),
        (224, 1, None, 4, 252),
        (192, 1, None, 12, 252),
        (256, 16, 16384, 4, 64),
        (256, 1, 256, 1, 16),
        (1000, 1, None, 1, 250),
        (256, 1, None, 64, 96),
        (4000, 1, None, 1, 250),
    ],
)
def test_units_are_of_whole_tiles(tile, stride, super_tile, pixel_bytes, edge):
    grid = grid_of(tile, stride=stride, super_tile_px=super_tile)
    assert chunk_edge(grid, pixel_bytes) == edge
    assert (16 * edge * stride) % tile == 0


def layout_of(grid, planes=1):
    contract = StageContract(name="it", px=64, output="dense", stride=grid.stride)
    form = map_form(contract, tuple("abc"[:planes]), np.zeros((1, planes, 2, 2), "f4"))
    return map_layout(map_info(pyramid().info, grid, form, fingerprint="x"), grid)


def test_tiles_on_borders_and_halos_are_told():
    assert told_overhead(*overhead(grid_of(512, halo_px=1), layout_of(grid_of(512, halo_px=1)))) == ()
    blended = grid_of(192, halo_px=32, blend=True)
    halo, borders = overhead(blended, layout_of(blended))
    assert halo == pytest.approx((256 / 192) ** 2 - 1)
    assert 0.1 < borders < 0.25
    assert told_overhead(halo, borders) == (
        f"computed more than once: 78% of all pixels as halo, {borders:.0%} of all tiles on borders",
    )


def test_a_map_has_the_place_of_its_image():
    grid = grid_of(256, stride=16)
    layout = layout_of(grid)
    assert layout.levels[0].shape.yx == (1250, 1875)
    assert layout.cell_yx == (16, 16)
