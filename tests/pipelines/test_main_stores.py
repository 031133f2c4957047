"""The stores of the main job over real images, opened by plain xarray and recomputed from the pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from tests.pipelines.conftest import Run
from tilestream.pipelines.encoder import choose_encoder
from tilestream.plan import TilePlan, plan_tiles
from tilestream.plan.levels import target_mpp
from tilestream.pyramid import open_pyramid
from tilestream.types import Box, TileStatus

SLIDES = ("CMU-1-Small-Region.svs", "dicom-cmu-1-small-region", "OS-2-ndpi.ome.tif", "test3-DAPI-2-387.ndpi")
UNKNOWN = ("labelled-tiles/tcga-red-pen.png", "exemplar-001.crop.image.ome.zarr")
SCENES = ("cogeo.tif", "cog_nodata.tif", "cog_world.tif", "S2A_29RKH_20200219_0_L2A", "pix4d_alpha_nodata.tif")
DAMAGED = "corrupt.tif"
EMPTY = ("labelled-tiles/no-tissue.png", "total-pages-zero.tif")
SOME = (*SLIDES, *UNKNOWN, *SCENES, DAMAGED, *EMPTY)
NATIVE = ("CMU-1-Small-Region.svs", "cogeo.tif", "labelled-tiles/tcga-red-pen.png")
"""8-bit images that are planned at level 0, whose tiles can be read as they are."""


def place(shared_data: Path, name: str) -> Path:
    """Return where an input lies."""
    folders = [shared_data / folder / name for folder in ("slides", "satellite", "zarr", "broken")]
    return next(path for path in folders if path.exists())


def plan_of(path: Path) -> TilePlan:
    """Return the plan that the encoder's contract leads to."""
    pyramid = open_pyramid(path)
    contract = choose_encoder("handcrafted", {}, pyramid.info).contract
    return plan_tiles(pyramid, tile_px=contract.px, mpp=target_mpp(contract, pyramid.info))


@pytest.mark.parametrize("name", SOME)
def test_groups_variables_and_coordinates(everything: Run, name: str) -> None:
    tree = everything.tree(name)
    is_scene = name in (*SCENES, DAMAGED)
    assert set(tree.children) == {"tile", "region", "slide"}
    tile, region, slide = (tree[group] for group in ("tile", "region", "slide"))
    scalars = {"entropy", "level", "size", "status", "tissue", "valid"}
    assert set(tile.data_vars) == {*scalars, "handcrafted", "handcrafted_status"}
    assert set(tile.coords) == {"x", "y", "feature_handcrafted"} | ({"crs_x", "crs_y"} if is_scene else set())
    pooled = {"handcrafted", "handcrafted_std", "handcrafted_n_ok", "n", "n_ok"}
    assert set(region.data_vars) == {*pooled, "size"}
    assert set(slide.data_vars) == pooled
    assert tile.handcrafted.dims == ("tile", "feature_handcrafted")
    assert tile.handcrafted.dtype == np.float32
    assert slide.handcrafted.dims == ("feature_handcrafted",)
    assert all(values.dims == ("tile",) for key, values in tile.data_vars.items() if key != "handcrafted")
    for values in (tile.x, tile.y, tile["size"], region.x, region.y, region["size"]):
        assert values.attrs["units"] == "px"
        assert "level 0" in values.attrs["long_name"]
    for values in (tile.status, tile.handcrafted_status):
        assert values.attrs["flag_meanings"] == "ok damaged empty failed"
        assert values.attrs["flag_values"] == [int(status) for status in TileStatus]


@pytest.mark.parametrize("name", SOME)
def test_rows_are_in_the_order_of_the_plan(everything: Run, shared_data: Path, name: str) -> None:
    tree, plan = everything.tree(name), plan_of(place(shared_data, name))
    tile = tree["tile"]
    units = sorted(plan.start(), key=lambda unit: unit.first_row)
    corners = np.concatenate([np.zeros((0, 2), np.int64), *(unit.tile_yx for unit in units)])
    assert len(tile.x) == len(plan) == len(corners) == everything.rows[name]["tiles"]
    scale_y, scale_x = plan.level.scale_yx
    np.testing.assert_allclose(tile.y.values, corners[:, 0] * scale_y, rtol=1e-12)
    np.testing.assert_allclose(tile.x.values, corners[:, 1] * scale_x, rtol=1e-12)
    np.testing.assert_allclose(tile["size"].values, plan.grid.tile_px * np.sqrt(scale_y * scale_x), rtol=1e-3)
    assert (tile["level"].values == plan.level.stored).all()  # `.level` is the depth of the node
    assert tree.attrs["plan"]["digest"] == plan.digest
    height, width = open_pyramid(place(shared_data, name)).levels[0].shape.yx
    assert ((tile.y.values >= 0) & (tile.y.values < height) & (tile.x.values >= 0) & (tile.x.values < width)).all()


