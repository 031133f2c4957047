"""Vectors of regions and slides by stages above the tiles, as they stand in the store."""

from __future__ import annotations

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr

from tests.models import gridstages
from tests.sinks.build import make_image, make_plan, make_sink, tree_bytes, write_all
from tilestream.errors import ConfigError, StageError
from tilestream.types import TileStatus


@dataclass(frozen=True)
class Chain:
    """Functions as the stages of a hierarchy."""

    region: str | None = "corner_weighted"
    slide: str | None = None
    dim: int = 3

    @property
    def region_dim(self):
        return None if self.region is None else self.dim

    slide_dim = 3

    def of_region(self, grid, mask):
        try:
            return getattr(gridstages, self.region)(grid[None], mask[None])[0]
        except ValueError as error:
            raise StageError.of("region stage", got=str(error), expected="a vector", do="Correct it.") from error

    @property
    def of_slide(self):
        stage = None if self.slide is None else getattr(gridstages, self.slide)
        return None if stage is None else lambda bag: stage(bag[None], np.ones((1, len(bag)), bool))[0]


def chain_sink(folder, chain=None, **more):
    return make_sink(folder, chains={"handcrafted": chain or Chain()}, **more)


def stored(sink):
    with xr.open_datatree(sink.root, engine="zarr") as tree:
        return tuple(tree[name].ds.load() for name in ("tile", "region", "slide"))


