"""Plans of patches that other programs have cut: each tile is exactly what lies under its corner."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

import tilestream as ts
from tilestream.errors import ConfigError
from tilestream.plan.dense import DenseGrid
from tilestream.plan.listed import ListedPlan
from tilestream.plan.tiles import TilePlan
from tilestream.plan.where import select
from tilestream.stream.batches import new_outcome
from tilestream.stream.supply import supplied
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape, TileStatus

SHAPE = Shape(y=1100, x=1700)
RNG = np.random.default_rng(1)
ANY = np.stack([RNG.integers(0, SHAPE.x - 1, 40), RNG.integers(0, SHAPE.y - 1, 40)], axis=1)
GRID = np.array([(x, y) for y in range(0, 1100, 256) for x in range(128, 1700, 256) if (x + y) % 3])


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """Levels reduced by 1 and by 4."""
    return ts.open_pyramid(str(write_slide(tmp_path_factory.mktemp("listed") / "s.svs", SHAPE, seed=5)))


@pytest.fixture
def listed(tmp_path):
    def write(xy, **attributes) -> str:
        with h5py.File(tmp_path / "s.h5", "w") as file:
            file.create_dataset("coords", data=np.asarray(xy)).attrs.update(attributes)
        return str(tmp_path / "s.h5")

    return write


def pixels_of(slide, plan) -> dict:
    """Pixels of each tile by its corner on level 0, x first."""
    found = {}
    for unit in plan.start():
        scale = np.array(unit.level.scale_yx)
        corners = unit.corner_yx if unit.corner_yx is not None else unit.tile_yx * scale
        for batch in ts_batches(slide, unit):
            for row, pixels in zip(batch.rows, batch.pixels, strict=True):
                y, x = corners[row - unit.first_row]
                found[int(x), int(y)] = pixels.copy()
    return found


def ts_batches(slide, unit, threads=0):
    outcome = new_outcome(unit)
    with supplied(slide, unit, outcome, batch=7, threads=threads) as supply:
        while (batch := supply.take()) is not None:
            yield batch
            supply.give_back(batch)


def expected(slide, x, y, size, tile_px, halo=0):
    """Mean of what exists under each pixel, ties to even."""
    ratio = size // tile_px
    low_y, low_x, edge = y - halo * ratio, x - halo * ratio, size + 2 * halo * ratio
    region = slide.read_region(Box(level=0, y=low_y, x=low_x, height=edge, width=edge))
    cells = np.where(region.valid, region.pixels, 0).astype(np.int64).reshape(3, edge // ratio, ratio, -1, ratio)
    count = region.valid.reshape(edge // ratio, ratio, -1, ratio).sum(axis=(1, 3))
    return np.rint(cells.sum(axis=(2, 4)) / np.maximum(count, 1)).astype(np.uint8)


@pytest.mark.parametrize(("size", "halo"), [(64, 0), (128, 0), (64, 5), (192, 3)])
def test_tiles_off_the_grid_are_read_at_their_own_corners(slide, listed, size, halo):
    where = listed(ANY, patch_size=64, patch_size_level0=size, level0_width=SHAPE.x, level0_height=SHAPE.y)
    plan = ts.plan_tiles(slide, tile_px=64, halo_px=halo, where=where, super_tile_px=256)
    assert isinstance(plan, ListedPlan)
    assert len(plan) == len(ANY)
    assert sum(len(unit.tile_yx) for unit in plan.start()) == len(ANY)
    found = pixels_of(slide, plan)
    assert set(found) == set(map(tuple, ANY.tolist()))
    for (x, y), pixels in found.items():
        np.testing.assert_array_equal(pixels, expected(slide, x, y, size, 64, halo))


@pytest.mark.parametrize("size", [64, 128])
def test_patches_on_one_grid_are_an_ordinary_plan(slide, listed, size):
    corners = GRID[((SHAPE.x, SHAPE.y) > GRID).all(axis=1)]
    plan = ts.plan_tiles(slide, tile_px=64, where=listed(corners, patch_size=64, patch_size_level0=size))
    assert type(plan) is TilePlan
    found = pixels_of(slide, plan)
    assert set(found) == set(map(tuple, corners.tolist()))
    for (x, y), pixels in found.items():
        np.testing.assert_array_equal(pixels, expected(slide, x, y, size, 64))


def test_overlap_makes_the_step(slide, listed):
    corners = np.array([(x, 64) for x in range(32, 1500, 64)])
    where = listed(corners, patch_size=64, patch_size_level0=128, overlap=32)
    plan = ts.plan_tiles(slide, tile_px=64, where=where)
    assert type(plan) is TilePlan
    assert (plan.grid.step_px, len(plan)) == (32, len(corners))
    assert set(pixels_of(slide, plan)) == set(map(tuple, corners.tolist()))


def test_rows_and_units_follow_from_the_corners_alone(slide, listed):
    keys = {"patch_size": 64, "patch_level": 0}
    plan = ts.plan_tiles(slide, tile_px=64, where=listed(ANY, **keys), super_tile_px=256)
    again = ts.plan_tiles(slide, tile_px=64, where=listed(ANY[::-1], **keys), super_tile_px=256)
    rows = [row for unit in plan.in_row_order() for row in unit.rows]
    assert rows == list(range(len(ANY)))
    np.testing.assert_array_equal(plan.corner_yx, again.corner_yx)
    assert pickle.loads(pickle.dumps(plan)).digest == plan.digest
    assert (plan.unit_sizes()[1]).sum() == len(ANY)
    other = ANY.copy()
    other[0, 0] += 1
    assert ts.plan_tiles(slide, tile_px=64, where=listed(other, **keys), super_tile_px=256).digest != plan.digest


def test_threads_that_decode_ahead_give_the_same(slide, listed):
    plan = ts.plan_tiles(slide, tile_px=64, where=listed(ANY, patch_size=64, patch_level=0))
    (unit,) = plan.start()
    alone, ahead = (
        {
            row: pixels.copy()
            for batch in ts_batches(slide, unit, threads)
            for row, pixels in zip(batch.rows, batch.pixels, strict=True)
        }
        for threads in (0, 3)
    )
    assert alone.keys() == ahead.keys()
    assert all(np.array_equal(alone[row], ahead[row]) for row in alone)
    outcome = new_outcome(unit)
    with supplied(slide, unit, outcome, batch=64) as supply:
        supply.take()
    assert (outcome.status == TileStatus.OK).all()
    inside = np.minimum(ANY + 64, (SHAPE.x, SHAPE.y)) - ANY
    by_corner = {
        tuple(corner): share for corner, share in zip(unit.corner_yx[:, ::-1], outcome.valid_share, strict=True)
    }
    for corner, share in zip(ANY, inside.prod(axis=1) / 64**2, strict=True):
        assert by_corner[tuple(corner)] == pytest.approx(share)


def test_a_coarse_level_is_read_where_it_has_a_pixel_at_every_corner(slide, listed):
    keys = {"patch_size": 64, "patch_level": 1, "downsample": np.array([4.0, 4.0])}
    plan = ts.plan_tiles(slide, tile_px=64, where=listed(ANY // 4 * 4, **keys))
    assert (plan.level.stored, plan.level.is_stored, plan.notes) == (1, True, ())
    for (x, y), pixels in pixels_of(slide, plan).items():
        own = slide.read_region(Box(level=1, y=y // 4, x=x // 4, height=64, width=64))
        np.testing.assert_array_equal(pixels, np.where(own.valid, own.pixels, 0))
    plan = ts.plan_tiles(slide, tile_px=64, where=listed(ANY, **keys))
    assert plan.level.stored == 0
    assert plan.notes == ("patches begin between pixels of level 1: they are read from level 0",)
    for (x, y), pixels in list(pixels_of(slide, plan).items())[:5]:
        np.testing.assert_array_equal(pixels, expected(slide, x, y, 256, 64))


def test_another_resolution_than_asked_for_is_told(slide, listed):
    where = listed(ANY, patch_size=256, patch_size_level0=128)
    plan = ts.plan_tiles(slide, tile_px=64, mpp=0.5, where=where)
    assert plan.mpp_yx == (1.0, 1.0)
    assert plan.notes == ("patches are of 1 um/px as they are read, where 0.5 was asked for",)
    assert not ts.plan_tiles(slide, tile_px=64, mpp=1.02, where=where).notes


def test_patches_listed_twice_on_a_grid_are_read_once(slide, listed):
    plan = ts.plan_tiles(slide, tile_px=64, where=listed([[0, 0], [64, 0], [0, 0]], patch_size=64, patch_level=0))
    assert len(plan) == 2
    assert plan.notes == ("patches that are listed twice and read once: 1",)


@pytest.mark.parametrize("xy", [np.empty((0, 2), np.int64)])
def test_no_patches_are_a_plan_of_no_tiles(slide, listed, xy):
    assert len(ts.plan_tiles(slide, tile_px=64, where=listed(xy, patch_size=64, patch_level=0))) == 0


@pytest.mark.parametrize(
    ("xy", "attributes", "said"),
    [
        (ANY, {"patch_size": 64, "patch_size_level0": 64, "level0_width": 9, "level0_height": 9}, "of 9 x 9 px"),
        ([[0, 0], [1700, 5]], {"patch_size": 64, "patch_level": 0}, "1 patches outside the image, such as x=1700, y=5"),
        ([[-1, 0]], {"patch_size": 64, "patch_level": 0}, "outside the image"),
        (ANY, {"patch_size": 20, "patch_level": 0}, "Give a smaller --tile"),
        (ANY, {}, "attributes none of `coords`"),
        (ANY, {"patch_size": 64, "patch_level": 7}, "the attribute `downsample`"),
        (ANY[:, :1], {"patch_size": 64, "patch_level": 0}, "`coords` of shape"),
    ],
)
def test_what_cannot_be_a_plan_is_told(slide, listed, xy, attributes, said):
    with pytest.raises(ConfigError, match=said):
        ts.plan_tiles(slide, tile_px=64, where=listed(xy, **attributes))


def test_maps_need_a_grid(slide, listed):
    where = listed(ANY, patch_size=64, patch_level=0)
    with pytest.raises(ConfigError, match="no common grid"):
        DenseGrid(plan=ts.plan_tiles(slide, tile_px=64, where=where))
    area = select(slide, where, tile_level0_px=64)
    plan = ts.plan_tiles(slide, tile_px=64, where=area, min_share=0.02)
    DenseGrid(plan=plan)
    starts = np.concatenate([unit.tile_yx for unit in plan.start()])[:, None, ::-1]
    touches = (abs(starts - ANY[None]) < 64).all(axis=2)
    assert touches.any(axis=1).all()
    assert touches.any(axis=0).all()


def test_a_part_of_an_image_has_the_tiles_whose_centres_lie_in_it(slide, listed):
    part = ts.to_datatree(slide)["0/image"].isel(y=slice(200, 700), x=slice(300, 900))
    plan = part.tiles.plan(tile_px=64, where=listed(ANY, patch_size=64, patch_level=0))
    x, y = (ANY + 32).T
    inside = ANY[(y >= 200) & (y < 700) & (x >= 300) & (x < 900)]
    assert set(pixels_of(slide, plan)) == set(map(tuple, inside.tolist()))


@pytest.mark.parametrize("option", [{"step_px": 32}, {"whole_regions": True}])
def test_nothing_else_decides_where_tiles_lie(slide, listed, option):
    with pytest.raises(ConfigError, match="patches by themselves"):
        ts.plan_tiles(slide, tile_px=64, where=listed(ANY, patch_size=64, patch_level=0), **option)


def test_files_that_are_none(slide, tmp_path):
    with pytest.raises(ConfigError, match="nothing there"):
        ts.plan_tiles(slide, tile_px=64, where=str(tmp_path / "typo.h5"))
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n cut")
    with pytest.raises(ConfigError, match="no whole HDF5 file"):
        ts.plan_tiles(slide, tile_px=64, where=str(tmp_path / "cut.h5"))
