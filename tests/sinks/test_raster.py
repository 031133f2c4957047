import json
import os
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.sinks.build import make_image, make_plan, make_results, make_sink, make_units, tree_bytes, write_all
from tilestream.errors import ConfigError, OutputError
from tilestream.sinks.ome import CellGrid
from tilestream.sinks.raster import build_raster
from tilestream.types import Receipt, Shape


def _features(folder, *, image=None, plan=None, **results):
    sink = make_sink(folder, image=image, plan=plan or (image and make_plan(image)))
    sink.finish(write_all(sink, **results))
    return sink


def _ome(root):
    return json.loads((root / "zarr.json").read_bytes())["attributes"]["ome"]


def test_cells_are_where_their_tiles_are(tmp_path):
    sink = _features(tmp_path, damaged=[3])
    root = tmp_path / "slide.entropy.zarr"
    build_raster(sink.root, root)
    with xr.open_datatree(root, engine="zarr") as tree, xr.open_datatree(sink.root, engine="zarr") as features:
        image, tile = tree["0"]["image"].load(), features["tile"].ds.load()
        assert image.dims == ("c", "y", "x")
        assert image.shape == (1, 16, 24)
        for row in range(tile.sizes["tile"]):
            centre_um = {axis: (float(tile[axis][row]) + 31.5) * 0.5 for axis in "yx"}
            np.testing.assert_array_equal(
                image.sel(centre_um, method="nearest", tolerance=1e-6)[0], tile["entropy"][row]
            )
        assert int(np.isnan(image).sum()) == 1


