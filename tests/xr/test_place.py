"""Coordinates in the units of a CRS, and what rioxarray makes of them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import tilestream as ts
from tests.xr.test_lazy import made
from tilestream.pyramid import Pyramid
from tilestream.types import ClassBand
from tilestream.xr.coding import flags_of
from tilestream.xr.engine import TilestreamBackend as ENGINE
from tilestream.xr.place import _crs_parts
from tilestream.xr.tree import stored_level

rioxarray = pytest.importorskip("rioxarray")
rasterio = pytest.importorskip("rasterio")

# rioxarray multiplies affines with *, and reads them by a deprecated function of NumPy
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")

SCENES = ("cog_world.tif", "cog_nodata.tif", "cog_scale_epsg4326.tif", "RGB.byte.tif")


@pytest.mark.parametrize("name", SCENES)
def test_crs_transform_and_values_are_those_of_rasterio(shared_data, name):
    path = shared_data / "satellite" / name
    image = xr.open_datatree(path, engine=ENGINE, mask_and_scale=False)["0/image"]
    with rasterio.open(path) as theirs:
        assert image.rio.crs == theirs.crs
        np.testing.assert_allclose(image.rio.transform(), theirs.transform, rtol=1e-12)
        np.testing.assert_allclose(image.rio.bounds(), theirs.bounds, rtol=1e-12)
        assert image.rio.nodata == theirs.nodata
        assert image.rio.shape == theirs.shape
        x, y = theirs.xy(7, 11)
        assert image["y"].values[7] == pytest.approx(y, rel=1e-12)
        assert image["x"].values[11] == pytest.approx(x, rel=1e-12)
        window = rasterio.windows.Window(11, 7, 40, 30)
        expected = theirs.read(window=window)
    np.testing.assert_array_equal(image.isel(y=slice(7, 37), x=slice(11, 51)), expected)


def test_decoded_scenes_have_nan_and_remember_nodata(scene):
    image = xr.open_datatree(scene, engine=ENGINE)["0/image"]
    raw = xr.open_datatree(scene, engine=ENGINE, mask_and_scale=False)["0/image"]
    assert image.rio.encoded_nodata == raw.rio.nodata == 0
    expected = np.where(raw == 0, np.nan, raw * 1e-4)
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    assert np.isnan(image).any()


def test_every_level_has_its_own_transform(scene):
    tree = xr.open_datatree(scene, engine=ENGINE)
    for name, node in tree.children.items():
        image = node["image"]
        size = 10.0 * 2 ** int(name)
        assert tuple(image.rio.transform())[:6] == (size, 0, 500_000, 0, -size, 5_000_000)
        assert image["y"].attrs["units"] == "metre"
        assert image["y"].attrs["standard_name"] == "projection_y_coordinate"
        assert str(image.rio.crs) == "EPSG:32633"
        cut = image.isel(y=slice(10, None), x=slice(5, None, 2))
        assert cut.rio.transform(recalc=True).c == 500_000 + 5 * size - size / 2  # cells are two pixels wide now
        assert cut.rio.transform(recalc=True).f == 5_000_000 - 10 * size


@pytest.mark.parametrize("chunks", [None, {}])
def test_clip_and_clip_box(scene, chunks):
    image = xr.open_datatree(scene, engine=ENGINE, chunks=chunks, mask_and_scale=False)["0/image"]
    box = (502_000.0, 4_995_000.0, 504_000.0, 4_998_000.0)
    with rioxarray.open_rasterio(scene) as theirs:
        expected = theirs.rio.clip_box(*box)
        found = image.rio.clip_box(*box)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(found["y"], expected["y"])
        np.testing.assert_allclose(found.rio.transform(), expected.rio.transform())
        (west, south, east, north) = box
        ring = [(west, south), (east, south), (west, north), (west, south)]
        triangle = [{"type": "Polygon", "coordinates": [ring]}]
        np.testing.assert_array_equal(image.rio.clip(triangle), theirs.rio.clip(triangle))
    assert not image.rio.clip(triangle).tiles._subject.is_stored  # what lies outside was changed


def test_reprojection(scene):
    image = xr.open_datatree(scene, engine=ENGINE)["2/image"]
    assert image.rio.reproject("EPSG:4326").rio.crs == "EPSG:4326"


def test_bands_of_three_resolutions_open_as_one_scene(shared_data):
    tree = xr.open_datatree(shared_data / "satellite/S2A_29RKH_20200219_0_L2A", engine=ENGINE)
    image = tree["0/image"]
    assert {"blue", "green", "red", "nir"} <= set(image["c"].values)
    ndvi = (image.sel(c="nir") - image.sel(c="red")) / (image.sel(c="nir") + image.sel(c="red"))
    part = ndvi.sel(y=slice(2_750_000, 2_740_000), x=slice(250_000, 260_000))
    assert part.shape == (100, 100)
    assert -1 <= float(part.min()) <= float(part.max()) <= 1
    assert str(image.rio.crs) == "EPSG:32629"


def test_class_layers_lie_beside_the_bands(shared_data):
    path = shared_data / "satellite/S2A_29RKH_20200219_0_L2A"
    level = xr.open_datatree(path, engine=ENGINE)["1"]
    layer = ts.open_pyramid(path).classes("SCL")
    classes = level["SCL"]
    assert classes.dims == ("y", "x")
    np.testing.assert_array_equal(classes, layer.read(layer.levels[1].box)[0])
    np.testing.assert_array_equal(classes.isel(y=slice(9, 99, 11), x=3), classes.values[9:99:11, 3])
    meanings = dict(zip(classes.attrs["flag_values"], classes.attrs["flag_meanings"].split(), strict=True))
    assert meanings[4] == "vegetation"
    assert meanings[9] == "cloud_high_probability"
    assert classes.attrs["flag_values"].dtype == classes.dtype
    fresh = xr.open_datatree(path, engine=ENGINE)["1"]["SCL"]
    assert fresh.tiles.pyramid.kind == "labels"
    assert fresh.tiles._subject.is_stored
    assert set(np.unique(fresh.tiles.thumbnail(50))) <= set(np.unique(classes))
    assert str(fresh.rio.crs) == "EPSG:32629"
    clear = level["image"].where(~classes.isin([3, 8, 9, 10]))
    assert float(clear.isnull().mean()) > float(level["image"].isnull().mean())


def test_bit_fields_have_masks_and_values():
    band = ClassBand(name="QA", bits={"fill": (0, 1), "cloud": (3, 1), "confidence": (8, 2)})
    flags = flags_of(band, np.dtype("uint16"))
    assert flags["flag_masks"].tolist() == [1, 8, 768, 768, 768]
    assert flags["flag_values"].tolist() == [1, 8, 256, 512, 768]
    assert flags["flag_meanings"] == "fill cloud confidence_1 confidence_2 confidence_3"
    assert flags_of(ClassBand(name="other"), np.dtype("uint8")) == {"long_name": "other"}


def placed(**options):
    pyramid = made()
    return replace(pyramid, source=replace(pyramid.source, info=replace(pyramid.info, **options)))


def test_a_rotated_scene_keeps_its_transform_and_has_no_coordinates():
    affine = (8.0, 3.0, 500_000.0, 3.0, -8.0, 5_000_000.0)
    pyramid = placed(crs="EPSG:32633", affine=affine, modality="scene")
    image = ts.to_datatree(pyramid)["0/image"]
    assert set(image.coords) == {"c", "spatial_ref"}
    assert tuple(image.rio.transform())[:6] == affine
    assert image.tiles._subject.is_stored
    assert image.tiles.thumbnail(20).sizes["y"] <= 20
    assert image.chunk(x=30).tiles._subject.is_stored
    # a part of it cannot say where it lies: it is an image of its own
    for part in (image.isel(y=slice(3, 9)), image.isel(y=slice(None, None, -1)), image.chunk(x=30)[:, ::-1]):
        assert not part.tiles._subject.is_stored
        np.testing.assert_array_equal(part.tiles.thumbnail(200), part)


def test_control_points_are_rioxarrays():
    points = ((0.0, 0.0, 10.0, 50.0, 0.0), (90.0, 130.0, 11.0, 49.0, float("nan")))
    image = ts.to_datatree(placed(crs="EPSG:4326", gcps=points))["0/image"]
    found = image.rio.get_gcps()
    assert [(point.row, point.col, point.x, point.y) for point in found] == [point[:4] for point in points]
    assert json.loads(image["spatial_ref"].attrs["gcps"])["type"] == "FeatureCollection"
    assert image["y"].attrs["units"] == "pixel"


def test_without_pyproj_the_text_of_the_crs_is_enough(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyproj", None)
    _crs_parts.cache_clear()
    try:
        image = xr.open_datatree(scene, engine=ENGINE)["0/image"]
    finally:
        _crs_parts.cache_clear()
        monkeypatch.undo()
    assert image["spatial_ref"].attrs["crs_wkt"] == "EPSG:32633"
    assert image["y"].attrs["units"] == "metre"
    assert str(image.rio.crs) == "EPSG:32633"


def test_a_crs_that_nobody_knows_is_kept_as_text():
    image = ts.to_datatree(placed(crs="LOCAL[grid]", affine=(2.0, 0.0, 5.0, 0.0, -2.0, 9.0)))["0/image"]
    assert image["spatial_ref"].attrs["crs_wkt"] == "LOCAL[grid]"
    assert image["y"].values[0] == 8.0


@pytest.mark.parametrize("options", [{"mpp_yx": (0.5, 0.25)}, {}])
def test_slides_have_micrometres_or_pixels(options):
    pyramid: Pyramid = placed(**options)
    level = ts.to_datatree(pyramid)["0"]
    size_y, size_x = options.get("mpp_yx", (1.0, 1.0))
    assert (level["y"].values[1], level["x"].values[1]) == (1.5 * size_y, 1.5 * size_x)
    assert level["x"].attrs["units"] == ("micrometer" if options else "pixel")
    assert "spatial_ref" not in level.coords
    assert stored_level(pyramid, 0).is_stored


@pytest.mark.filterwarnings("ignore:The data type")  # zarr has no specification for the strings of `c`
def test_what_is_written_by_xarray_opens_again(scene, tmp_path):
    """A tree written as Zarr is CF: stock xarray and rioxarray find values, nodata and place."""
    tree = xr.open_datatree(scene, engine=ENGINE)
    tree["2"].to_dataset().to_zarr(tmp_path / "a.zarr", consolidated=False)
    again = xr.open_dataset(tmp_path / "a.zarr", engine="zarr", consolidated=False, decode_coords="all")
    np.testing.assert_allclose(again["image"], tree["2/image"])
    np.testing.assert_array_equal(again["y"], tree["2"]["y"])
    assert str(again["image"].rio.crs) == "EPSG:32633"
    assert again["image"].encoding["_FillValue"] == 0
