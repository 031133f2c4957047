"""Arrays of NumPy, dask and xarray as sources."""

from __future__ import annotations

import pickle

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from tests.sources.assembled import whole_level
from tilestream.errors import ConfigError, DamagedError
from tilestream.sources.array import array_source
from tilestream.sources.crs import is_metric, short_crs
from tilestream.sources.grids import gsd_of, um_per_unit
from tilestream.types import Shape


def noise(*shape, dtype="uint8"):
    return np.random.default_rng(3).integers(1, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "dims", "order"),
    [
        ((30, 40), None, None),
        ((30, 40, 3), None, (0, 1, 2)),
        ((3, 30, 40), None, (1, 2, 0)),
        ((9, 30, 40), ("c", "y", "x"), (1, 2, 0)),
        ((40, 30, 9), ("x", "y", "band"), (1, 0, 2)),
        ((30, 40), ("lat", "lon"), None),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_axes(shape, dims, order, lazy):
    array = noise(*shape)
    source = array_source(da.from_array(array, chunks=16) if lazy else array, dims=dims)
    expected = array[..., None] if order is None else array.transpose(order)
    np.testing.assert_array_equal(whole_level(source)[0], expected)
    assert source.info.levels[0].block == (Shape(y=16, x=16) if lazy else source.info.shape)


def test_extra_axes_are_selected():
    array = noise(4, 3, 30, 40)
    source = array_source(array, dims=("time", "c", "y", "x"))
    np.testing.assert_array_equal(whole_level(source.isel(time=2))[0], array[2].transpose(1, 2, 0))
    assert any("axis time has 4 entries" in note for note in source.info.notes)
    assert source.isel(time=2).info.notes == ("pixel size unknown: the array states none",)
    with pytest.raises(ConfigError, match="0 to 3"):
        source.isel(time=4)


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (np.zeros((9, 9, 9)), {}),
        (np.zeros((3, 100, 4)), {}),
        (np.zeros(9), {}),
        (np.zeros((0, 9)), {}),
        (np.zeros((9, 9), complex), {}),
        (np.array([["a", "b"]]), {}),
        (object(), {}),
        (np.zeros((9, 9)), {"dims": ("y",)}),
        (np.zeros((9, 9)), {"dims": ("a", "b")}),
        (np.zeros((9, 9)), {"dims": ("y", "lat")}),
        (np.zeros((9, 9, 3)), {"names": ["a", "b"]}),
        (np.zeros((9, 9, 3)), {"names": ["a", "b", "b"]}),
    ],
)
def test_what_is_no_image(array, options):
    with pytest.raises(ConfigError):
        array_source(array, **options)


def test_only_the_asked_part_is_computed():
    asked = []

    def chunk(block_info):
        asked.append(block_info[None]["chunk-location"])
        return np.ones((10, 10), np.uint8)

    array = da.map_blocks(chunk, chunks=((10,) * 4, (10,) * 4), dtype=np.uint8, meta=np.ones((0, 0), np.uint8))
    source = array_source(array)
    assert asked == []
    source.read_block(0, 1, 2)
    assert asked == [(1, 2)]


def test_a_graph_that_fails_is_damage():
    def fail(block):
        raise RuntimeError("disk gone")

    source = array_source(da.ones((20, 20), chunks=10).map_blocks(fail, dtype=float, meta=np.ones((0, 0))))
    with pytest.raises(DamagedError, match="disk gone"):
        source.read_block(0, 0, 0)


def test_validity():
    array = noise(20, 20, 3, dtype="float32")
    array[2, 3, 1] = np.nan
    block = array_source(array).read_block(0, 0, 0)
    assert (~block.valid).sum() == 1
    assert not block.pixels[2, 3].any()
    counts = xr.DataArray(noise(3, 20, 20), dims=("c", "y", "x"), attrs={"nodata": 7})
    counts[:, 5, 6] = 7
    counts[0, 8, 8] = 7  # one channel alone is a measurement
    valid = whole_level(array_source(counts))[1]
    assert not valid[5, 6]
    assert valid[8, 8]


def test_fill_values_that_xarray_has_decoded_are_not_taken_twice():
    data = xr.DataArray(np.array([[0.0, np.nan], [2.0, 3.0]]), dims=("y", "x"))
    data.encoding["_FillValue"] = 0
    np.testing.assert_array_equal(whole_level(array_source(data))[1], [[True, False], [True, True]])


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # rioxarray multiplies affines with *
def test_georeference_of_rioxarray(shared_data):
    rioxarray = pytest.importorskip("rioxarray")
    with rioxarray.open_rasterio(shared_data / "satellite/RGB.byte.tif") as scene:
        source = array_source(scene)
        assert source.info.crs == "EPSG:32618"
        assert source.info.affine == pytest.approx(tuple(scene.rio.transform())[:6])
        assert source.info.nodata == 0
        assert source.info.modality == "scene"
        np.testing.assert_array_equal(whole_level(source)[0], scene.values.transpose(1, 2, 0))


def test_georeference_from_coordinates():
    y, x = 4000005.0 - 10 * np.arange(30), 500005.0 + 10 * np.arange(40)
    data = xr.DataArray(noise(30, 40), dims=("y", "x"), coords={"y": y, "x": x}, attrs={"crs": "EPSG:32629"})
    assert array_source(data).info.affine == (10, 0, 500000, 0, -10, 4000010)
    uneven = data.assign_coords(x=x[0] + np.arange(40) ** 1.5)
    assert array_source(uneven).info.affine is None


