"""Tile matrix sets against published numbers, and tiles of plans against them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import blank
from tilestream.errors import ConfigError
from tilestream.plan import (
    WEB_MERCATOR_QUAD,
    WORLD_CRS84_QUAD,
    matrix_tiles,
    plan_tiles,
    quadkey,
    tile_of_quadkey,
    utm_quad,
)
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.types import Shape

PIXELS_A_METRE = 1 / 0.00028
"""Of the standard screen behind the scale denominators of the OGC."""


@pytest.mark.parametrize(
    ("tile", "key"), [((3, 3, 5), "213"), ((1, 0, 0), "0"), ((0, 0, 0), ""), ((10, 486, 332), "0313102310")]
)
def test_published_quadkeys(tile, key):
    assert quadkey(*tile) == key
    assert tile_of_quadkey(key) == tile


@given(st.integers(0, 30).flatmap(lambda z: st.tuples(st.just(z), *[st.integers(0, 2**z - 1)] * 2)))
def test_quadkeys_lead_back_and_nest(tile):
    z, x, y = tile
    assert tile_of_quadkey(quadkey(z, x, y)) == tile
    assert not z or quadkey(z, x, y)[:-1] == quadkey(z - 1, x // 2, y // 2)


@pytest.mark.parametrize("tile", [(-1, 0, 0), (31, 0, 0), (2, 4, 0), (2, 0, -1)])
def test_no_such_tile(tile):
    with pytest.raises(ConfigError, match="tile"):
        quadkey(*tile)


@pytest.mark.parametrize("key", ["4", "0a", "0" * 31, "-1"])
def test_no_quadkey(key):
    with pytest.raises(ConfigError, match="quadkey"):
        tile_of_quadkey(key)


def test_a_published_square():
    expected = (-1017529.7205322663, 7005300.768279833, -978393.962050256, 7044436.526761846)
    assert WEB_MERCATOR_QUAD.bounds(10, 486, 332) == pytest.approx(expected, abs=1e-6)
    assert WEB_MERCATOR_QUAD.tile_at(10, xy=(-1000000.0, 7010000.0)) == (10, 486, 332)


@pytest.mark.parametrize(
    ("matrix", "z", "denominator", "metres"),
    [
        (WEB_MERCATOR_QUAD, 0, 559082264.028717, 1.0),
        (WEB_MERCATOR_QUAD, 18, 2132.72958384978, 1.0),
        (WORLD_CRS84_QUAD, 0, 279541132.014358, 111319.490793274),
        (WORLD_CRS84_QUAD, 17, 2132.72958384978, 111319.490793274),
        (utm_quad(31), 1, 279072704.500914, 1.0),
        (utm_quad(31), 24, 33.2680588365691, 1.0),
    ],
)
def test_published_scales(matrix, z, denominator, metres):
    pixel = matrix.size(z) / 256 * metres
    assert pixel * PIXELS_A_METRE == pytest.approx(denominator, rel=1e-9)


@pytest.mark.parametrize("up", [1, -1])
@pytest.mark.parametrize(("matrix", "first"), [(WEB_MERCATOR_QUAD, (14, 8715, 5683)), (utm_quad(29), (12, 1950, 1500))])
def test_each_tile_of_a_snapped_plan_is_a_square(matrix, first, up):
    z, x, y = first
    pixel = matrix.size(z) / 256
    left, bottom, _, top = matrix.bounds(z, x, y)
    # begins 40 pixels inside the first square, along both axes
    affine = (pixel, 0.0, left + 40 * pixel, 0.0, up * pixel, (bottom if up > 0 else top) + up * 40 * pixel)
    pyramid = blank(Shape(y=700, x=500), crs=matrix.crs, affine=affine)
    plan = plan_tiles(pyramid, tile_px=256, where="all", snap=matrix.snap(z))
    found = matrix_tiles(plan, pyramid.info, matrix)
    assert len(found) == len(plan) == 9
    expected = {(z, x + dx, y - up * dy) for dx in range(3) for dy in range(3)}
    assert {tuple(row) for row in found.tolist()} == expected
    tile_yx = np.concatenate([unit.tile_yx for unit in plan.start()])
    for (row, column), (_, tile_x, tile_y) in zip(tile_yx.tolist(), found.tolist(), strict=True):
        edges = matrix.bounds(z, tile_x, tile_y)
        assert affine[0] * column + affine[2] == pytest.approx(edges[0], abs=pixel / 100)
        assert affine[4] * row + affine[5] == pytest.approx(edges[1 if up > 0 else 3], abs=pixel / 100)


def test_finer_tiles_are_those_of_a_coarser_image(tmp_path):
    """512 pixels along a square of one zoom less are the same squares with more pixels."""
    pixel = WEB_MERCATOR_QUAD.size(10) / 512
    left, _, _, top = WEB_MERCATOR_QUAD.bounds(10, 500, 300)
    pyramid = blank(Shape(y=512, x=1024), crs="EPSG:3857", affine=(pixel, 0, left, 0, -pixel, top))
    for tile_px in (512, 256):
        plan = plan_tiles(pyramid, tile_px=tile_px, where="all", snap=WEB_MERCATOR_QUAD.snap(10))
        assert matrix_tiles(plan, pyramid.info, WEB_MERCATOR_QUAD).tolist() == [[10, 500, 300], [10, 501, 300]]


def test_an_image_of_the_collection_lies_on_squares_of_zoom_18(shared_data):
    pyramid = open_pyramid(shared_data / "satellite" / "cogeo.tif")
    z, x, y = WEB_MERCATOR_QUAD.tile_at(18, xy=(pyramid.affine[2] + 1, pyramid.affine[5] - 1))
    plan = plan_tiles(pyramid, tile_px=256, where="all", snap=WEB_MERCATOR_QUAD.snap(18))
    found = matrix_tiles(plan, pyramid.info, WEB_MERCATOR_QUAD)
    assert found[0].tolist() == [z, x, y]
    assert len({quadkey(*tile) for tile in found.tolist()}) == len(plan)


PIXEL_9 = WEB_MERCATOR_QUAD.size(9) / 256


@pytest.mark.parametrize(
    ("crs", "affine", "message"),
    [
        ("EPSG:32629", (10.0, 0, 0, 0, -10.0, 0), "an image in EPSG:32629"),
        ("EPSG:3857", (10.0, 0, 0, 0, -10.0, 0), "tiles of 2560 x 2560"),
        ("EPSG:3857", (PIXEL_9, 0, PIXEL_9, 0, -PIXEL_9, 0), "lie across its squares"),
        ("EPSG:3857", (PIXEL_9, 0, 0, 0, -2 * PIXEL_9, 0), "tiles of"),
        ("EPSG:3857", (PIXEL_9, 1.0, 0, 1.0, -PIXEL_9, 0), "north-up"),
    ],
)
def test_plans_that_are_not_on_the_squares(crs, affine, message):
    pyramid = blank(Shape(y=512, x=512), crs=crs, affine=affine)
    plan = plan_tiles(pyramid, tile_px=256, where="all")
    with pytest.raises(ConfigError, match=message):
        matrix_tiles(plan, pyramid.info, WEB_MERCATOR_QUAD)


def test_wrong_numbers():
    with pytest.raises(ConfigError, match="`zone`"):
        utm_quad(61)
    with pytest.raises(ConfigError, match="`z`"):
        WEB_MERCATOR_QUAD.snap(31)