@pytest.mark.parametrize("name", SOME)
def test_status_says_which_rows_hold_values(everything: Run, name: str) -> None:
    tile = everything.tree(name)["tile"]
    ok = tile.status.values == TileStatus.OK
    assert np.isfinite(tile.handcrafted.values[ok]).all()
    assert np.isnan(tile.handcrafted.values[~ok]).all()
    assert np.isfinite(tile.entropy.values[ok]).all()
    assert np.isnan(tile.entropy.values[~ok]).all()
    assert ((tile.valid.values >= 0) & (tile.valid.values <= 1)).all()
    assert (tile.valid.values[ok] > 0).all()
    assert (tile.tissue.values >= np.float32(0.1)).all(), "the least share of a chosen tile"
    row = everything.rows[name]
    for status, count in ((TileStatus.DAMAGED, "tiles_damaged"), (TileStatus.EMPTY, "tiles_empty")):
        assert (tile.status.values == status).sum() == row[count]
    assert ok.all() == (name != DAMAGED)


@pytest.mark.parametrize("name", SOME)
def test_regions_and_slide_are_pooled_from_ok_rows(everything: Run, name: str) -> None:
    tree = everything.tree(name)
    tile, region, slide, plan = tree["tile"], tree["region"], tree["slide"], tree.attrs["plan"]
    vectors = tile.handcrafted.values.astype(np.float64)
    ok = tile.status.values == TileStatus.OK
    scale = np.array(plan["scale_yx"])
    cell = np.rint(np.stack([tile.y.values, tile.x.values], axis=1) / scale).astype(int) // plan["region_px"]
    corners = [tuple(yx) for yx in cell]
    found = np.rint(np.stack([region.y.values, region.x.values], axis=1) / scale).astype(int) // plan["region_px"]
    assert len(region.x) == len(set(corners))
    assert list(dict.fromkeys(corners)) == [tuple(yx) for yx in found], "in the order of their first tile"
    for number, corner in enumerate(found):
        inside = (cell == corner).all(axis=1)
        check_pool(region.isel(region=number), vectors[inside & ok], n=int(inside.sum()))
    check_pool(slide, vectors[ok], n=len(vectors))
    assert int(slide.n) == int(region.n.sum())


