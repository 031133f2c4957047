"""Stores of tokens of several sizes in everything that reads stores: each works on them, or says why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr
from pyarrow import parquet
from typer.testing import CliRunner

import tilestream as ts
from tests.pipelines.conftest import Embed, Run, run_embed_command
from tilestream.cli import app
from tilestream.errors import ConfigError
from tilestream.pipelines.exchange import exchange_config, run_exchange
from tilestream.pipelines.train_bags import TileBags

BUDGET = 40
CUT = ("--tile", 32, "--where", "all", "--cluster", "threads:2")


def walk(image: Path, out: Path) -> Run:
    """A walk, whose stores hold opened tokens too."""
    found = run_embed_command(image, "--budget", BUDGET, "--progressive", *CUT, out=out)
    assert found.exit_code == 0, found.stderr
    return found


@pytest.fixture(scope="module")
def run(four_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return walk(four_images / "slide1.svs", tmp_path_factory.mktemp("slide") / "out")


@pytest.fixture(scope="module")
def scene(four_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return walk(four_images / "scene1.tif", tmp_path_factory.mktemp("scene") / "out")


def tiles(run: Run, key: str) -> xr.Dataset:
    return run.tree(key)["tile"].to_dataset()


def invoke(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    return result.exit_code, result.stdout + result.stderr


def test_a_cohort_knows_the_size_of_each_tile(run: Run) -> None:
    cohort = ts.open_cohort(run.out).sel(slide="slide1.svs")
    tile = tiles(run, "slide1.svs")
    for name in ("x", "y", "size", "level", "relevance", "opened", "handcrafted"):
        np.testing.assert_array_equal(cohort[name].values, tile[name].values)
    # a box takes the tiles whose centres lie in it, a point all that hold it: an opened one and its finer ones
    size = tile["size"].values
    centre_y, centre_x = tile.y.values + size / 2, tile.x.values + size / 2
    box = ts.open_cohort(run.out).sel(slide="slide1.svs", y=slice(0, 300), x=slice(100, 400))
    inside = (centre_y < 300) & (centre_x >= 100) & (centre_x < 400)
    assert 0 < inside.sum() < len(inside)
    np.testing.assert_array_equal(box.y.values, tile.y.values[inside])
    point = ts.open_cohort(run.out).sel(slide="slide1.svs", y=310, x=333)
    holds = (
        (tile.y.values <= 310) & (tile.y.values + size > 310) & (tile.x.values <= 333) & (tile.x.values + size > 333)
    )
    np.testing.assert_array_equal(point["size"].values, size[holds])
    assert (tile.opened.values[holds] == 0).sum() == 1


def test_bags_hold_leaves(run: Run) -> None:
    bags, tile = TileBags(dataset=ts.open_cohort(run.out), encoder="handcrafted"), tiles(run, "slide1.svs")
    leaf = (tile.handcrafted_status.values == 0) & (tile.opened.values == 0)
    assert bags.size(0) == leaf.sum() < len(leaf)
    np.testing.assert_array_equal(bags.read(0), tile.handcrafted.values[leaf])


def test_tiles_and_tokens_are_two_feature_sets(four_images: Path, run: Run, embed: Embed) -> None:
    mixed = embed(four_images / "slide1.svs", *CUT)
    again = run_embed_command(
        four_images / "slide1.svs", "--budget", BUDGET, *CUT, "--tile", 64, out=mixed.out / "less"
    )
    assert again.exit_code == 0
    with pytest.raises(ConfigError, match="coarser under a budget"):
        ts.open_cohort(mixed.out)


def export(run: Run, to: str, out: Path) -> dict[str, object]:
    config = exchange_config(out=str(out), to=to)
    return {row.path: row for row in run_exchange([str(run.out)], config).rows}


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_folders_of_one_size_refuse_them(run: Run, to: str, tmp_path: Path) -> None:
    for row in export(run, to, tmp_path).values():
        assert row.status == "failed"
        assert "tiles of several sizes" in row.reason
        assert "--to parquet" in row.reason


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_the_best_tiles_of_one_level_are_tiles_like_others(
    four_images: Path, embed: Embed, to: str, tmp_path: Path
) -> None:
    best = embed(four_images / "slide1.svs", "--budget", 7, "--levels", 0, *CUT)
    assert export(best, to, tmp_path / "exported")["slide1.svs"].status == "done"
    (patches,) = (tmp_path / "exported").rglob("patches/*.h5")
    with h5py.File(patches) as file:
        xy = file["coords"][:]
    tile = tiles(best, "slide1.svs")
    np.testing.assert_array_equal(xy, np.stack([tile.x.values, tile.y.values], 1))
    assert len(xy) == 7
    assert set(tile["size"].values) == {32}
    assert ts.open_cohort(best.out)["size"].dims == ("slide",)


def test_parquet_has_sizes_and_what_was_opened(run: Run, tmp_path: Path) -> None:
    assert export(run, "parquet", tmp_path)["slide1.svs"].status == "done"
    table, tile = parquet.read_table(tmp_path / "slide1.svs.tiles.parquet").to_pydict(), tiles(run, "slide1.svs")
    np.testing.assert_array_equal(table["size"], tile["size"].values)
    np.testing.assert_array_equal(table["opened"], tile.opened.values > 0)
    np.testing.assert_array_equal(np.array(table["relevance"], np.float32), tile.relevance.values)


def test_geoparquet_has_squares_of_each_size(scene: Run, tmp_path: Path) -> None:
    assert export(scene, "geoparquet", tmp_path)["scene1.tif"].status == "done"
    table, tile = parquet.read_table(tmp_path / "scene1.tif.geo.parquet").to_pydict(), tiles(scene, "scene1.tif")
    affine = scene.tree("scene1.tif").attrs["image"]["affine"]
    areas = shapely.area(shapely.from_wkb(table["geometry"]))
    np.testing.assert_allclose(areas, tile["size"].values ** 2 * abs(affine[0] * affine[4]), rtol=1e-9)
    centres = shapely.get_coordinates(shapely.centroid(shapely.from_wkb(table["geometry"])))
    np.testing.assert_allclose(centres, np.stack([tile.crs_x.values, tile.crs_y.values], 1), rtol=1e-9)


def test_objects_of_qupath_are_leaves(run: Run, tmp_path: Path) -> None:
    assert export(run, "geojson", tmp_path)["slide1.svs"].status == "done"
    features = json.loads((tmp_path / "slide1.svs.tiles.geojson").read_text())["features"]
    tile = tiles(run, "slide1.svs")
    leaf = tile.opened.values == 0
    boxes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    np.testing.assert_allclose(shapely.area(boxes), tile["size"].values[leaf] ** 2)
    assert shapely.union_all(boxes).area == pytest.approx(sum(shapely.area(boxes)))
    assert features[0]["properties"]["measurements"]["relevance"] == pytest.approx(tile.relevance.values[leaf][0], 1e-5)


def test_anndata_holds_leaves_with_their_sizes(run: Run, tmp_path: Path) -> None:
    row = export(run, "anndata", tmp_path)["slide1.svs"]
    assert row.status == "done"
    assert any("in whose place finer ones were read" in note for note in row.notes)
    tile = tiles(run, "slide1.svs")
    leaf = (tile.opened.values == 0) & (tile.handcrafted_status.values == 0)
    with h5py.File(tmp_path / "slide1.svs.handcrafted.h5ad") as file:
        np.testing.assert_array_equal(file["obs/size"][:], tile["size"].values[leaf])
        np.testing.assert_array_equal(file["X"][:], tile.handcrafted.values[leaf])
        centres = np.stack([tile.x.values, tile.y.values], 1) + tile["size"].values[:, None] / 2
        np.testing.assert_allclose(file["obsm/spatial"][:], centres[leaf])


def test_spatialdata_has_squares_of_each_size(run: Run, tmp_path: Path) -> None:
    assert export(run, "spatialdata", tmp_path)["slide1.svs"].status == "done"
    store = tmp_path / "slide1.svs.spatialdata.zarr"
    assert zarr.open_group(store, mode="r").attrs["tile_spec"] == {}
    table = parquet.read_table(next(store.rglob("*.parquet"))).to_pydict()
    areas = shapely.area(shapely.from_wkb(table["geometry"]))
    np.testing.assert_allclose(areas, tiles(run, "slide1.svs")["size"].values ** 2)


def test_what_needs_a_grid_refuses_them(run: Run, tmp_path: Path) -> None:
    code, said = invoke("regions", run.out, "--out", tmp_path / "regions", "--region-stage", "mean")
    assert code == 3, said
    assert "tiles that a budget has chosen" in said


def test_an_aggregator_gets_leaves(four_images: Path, run: Run, embed: Embed) -> None:
    less = embed(
        four_images / "slide1.svs",
        "--budget",
        BUDGET,
        "--progressive",
        *CUT,
        "--slide-stage",
        "tests.pipelines.bags:summed",
    )
    assert less.exit_code == 0, less.stderr
    tile, slide = tiles(less, "slide1.svs"), less.tree("slide1.svs")["slide"]
    leaf = (tile.opened.values == 0) & (tile.handcrafted_status.values == 0)
    np.testing.assert_allclose(slide.handcrafted.values, tile.handcrafted.values[leaf].sum(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(slide.handcrafted_mean.values, run.tree("slide1.svs")["slide"].handcrafted.values)