def test_pixel_size_from_units():
    coords = {
        "y": ("y", 0.5 * np.arange(30), {"units": "um"}),
        "x": ("x", 0.25 * np.arange(40), {"units": "micrometer"}),
    }
    assert array_source(xr.DataArray(noise(30, 40), dims=("y", "x"), coords=coords)).info.mpp_yx == (0.5, 0.25)
    assert array_source(noise(30, 40), mpp=0.3).info.mpp_yx == (0.3, 0.3)


def test_bands_scale_and_classes():
    data = xr.DataArray(
        noise(2, 9, 9), dims=("band", "y", "x"), coords={"band": ["red", "nir"]}, attrs={"scale_factor": 1e-4}
    )
    source = array_source(data)
    assert [(channel.name, channel.scale) for channel in source.info.channels] == [("red", 1e-4), ("nir", 1e-4)]
    classes = xr.DataArray(noise(9, 9), dims=("y", "x"), attrs={"flag_meanings": "a b"})
    assert array_source(classes).info.kind == "labels"


def test_fingerprints_follow_the_pixels():
    array = noise(30, 40)
    first = array_source(array).info.fingerprint
    assert array_source(array.copy()).info.fingerprint == first
    assert array_source(np.asfortranarray(array)).info.fingerprint == first
    array[4, 5] += 1
    assert array_source(array).info.fingerprint != first
    assert array_source(array.reshape(40, 30)).info.fingerprint != array_source(array).info.fingerprint
    lazy = da.from_array(array, chunks=10)
    assert array_source(lazy).info.fingerprint == array_source(lazy).info.fingerprint
    assert array_source(lazy + 1).info.fingerprint != array_source(lazy).info.fingerprint


def test_pickles():
    source = array_source(da.from_array(noise(30, 40), chunks=10))
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(whole_level(again)[0], whole_level(source)[0])


def test_memory_is_not_copied():
    array = noise(30, 40, 3)
    assert np.shares_memory(array_source(array).read_block(0, 0, 0).pixels, array)


@pytest.mark.parametrize(
    ("text", "short", "metric"),
    [
        ("EPSG:32629", "EPSG:32629", True),
        ("EPSG:4326", "EPSG:4326", False),
        (
            'PROJCS["x",GEOGCS["g",AUTHORITY["EPSG","4326"]],UNIT["metre",1],AUTHORITY["EPSG","2154"]]',
            "EPSG:2154",
            None,
        ),
        ('PROJCRS["x",BASEGEOGCRS["g"],LENGTHUNIT["metre",1],ID["EPSG",2154]]', "EPSG:2154", None),
        ('PROJCS["own",GEOGCS["g",AUTHORITY["EPSG","4326"]],UNIT["metre",1]]', None, True),
        ('GEOGCS["g",UNIT["degree",0.0174],AUTHORITY["EPSG","4326"]]', "EPSG:4326", False),
    ],
)
def test_crs_texts(text, short, metric):
    assert short_crs(text) == (short or text)
    assert metric is None or is_metric(text) == metric


def test_metres_per_pixel():
    assert gsd_of("EPSG:32629", (8.0, 6.0, 0, 6.0, -8.0, 0)) == (10, 10)
    assert gsd_of("EPSG:4326", (1, 0, 0, 0, 1, 0)) is None
    assert gsd_of("EPSG:32629", None) is None
    assert um_per_unit("Micrometer") == 1
    assert um_per_unit("pixel") is None
    assert um_per_unit(3) is None


@pytest.mark.parametrize("form", ["WKT2_2019", "WKT1_GDAL"])
@pytest.mark.parametrize(("code", "metric"), [(32633, True), (3035, True), (2263, False), (27700, True), (4326, False)])
def test_the_unit_is_that_of_the_axes_not_of_the_ellipsoid(form, code, metric):
    """EPSG:2263 is in US survey feet, on an ellipsoid whose radius is given in metres."""
    pyproj = pytest.importorskip("pyproj")
    assert is_metric(pyproj.CRS.from_epsg(code).to_wkt(form)) is metric


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_an_array_that_xarray_reads_when_asked_is_hashed_in_bands_and_not_kept(tmp_path, monkeypatch):
    values = np.arange(500 * 60, dtype=np.uint16).reshape(500, 60)
    xr.DataArray(values, dims=("y", "x"), name="v").to_dataset().to_zarr(tmp_path / "a.zarr")
    monkeypatch.setattr("tilestream.sources.array.BAND_BYTES", 10_000)
    data = xr.open_dataset(tmp_path / "a.zarr", engine="zarr", chunks=None)["v"]
    source = array_source(data)
    assert not data.variable._in_memory
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels[..., 0], values)
    values[250, 30] += 1
    xr.DataArray(values, dims=("y", "x"), name="v").to_dataset().to_zarr(tmp_path / "b.zarr")
    other = xr.open_dataset(tmp_path / "b.zarr", engine="zarr", chunks=None)["v"]
    assert array_source(other).info.fingerprint != source.info.fingerprint