def grids(tile, region, edge=2, step=64):
    """Each region's grid and mask, from the rows of the group `tile` alone."""
    for row in range(region.sizes["region"]):
        y, x = (int(region[axis][row]) for axis in "yx")
        grid, mask = np.zeros((3, edge, edge), np.float32), np.zeros((edge, edge), bool)
        for number in range(tile.sizes["tile"]):
            iy, ix = int(tile["y"][number]) - y, int(tile["x"][number]) - x
            inside = 0 <= iy < edge * step and 0 <= ix < edge * step
            if inside and int(tile["handcrafted_status"][number]) == 0:
                grid[:, iy // step, ix // step] = tile["handcrafted"].values[number]
                mask[iy // step, ix // step] = True
        yield grid, mask


def test_regions_see_their_tiles_in_place_and_a_mask(tmp_path):
    """The image ends inside of a region, tiles are damaged and one has no vector: all masked, none dropped."""
    image = make_image(height=350, width=700)
    sink = chain_sink(tmp_path, image=image, plan=make_plan(image))
    sink.finish(write_all(sink, damaged=[0, 1, 3, 4, 5], failed=[9]))
    tile, region, slide = stored(sink)
    expected = [gridstages.corner_weighted(grid[None], mask[None])[0] for grid, mask in grids(tile, region)]
    counts = [mask.sum() for _, mask in grids(tile, region)]
    assert region["handcrafted"].dims == ("region", "region_feature_handcrafted")
    assert region["handcrafted_n_ok"].values.tolist() == counts
    assert 0 in counts  # one without a tile that counts
    assert min(region["n"].values) < 4  # and one cut by the edge
    lost = np.array(counts) == 0
    np.testing.assert_array_equal(region["handcrafted"].values[~lost], np.stack(expected)[~lost])
    assert np.isnan(region["handcrafted"].values[lost]).all()
    assert region["handcrafted_status"].values[lost].tolist() == [TileStatus.DAMAGED]
    assert set(region["handcrafted_status"].values[~lost]) == {TileStatus.OK}
    # what the tiles are on average stands beside it
    for statistic in ("mean", "std"):
        assert region[f"handcrafted_{statistic}"].dims == ("region", "feature_handcrafted")
    # the slide is the mean of the regions that have a vector
    mean = region["handcrafted"].values[~lost].astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(slide["handcrafted"], mean)
    assert slide["handcrafted"].dims == ("slide_feature_handcrafted",)
    assert int(slide["handcrafted_n_regions"]) == region.sizes["region"]
    assert int(slide["handcrafted_n_regions_ok"]) == region.sizes["region"] - 1


def test_statistics_of_tiles_are_those_of_a_store_without_a_chain(tmp_path):
    sink, plain = chain_sink(tmp_path), make_sink(tmp_path / "plain")
    for one in (sink, plain):
        one.finish(write_all(one, damaged=[3, 4]))
    (tile, region, slide), (tile_0, region_0, slide_0) = stored(sink), stored(plain)
    xr.testing.assert_identical(tile, tile_0)
    for own, other in ((region, region_0), (slide, slide_0)):
        np.testing.assert_array_equal(own["handcrafted_mean"], other["handcrafted"])
        np.testing.assert_array_equal(own["handcrafted_std"], other["handcrafted_std"])


def test_an_aggregator_sees_the_regions_that_have_a_vector(tmp_path):
    sink = chain_sink(tmp_path, Chain(slide="greatest"))
    sink.finish(write_all(sink, damaged=[0, 1, 2, 3]))
    _, region, slide = stored(sink)
    np.testing.assert_array_equal(slide["handcrafted"], np.nanmax(region["handcrafted"].values, axis=0))
    assert int(slide["handcrafted_status"]) == TileStatus.OK


def test_an_aggregator_without_a_region_stage_sees_tiles(tmp_path):
    sink = chain_sink(tmp_path, Chain(region=None, slide="greatest"))
    sink.finish(write_all(sink, damaged=[0, 1, 2, 3], failed=[40]))
    tile, region, slide = stored(sink)
    np.testing.assert_array_equal(slide["handcrafted"], np.nanmax(tile["handcrafted"].values, axis=0))
    assert "handcrafted_status" not in region  # regions are pooled as ever
    assert region["handcrafted"].dims == ("region", "feature_handcrafted")


@pytest.mark.parametrize("stage", ["nan_where_damaged", "raises_where_damaged"])
def test_a_region_on_which_the_stage_fails_is_recorded_and_left_out(tmp_path, stage):
    sink = chain_sink(tmp_path, Chain(region=stage))
    sink.finish(write_all(sink, damaged=[3]))
    _, region, slide = stored(sink)
    failed = region["handcrafted_status"].values == TileStatus.FAILED
    whole = region["n"].values == 4
    (hurt,) = np.flatnonzero(region["handcrafted_n_ok"].values < region["n"].values)
    np.testing.assert_array_equal(np.flatnonzero(failed), np.flatnonzero(~whole | (np.arange(len(whole)) == hurt)))
    assert np.isnan(region["handcrafted"].values[failed]).all()
    ((reason, rows),) = region["handcrafted_status"].attrs["failed"].items()
    assert rows == np.flatnonzero(failed).tolist()
    assert ("not finite" if stage.startswith("nan") else "a hole") in reason
    assert int(slide["handcrafted_n_regions_ok"]) == (~failed).sum()
    mean = region["handcrafted"].values[~failed].astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(slide["handcrafted"], mean)


def test_a_stage_that_fails_on_every_region_is_an_error(tmp_path):
    sink = chain_sink(tmp_path, Chain(region="always_nan", dim=2))
    receipts = write_all(sink)
    with pytest.raises(StageError, match="every region that has a tile: got values that are not finite"):
        sink.finish(receipts)
    assert not sink.root.exists()
    assert not sink.lost(receipts)  # its parts are kept


def test_a_slide_whose_aggregator_fails_has_its_other_vectors(tmp_path):
    image = make_image(height=100, width=100)
    sink = chain_sink(tmp_path, Chain(slide="refuses_slides_of_one"), image=image, plan=make_plan(image))
    sink.finish(write_all(sink))
    _, region, slide = stored(sink)
    assert np.isfinite(region["handcrafted"]).all()
    assert np.isnan(slide["handcrafted"]).all()
    assert int(slide["handcrafted_status"]) == TileStatus.FAILED
    assert slide["handcrafted_status"].attrs["failed"] == "bag: got 1 row, expected 2"


@pytest.mark.parametrize("slide", [None, "greatest"])
@pytest.mark.parametrize("region", [None, "corner_weighted"])
def test_no_tile_is_a_store_with_a_status(tmp_path, region, slide):
    image = make_image()
    sink = chain_sink(tmp_path, Chain(region=region, slide=slide), image=image, plan=make_plan(image, rows=0))
    sink.finish([])
    tile, regions, vectors = stored(sink)
    assert (tile.sizes["tile"], regions.sizes["region"]) == (0, 0)
    assert np.isnan(vectors["handcrafted"]).all()
    assert int(vectors["handcrafted_status"]) == TileStatus.EMPTY


def test_the_store_does_not_depend_on_the_order_of_work(tmp_path):
    one, two = (chain_sink(tmp_path / name) for name in ("one", "two"))
    one.finish(write_all(one, damaged=[5]))
    two = pickle.loads(pickle.dumps(two))
    two.finish(reversed(write_all(two, damaged=[5], order=lambda n: np.random.default_rng(0).permutation(n))))
    assert tree_bytes(one.root) == tree_bytes(two.root)


def test_cells_that_were_moved_inside_stay_in_their_place(tmp_path):
    image = make_image(height=150, width=500)
    sink = chain_sink(tmp_path, image=image, plan=make_plan(image, edge="shift"))
    sink.finish(write_all(sink))
    _, region, _ = stored(sink)
    last_row = region["y"].values == 128
    assert last_row.any()
    np.testing.assert_array_equal(region["handcrafted"].values[last_row][:, 2], region["n"].values[last_row])


def test_an_encoder_with_the_name_of_anothers_variable_is_refused(tmp_path):
    pair = (("uni", ("a",)), ("uni_mean", ("a",)))
    with pytest.raises(ConfigError, match="encoder `uni_mean`: got the name of a variable of `uni`"):
        make_sink(tmp_path, encoders=pair)