def check_pool(pooled: xr.Dataset | xr.DataTree, vectors: np.ndarray, *, n: int) -> None:
    assert int(pooled.n) == n
    assert int(pooled.n_ok) == int(pooled.handcrafted_n_ok) == len(vectors)
    if len(vectors):
        np.testing.assert_allclose(pooled.handcrafted.values, vectors.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(pooled.handcrafted_std.values, vectors.std(axis=0), rtol=1e-4, atol=1e-5)
    else:
        assert np.isnan(pooled.handcrafted.values).all()


@pytest.mark.parametrize("name", SOME)
def test_attributes_hold_the_recipe_and_no_place_or_time(everything: Run, shared_data: Path, name: str) -> None:
    attrs, info = everything.tree(name).attrs, open_pyramid(place(shared_data, name)).info
    assert attrs["crs"] == attrs["image"]["crs"] == info.crs
    assert attrs["image"]["fingerprint"] == attrs["recipe"]["image"]["fingerprint"] == info.fingerprint
    assert set(attrs["recipe"]["stages"]) == {"entropy", "handcrafted"}
    rules = "valid-1-" if info.crs else "tissue-1-fluorescence-" if info.dtype != "u1" else "tissue-1-"
    assert attrs["plan"]["where"].startswith(rules)
    assert attrs["recipe"]["plan"]["where"] == "tissue"
    if info.mpp is None:
        assert attrs["mpp"] is None
    else:
        assert attrs["mpp"] == pytest.approx(info.mpp * np.sqrt(np.prod(attrs["plan"]["scale_yx"])), rel=1e-6)
        assert attrs["mpp"] == pytest.approx(0.5, rel=0.01)
    text = json.dumps(attrs)
    for word in (str(shared_data), str(everything.out), "batch", "threads", "seconds", "started"):
        assert word not in text


@pytest.mark.parametrize("name", [*SCENES, DAMAGED])
def test_scenes_have_the_place_of_each_tile(everything: Run, shared_data: Path, name: str) -> None:
    tile = everything.tree(name)["tile"]
    path = place(shared_data, name)
    with rasterio.open(path / "B02.tif" if path.is_dir() else path) as scene:
        transform, crs = scene.transform, f"EPSG:{scene.crs.to_epsg()}"
    height, width = tile["size"].attrs["size_yx"]
    assert transform.b == transform.d == 0
    x = transform.c + transform.a * (tile.x.values + width / 2)
    y = transform.f + transform.e * (tile.y.values + height / 2)
    np.testing.assert_allclose(tile.crs_x.values, x, rtol=1e-12)
    np.testing.assert_allclose(tile.crs_y.values, y, rtol=1e-12)
    assert tile.crs_x.attrs["crs"] == tile.crs_y.attrs["crs"] == crs


@pytest.mark.parametrize("name", NATIVE)
def test_entropy_and_means_are_those_of_the_pixels(everything: Run, shared_data: Path, name: str) -> None:
    """Entropy of 32 bins in NumPy, mean over the channels; and the mean of each channel."""
    tree, pyramid = everything.tree(name), open_pyramid(place(shared_data, name))
    tile = tree["tile"]
    assert tree.attrs["plan"]["ratio_yx"] == ["1", "1"]
    assert tree.attrs["plan"]["level"] == 0
    for row in range(0, len(tile.x), 5):
        box = Box(y=int(tile.y[row]), x=int(tile.x[row]), height=256, width=256)
        pixels = pyramid.read(box.intersect(pyramid.levels[0].box))
        bits = []
        for channel in pixels:
            share = np.bincount(channel.ravel() >> 3, minlength=32) / channel.size
            bits.append(-(share[share > 0] * np.log2(share[share > 0])).sum() / 5)
        assert float(tile.entropy[row]) == pytest.approx(np.mean(bits), abs=1e-6)
        assert float(tile.valid[row]) == pytest.approx(pixels[0].size / 256**2, abs=1e-6)
        for number, channel in enumerate("RGB"):
            mean = float(tile.handcrafted.sel(feature_handcrafted=f"{channel}_mean")[row])
            assert mean == pytest.approx(pixels[number].mean() / 255, abs=1e-6)


@pytest.mark.parametrize("name", SOME)
def test_the_entropy_raster_lies_on_the_source(everything: Run, name: str) -> None:
    tree = everything.tree(name)
    tile, plan = tree["tile"], tree.attrs["plan"]
    with xr.open_datatree(everything.out / f"{name}.entropy.zarr", engine="zarr") as opened:
        raster = opened.load()
    cells = raster["0"].image.values
    assert cells.shape == (1, *plan["grid_yx"])
    step = plan["step_px"] * np.array(plan["scale_yx"])
    iy, ix = (np.rint(tile[axis].values / step["yx".index(axis)]).astype(int) for axis in "yx")
    expected = np.full(plan["grid_yx"], np.nan, np.float32)
    expected[iy, ix] = tile.entropy.values
    np.testing.assert_array_equal(cells[0], expected)

    (multiscale,) = raster.attrs["ome"]["multiscales"]
    transforms = multiscale["datasets"][0]["coordinateTransformations"]
    scale, shift = (np.array(t[t["type"]]) for t in transforms)
    mpp, crs = tree.attrs["image"]["mpp_yx"], tree.attrs["crs"]
    if crs is not None:
        a, _, c, _, e, f = tree.attrs["image"]["affine"]
        pixel = np.abs([e, a])
        assert raster.attrs["proj:code"] == crs
        wide, none, left, none_too, high, top = raster.attrs["spatial:transform"]
        np.testing.assert_allclose([wide, left, high, top], [a * step[1], c, e * step[0], f], rtol=1e-12)
        assert none == none_too == 0
        np.testing.assert_allclose(raster["0"].x.values, c + a * step[1] * (np.arange(cells.shape[2]) + 0.5))
        np.testing.assert_allclose(raster["0"].y.values, f + e * step[0] * (np.arange(cells.shape[1]) + 0.5))
    else:
        pixel = np.array([1.0, 1.0] if mpp is None else mpp)
        unit = None if mpp is None else "micrometer"
        assert [axis.get("unit") for axis in multiscale["axes"]] == [None, unit, unit]
    # OME places the centre of a cell; that of level 0's first pixel is the origin
    np.testing.assert_allclose(scale[1:], step * pixel, rtol=1e-9)
    np.testing.assert_allclose(shift[1:], (step - 1) / 2 * pixel, rtol=1e-9)


def test_two_files_of_one_slide_agree(everything: Run) -> None:
    """The SVS and the DICOM that was made from it, whose header lies about its colours."""
    one, other = (by_place(everything.tree(name)["tile"]) for name in SLIDES[:2])
    shared = set(one) & set(other)
    assert len(shared) >= 55  # the DICOM was compressed once more, so that a tile at the rim may differ
    assert max(np.abs(one[yx] - other[yx]).max() for yx in shared) < 4 / 255


def by_place(tile: xr.DataTree) -> dict[tuple[float, float], np.ndarray]:
    """Return the means of the channels of each tile by its corner."""
    names = [f"{channel}_mean" for channel in "RGB"]
    means = tile.handcrafted.sel(feature_handcrafted=names).values
    return dict(zip(zip(tile.y.values.tolist(), tile.x.values.tolist(), strict=True), means, strict=True))


def test_the_outline_is_what_was_planned(everything: Run) -> None:
    for name in ("CMU-1-Small-Region.svs", "labelled-tiles/no-tissue.png"):
        document = json.loads((everything.out / f"{name}.tissue.geojson").read_text())
        assert document["type"] == "FeatureCollection"
        assert bool(document["features"]) == (everything.rows[name]["tiles"] > 0)
        for feature in document["features"]:
            assert feature["properties"]["objectType"] == "annotation"
