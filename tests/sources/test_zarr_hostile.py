"""Zarr stores and STAC items that lie, nest without end or lead elsewhere; missing values as xarray writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr

from tests.sources.assembled import whole_level
from tilestream.errors import SourceError
from tilestream.plan.geojson import read_geojson
from tilestream.sources.discovery import find_inputs
from tilestream.sources.opening import open_source

NESTED = "[" * 200_000


def group_of(folder, attributes):
    folder.mkdir()
    document = {"node_type": "group", "zarr_format": 3, "attributes": attributes}
    (folder / "zarr.json").write_text(json.dumps(document))
    return str(folder)


def levels(path):
    return {"ome": {"multiscales": [{"datasets": [{"path": path}] if path else [], "axes": ["y", "x"]}]}}


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "fill"), [("f4", -9999.0), ("f8", -3.4028234663852886e38), ("i2", -9999), ("u1", 255)]
)
def test_missing_values_as_xarray_writes_them(tmp_path, zarr_format, dtype, fill):
    seen = np.arange(64 * 64).reshape(64, 64) % 3 > 0
    values = np.where(seen, 7, fill).astype(dtype)
    data = xr.DataArray(values, dims=("y", "x"), name="v", attrs={"_FillValue": np.dtype(dtype).type(fill)})
    data.to_dataset().to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format)
    _, valid, _ = whole_level(open_source(str(tmp_path / "a.zarr")))
    np.testing.assert_array_equal(valid, seen)


def test_the_fill_value_of_ome_zarr_is_no_missing_value(tmp_path):
    image = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    array = image.create_array("0", shape=(8, 8), chunks=(8, 8), dtype="u1", fill_value=0)
    array[:4] = 5
    array.attrs["_ARRAY_DIMENSIONS"] = ["y", "x"]
    image.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    assert whole_level(open_source(str(tmp_path / "a.zarr")))[1].all()


def test_absurd_chunks_are_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(10**6, 10**6), chunks=(10**6, 10**6), dtype="u1", compressors=None)
    with pytest.raises(SourceError, match="1,000,000,000,000 bytes decoded"):
        open_source(str(tmp_path / "a.zarr"))


def test_a_link_that_leads_nowhere_costs_no_store(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 8), "u1"), chunks=(4, 4))
    (tmp_path / "a.zarr" / "c" / "lost").symlink_to(tmp_path / "nothing")
    assert whole_level(open_source(str(tmp_path / "a.zarr")))[0].all()


@pytest.mark.parametrize(
    "attributes",
    [
        levels("../other.zarr"),
        levels("0/../../other.zarr"),
        {"ome": {"labels": ["../other.zarr"]}},
        {"ome": {"plate": {"wells": [{"path": ".."}]}}},
    ],
)
def test_metadata_that_name_another_store_are_refused(tmp_path, attributes):
    zarr.create_array(tmp_path / "other.zarr", data=np.ones((8, 8), "u1"))
    with pytest.raises(SourceError, match="expected paths in the store"):
        open_source(group_of(tmp_path / "a.zarr", attributes))


@pytest.mark.parametrize("attributes", [levels(None), [], {"ome": {"multiscales": 5}}, {"ome": {"plate": []}}])
def test_odd_metadata_are_refused(tmp_path, attributes):
    with pytest.raises(SourceError):
        open_source(group_of(tmp_path / "a.zarr", attributes))


def test_json_nested_without_end_is_refused_and_stops_no_search(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text(NESTED)
    (tmp_path / "notes.json").write_text(NESTED)
    tifffile.imwrite(tmp_path / "image.tif", np.ones((64, 64), np.uint8))
    assert {found.relative for found in find_inputs([tmp_path]) if found.state == "input"} == {"a.zarr", "image.tif"}
    with pytest.raises(SourceError, match="no JSON"):
        open_source(str(tmp_path / "a.zarr"))
    with pytest.raises(ValueError, match="a readable GeoJSON file"):
        read_geojson(str(tmp_path / "notes.json"), open_source(str(tmp_path / "image.tif")).info)


@pytest.mark.parametrize(
    "assets",
    [
        {"a": {"href": "a.tif", "eo:bands": ["x"]}, "b": 5},
        {"a": {"href": "a.tif", "eo:bands": [{"name": 1}], "raster:bands": [{"scale": None}]}},
        {"a": {"href": "a.tif", "eo:bands": {"x": 1}}},
        {"a": {"href": "sub", "eo:bands": [{}]}},
    ],
)
def test_odd_stac_items_are_refused(tmp_path, assets):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((64, 64), np.uint8))
    (tmp_path / "sub").symlink_to(tmp_path)
    (tmp_path / "item.json").write_text(json.dumps({"type": "Feature", "stac_version": "1.0.0", "assets": assets}))
    with pytest.raises(SourceError):
        open_source(str(tmp_path))
