"""Cubes of scenes from other libraries: bands as variables or on an axis, a time axis, a CRS."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import tilestream as ts
from tests.sources.assembled import whole_level
from tilestream.errors import ConfigError
from tilestream.sources.array import array_source

SIZES = {"time": 4, "y": 60, "x": 80}


def cube(dtype="uint16", attrs=None, seed=0):
    """One band as odc-stac gives it: dask, with time and place, `nodata` in the attributes."""
    pixels = da.from_array(
        np.random.default_rng(seed).integers(1, 9000, tuple(SIZES.values())).astype(dtype), (1, 20, 40)
    )
    coords = {
        "time": np.array(["2024-06-01T10:20:31.123", "2024-06-11", "2024-06-21", "2024-07-01"], "datetime64[ns]"),
        "y": ("y", 5_000_000 - 5 - 10.0 * np.arange(60), {"units": "metre", "resolution": -10.0, "crs": "EPSG:32633"}),
        "x": ("x", 500_000 + 5 + 10.0 * np.arange(80), {"units": "metre", "resolution": 10.0, "crs": "EPSG:32633"}),
        "spatial_ref": ((), 32633, {"spatial_ref": "EPSG:32633", "grid_mapping_name": "transverse_mercator"}),
    }
    attrs = {"nodata": 0, "units": "1", "grid_mapping": "spatial_ref"} if attrs is None else attrs
    return xr.DataArray(pixels, dims=tuple(SIZES), coords=coords, attrs=attrs)


def scene():
    classes = cube("uint8").assign_attrs(flag_values=[1, 2])
    return xr.Dataset({"red": cube(seed=1), "nir": cube(seed=2), "scl": classes, "cloud_cover": ("time", [1.0] * 4)})


def test_a_dataset_of_bands_is_one_scene_with_a_time_axis():
    dataset = scene()
    pyramid = ts.open_pyramid(dataset)
    info = pyramid.info
    assert [channel.name for channel in info.channels] == ["red", "nir"]
    assert info.axes == {"c": 2, "time": 4, "y": 60, "x": 80}
    assert (info.crs, info.affine) == ("EPSG:32633", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
    assert info.modality == "scene"
    assert info.nodata == 0
    assert info.levels[0].block.yx == (20, 40)
    assert "not channels (class or quality layers): scl" in info.notes
    assert any("axis time has 4 entries" in note for note in info.notes)
    assert info.datetime == "2024-06-01T10:20:31Z"
    later = pyramid.isel(time=2)
    assert later.info.datetime == "2024-06-21T00:00:00Z"
    expected = np.stack([dataset["red"][2], dataset["nir"][2]])
    np.testing.assert_array_equal(later.read(later.levels[0].box), expected)


def test_a_cube_of_bands_and_times_is_the_same_scene():
    dataset = scene()
    array = dataset[["red", "nir"]].to_dataarray("band").transpose("time", "band", "y", "x")
    array.attrs = dict(dataset["red"].attrs)
    found, expected = ts.open_pyramid(array).isel(time=1), ts.open_pyramid(dataset).isel(time=1)
    assert found.channels == expected.channels
    assert (found.crs, found.affine, found.info.datetime) == (expected.crs, expected.affine, expected.info.datetime)
    box = ts.Box(y=10, x=20, height=30, width=50)
    np.testing.assert_array_equal(found.read(box), expected.read(box))
    tree = ts.to_datatree(found, mask_and_scale=False)
    np.testing.assert_allclose(tree["0"]["y"], dataset["y"])
    np.testing.assert_array_equal(tree["0/image"].sel(c="nir"), dataset["nir"][1])
    assert tree.attrs["datetime"] == "2024-06-11T00:00:00Z"
    assert tree.attrs["selection"] == "time=1"


def test_only_the_asked_blocks_of_the_asked_time_are_computed():
    asked = []

    def chunk(block, block_info=None):
        asked.append(block_info[0]["chunk-location"])
        return block

    red = cube()
    red = red.copy(data=red.data.map_blocks(chunk, dtype=red.dtype, meta=np.zeros((0, 0, 0), red.dtype)))
    pyramid = ts.open_pyramid(xr.Dataset({"red": red, "nir": cube(seed=2)})).isel(time=3)
    assert asked == []
    pyramid.read(ts.Box(y=20, x=40, height=20, width=40))
    assert asked == [(3, 1, 1)]


def test_factors_by_band_and_the_common_type():
    dataset = xr.Dataset(
        {
            "b1": cube("uint8", {"scale_factor": 0.5, "add_offset": 1.0}),
            "b2": cube("int16", {"scale_factor": 2.0}),
        }
    )
    info = array_source(dataset).info
    assert [(channel.scale, channel.offset) for channel in info.channels] == [(0.5, 1.0), (2.0, 0.0)]
    assert info.dtype == np.int16


def test_files_of_rioxarray_with_an_axis_of_one_band():
    bands = {name: cube(seed=seed).isel(time=0, drop=True).expand_dims(band=[1]) for seed, name in enumerate("ab")}
    source = array_source(xr.Dataset(bands))
    assert [channel.name for channel in source.info.channels] == ["a", "b"]
    np.testing.assert_array_equal(whole_level(source)[0][..., 1], bands["b"][0])


def test_names_of_bands_that_rioxarray_puts_beside_their_numbers():
    array = xr.DataArray(np.ones((2, 9, 9)), dims=("band", "y", "x"), coords={"band": [1, 2]})
    assert [channel.name for channel in array_source(array).info.channels] == ["1", "2"]
    named = array.assign_attrs(long_name=("red", "nir"))
    assert [channel.name for channel in array_source(named).info.channels] == ["red", "nir"]
    one = array.assign_attrs(long_name="reflectance")
    assert [channel.name for channel in array_source(one).info.channels] == ["1", "2"]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_files_that_xarray_reads_when_asked_are_not_read_before(tmp_path):
    xr.Dataset({"a": cube(), "b": cube(seed=1)}).drop_encoding().to_zarr(tmp_path / "a.zarr")
    dataset = xr.open_dataset(tmp_path / "a.zarr", engine="zarr", chunks=None)
    source = array_source(dataset)
    assert not any(dataset[name].variable._in_memory for name in ("a", "b"))
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels[..., 0], dataset["a"][0])


def test_the_time_of_what_is_no_scene_is_not_kept():
    """When a slide was scanned can identify a patient."""
    slide = cube().drop_vars(["spatial_ref", "y", "x"]).assign_attrs(grid_mapping="none")
    assert array_source(slide).info.datetime is None


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (xr.Dataset({"a": ("time", [1.0])}), "expected numbers on axes y and x"),
        (xr.Dataset(), "numbers on axes y and x"),
        (xr.Dataset({"a": cube(), "b": cube(attrs={"nodata": 7})}), "different nodata"),
        (xr.Dataset({"a": cube(), "b": cube().isel(time=0, drop=True)}), "different axes"),
        (xr.Dataset({"a": cube().assign_attrs(flag_values=[1])}), "numbers on axes y and x"),
    ],
)
def test_datasets_that_are_no_scene(dataset, message):
    with pytest.raises(ConfigError, match=message):
        array_source(dataset)