def test_unwanted_cells_are_nan(tmp_path):
    image = make_image()
    plan = make_plan(image)
    units = make_units(plan, wanted=lambda corners: corners[:, 1] < 640)
    sink = make_sink(tmp_path, image=image, plan=make_plan(image, rows=sum(len(u.tile_yx) for u in units)))
    sink.finish(Receipt(key=u.key, recipe="r", outputs=sink.write(u, make_results(u)), tiles=1) for u in units)
    build_raster(sink.root, tmp_path / "r.zarr")
    stored = zarr.open_array(tmp_path / "r.zarr" / "0" / "image", mode="r")[0]
    assert np.isfinite(stored[:, :10]).all()
    assert np.isnan(stored[:, 10:]).all()


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(3, 2)])
def test_every_level_says_the_same_place(tmp_path, ratio):
    image = make_image(height=4 * 2100, width=4 * 1500)
    plan = make_plan(image, tile_px=8, super_tile_px=256, region_px=256, ratio=ratio)
    sink = _features(tmp_path, image=image, plan=plan)
    build_raster(sink.root, tmp_path / "r.zarr")
    ome = _ome(tmp_path / "r.zarr")["multiscales"][0]
    assert ome["axes"][1] == {"name": "y", "type": "space", "unit": "micrometer"}
    assert len(ome["datasets"]) == 4 if ratio == 1 else 3
    cell_um = 8 * float(ratio) * 0.5
    for number, dataset in enumerate(ome["datasets"]):
        scale, translation = (entry[entry["type"]] for entry in dataset["coordinateTransformations"])
        assert scale == [1.0, cell_um * 2**number, cell_um * 2**number]
        # the outer corner of the first cell is half a source pixel before the centre of the source's first pixel
        np.testing.assert_allclose(np.array(translation[1:]) - np.array(scale[1:]) / 2, -0.25)
        stored = zarr.open_array(tmp_path / "r.zarr" / dataset["path"], mode="r")
        assert stored.shape[1:] == tuple(-(-n // 2**number) for n in plan.grid.shape.yx)
    assert max(stored.shape) <= 256


def test_coarse_cells_are_means_of_what_exists(tmp_path):
    image = make_image(height=257 * 8, width=257 * 8)
    sink = _features(tmp_path, image=image, plan=make_plan(image, tile_px=8), damaged=[0, 1, 257])
    build_raster(sink.root, tmp_path / "r.zarr")
    fine, coarse = (zarr.open_array(tmp_path / "r.zarr" / level / "image", mode="r")[0] for level in "01")
    assert fine.shape == (257, 257)
    assert coarse.shape == (129, 129)
    for y, x in [(0, 0), (5, 7), (128, 3), (128, 128)]:
        four = fine[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert coarse[y, x] == np.nanmean(four.astype(np.float64)).astype(np.float32)


def test_a_scene_is_placed_in_its_crs(tmp_path):
    image = make_image(crs="EPSG:32633", affine=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6), mpp=10e6)
    sink = _features(tmp_path, image=image, plan=make_plan(image, origin_yx=(-24, -40)))
    root = tmp_path / "r.zarr"
    build_raster(sink.root, root)
    attributes = json.loads((root / "zarr.json").read_bytes())["attributes"]
    assert attributes["proj:code"] == "EPSG:32633"
    assert attributes["spatial:transform"] == [640.0, 0.0, 5e5 - 400, 0.0, -640.0, 5e6 + 240]
    assert attributes["spatial:shape"] == [16, 25]
    assert {c["name"] for c in attributes["zarr_conventions"]} == {"multiscales", "spatial:", "proj:"}
    scale, translation = (
        e[e["type"]] for e in _ome(root)["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    )
    assert scale == [1.0, 640.0, 640.0]
    assert translation == [0.0, (-24 + 31.5) * 10, (-40 + 31.5) * 10]
    assert _ome(root)["multiscales"][0]["axes"][2]["unit"] == "meter"
    with xr.open_datatree(root, engine="zarr") as tree:
        level = tree["0"].ds
        assert float(level["x"][0]) == 5e5 - 400 + 320
        assert float(level["y"][0]) == 5e6 + 240 - 320
        assert level["spatial_ref"].attrs["GeoTransform"] == "499600.0 640.0 0.0 5000240.0 0.0 -640.0"


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_rioxarray_finds_crs_and_transform(tmp_path):
    pytest.importorskip("rioxarray")
    image = make_image(crs="EPSG:32633", affine=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6), mpp=None)
    sink = _features(tmp_path, image=image)
    build_raster(sink.root, tmp_path / "r.zarr")
    with xr.open_dataset(tmp_path / "r.zarr", group="0", engine="zarr", decode_coords="all") as level:
        assert level.rio.crs.to_epsg() == 32633
        assert tuple(level.rio.transform())[:6] == (640.0, 0.0, 5e5, 0.0, -640.0, 5e6)


def test_a_rotated_scene_has_no_axes_of_its_own(tmp_path):
    image = make_image(crs="EPSG:4326", affine=(0.1, 0.01, 5.0, -0.01, -0.1, 50.0), mpp=None)
    sink = _features(tmp_path, image=image)
    build_raster(sink.root, tmp_path / "r.zarr")
    assert not (tmp_path / "r.zarr" / "0" / "x").exists()
    scale = _ome(tmp_path / "r.zarr")["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[1:] == pytest.approx([64 * np.hypot(0.01, 0.1)] * 2)
    assert "unit" not in _ome(tmp_path / "r.zarr")["multiscales"][0]["axes"][1]


def test_without_a_pixel_size_there_is_no_unit(tmp_path):
    sink = _features(tmp_path, image=make_image(mpp=None))
    build_raster(sink.root, tmp_path / "r.zarr")
    ome = _ome(tmp_path / "r.zarr")["multiscales"][0]
    assert ome["axes"][1] == {"name": "y", "type": "space"}
    assert ome["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 64.0, 64.0]


def test_one_output_of_an_encoder(tmp_path):
    sink = _features(tmp_path)
    build_raster(sink.root, tmp_path / "r.zarr", variable="handcrafted", output="µ")
    with xr.open_datatree(sink.root, engine="zarr") as features:
        wanted = features["tile"]["handcrafted"].values[:, 2]
    stored = zarr.open_array(tmp_path / "r.zarr" / "0" / "image", mode="r")[...]
    np.testing.assert_array_equal(np.sort(stored.ravel()), np.sort(wanted))
    with pytest.raises(ConfigError, match="entropy"):
        build_raster(sink.root, tmp_path / "s.zarr", variable="handcrafted", output="none")
    with pytest.raises(ConfigError, match="variable"):
        build_raster(sink.root, tmp_path / "s.zarr", variable="none")


def test_same_bytes_again_and_nothing_done_twice(tmp_path, monkeypatch):
    sink = _features(tmp_path)
    build_raster(sink.root, tmp_path / "one.zarr")
    build_raster(sink.root, tmp_path / "two.zarr")
    assert tree_bytes(tmp_path / "one.zarr") == tree_bytes(tmp_path / "two.zarr")
    monkeypatch.setattr(os, "fsync", None)
    build_raster(sink.root, tmp_path / "one.zarr")


def test_what_is_there_is_replaced_only_when_told(tmp_path):
    one, two = _features(tmp_path / "one"), _features(tmp_path / "two", damaged=[2])
    root = tmp_path / "r.zarr"
    build_raster(one.root, root)
    before = tree_bytes(root)
    with pytest.raises(OutputError, match="another run"):
        build_raster(two.root, root)
    assert tree_bytes(root) == before
    build_raster(two.root, root, replace=True)
    assert tree_bytes(root) != before
    with pytest.raises(OutputError, match="no feature store"):
        build_raster(tmp_path / "nothing", root)


@pytest.mark.parametrize(
    ("crs", "unit"),
    [
        ("EPSG:32633", "meter"),
        ("EPSG:4326", None),
        ('PROJCRS["x",BASEGEOGCRS["y"],CS[Cartesian,2],LENGTHUNIT["metre",1]]', "meter"),
        ('PROJCRS["x",CS[Cartesian,2],LENGTHUNIT["US survey foot",0.304800609601219]]', None),
        ('GEOGCRS["x",ANGLEUNIT["degree",0.0174532925199433]]', None),
    ],
)
def test_units_are_only_named_when_known(crs, unit):
    affine = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
    grid = CellGrid(shape=Shape(y=1, x=1), size_yx=(1.0, 1.0), corner_yx=(0.0, 0.0), crs=crs, affine=affine)
    assert grid.unit == unit
