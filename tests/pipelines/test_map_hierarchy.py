"""Hierarchies as one call on an array."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import tilestream as ts
from tests.models.gridstages import corner_weighted, greatest
from tests.pipelines.faults.faulty import mean
from tilestream.cluster.client import open_client
from tilestream.errors import ConfigError, StageError

STAGES = "tests.models.gridstages"
TILE = "tests.pipelines.faults.faulty:mean"


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 255, (200, 330, 3), np.uint8)


def planned(image: np.ndarray, **options):
    pyramid = ts.open_pyramid(image)
    given = {"tile_px": 16, "where": "all", "super_tile_px": 128, "region_px": 64, **options}
    return pyramid, ts.plan_tiles(pyramid, **given)


def test_a_store_of_tiles_regions_and_slide(image: np.ndarray, tmp_path: Path) -> None:
    pyramid, plan = planned(image)
    chain = ts.Hierarchy.of(TILE, region=f"{STAGES}:corner_weighted", slide=f"{STAGES}:greatest", region_px=64)
    store = tmp_path / "a.features.zarr"
    with open_client("threads:2") as client:
        report = ts.map_tiles(pyramid, plan, chain, store, client=client)
        again = ts.map_tiles(pyramid, plan, chain, store, client=client)
        other = ts.Hierarchy.of(TILE, region=f"{STAGES}:nan_where_damaged", region_px=64)
        with pytest.raises(OSError, match="of the same recipe"):
            ts.map_tiles(pyramid, plan, other, store, client=client)
    assert (report.tiles, report.reused) == (len(plan), 0)
    assert again.reused == len(again.receipts) == len(report.receipts)
    padded = np.zeros((256, 384, 3), np.uint8)
    padded[:200, :330] = image
    with xr.open_datatree(store, engine="zarr") as tree:
        region, slide = tree["region"].ds.load(), tree["slide"].ds.load()
        assert tree["tile"].sizes["tile"] == 13 * 21
    assert region.sizes["region"] == 4 * 6
    for row in range(region.sizes["region"]):
        top, left = int(region["y"][row]), int(region["x"][row])
        cut = padded[top : top + 64, left : left + 64].reshape(4, 16, 4, 16, 3).transpose(0, 2, 4, 1, 3)
        y, x = np.indices((4, 4)) * 16
        mask = (top + y < 200) & (left + x < 330)
        grid = np.where(mask[..., None], mean(cut.reshape(16, 3, 16, 16)).reshape(4, 4, 3), 0).transpose(2, 0, 1)
        np.testing.assert_array_equal(region["mean"][row], corner_weighted(grid[None], mask[None])[0])
    bag = region["mean"].values[None]
    np.testing.assert_array_equal(slide["mean"], greatest(bag, np.ones(bag.shape[:2], bool))[0])


def test_what_does_not_fit_is_refused(image: np.ndarray, tmp_path: Path) -> None:
    pyramid, plan = planned(image)
    chain = ts.Hierarchy.of(TILE, region=f"{STAGES}:Only4")
    with open_client("threads:1") as client:
        with pytest.raises(StageError, match="vectors of 3 values"):
            ts.map_tiles(pyramid, plan, chain, tmp_path / "a.features.zarr", client=client)
        with pytest.raises(ConfigError, match=r"a name that ends in \.features\.zarr"):
            ts.map_tiles(pyramid, plan, chain, tmp_path / "a.zarr", client=client)
    with pytest.raises(ConfigError, match="`sink` and `plan` of a hierarchy"):
        ts.map_tiles(pyramid, plan, chain, object())
    assert not list(tmp_path.iterdir())
