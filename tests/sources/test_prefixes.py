"""Prefixes of object storage as inputs: what is listed, what is passed over, what is one image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from tests.servers import S3
from tilestream.sources.discovery import find_inputs
from tilestream.sources.files import File
from tilestream.sources.recognise import list_folder


@pytest.fixture
def bucket(s3_environment: S3) -> S3:
    for key in (
        "slides/b.svs",
        "slides/a.tiff",
        "slides/a.tiff.ovr",
        "slides/more/c.ndpi",
        "slides/more/notes.txt",
        "slides/series/1.dcm",
        "slides/series/2.dcm",
        "slides/.hidden.svs",
        "slides/receipts/x/L0.json",
        "slides/y.features.zarr/zarr.json",
        "slides/z.zarr/zarr.json",
        "slides/z.zarr/0/c/0/0",
        "slides/d",
    ):
        s3_environment.fs.pipe_file(f"{s3_environment.bucket}/{key}", b"{}")
    s3_environment.log.clear()
    return s3_environment


def test_a_prefix_is_looked_through(bucket: S3) -> None:
    found = find_inputs([f"{bucket.url}/slides/"])
    assert [one.relative for one in found if one.state == "input"] == [
        "a.tiff",
        "b.svs",
        "more/c.ndpi",
        "series",
        "z.zarr",
    ]
    assert [one.path for one in found if one.state == "input"][2] == f"{bucket.url}/slides/more/c.ndpi"
    assert {one.relative: one.reason for one in found if one.state == "ignored"} == {
        ".hidden.svs": "hidden",
        "a.tiff.ovr": "overviews of a.tiff",
        "d": "no image by its suffix; name it to have its content looked at",
        "more/notes.txt": "no image by its suffix; name it to have its content looked at",
        "receipts": "an output of this program",
        "y.features.zarr": "an output of this program",
    }
    listed = [request.path for request in bucket.log.seen("GET") if "list-type" in request.path]
    assert len(listed) == 4  # slides, more, series, z.zarr: no object of a store, nothing of the outputs
    assert len(bucket.log.requests) < 12


def test_without_folders_below_it(bucket: S3) -> None:
    found = {one.relative: one for one in find_inputs([f"{bucket.url}/slides"], recursive=False)}
    assert found["more"].reason == "a folder, and folders are not searched"
    assert found["z.zarr"].state == found["b.svs"].state == "input"


def test_what_is_named_is_taken_at_its_word(bucket: S3) -> None:
    paths = [f"{bucket.url}/slides/none.svs", f"{bucket.url}/slides/z.zarr#t=1", f"{bucket.url}/slides/d"]
    assert [(one.path, one.state) for one in find_inputs(paths)] == [(path, "input") for path in paths]
    bucket.log.fault = lambda _: 403
    assert [one.state for one in find_inputs([f"{bucket.url}/other", "s3://nobody/x"])] == ["input", "input"]


def test_who_may_not_list_may_read_a_file_all_the_same(bucket: S3) -> None:
    bucket.log.fault = lambda request: 403 if "list-type" in request.path else None
    assert list_folder(File(url=f"{bucket.url}/slides/b.svs")) is None
    folder = list_folder(File(url=f"{bucket.url}/slides/z.zarr"))
    assert folder is not None
    assert folder.names == {"zarr.json"}


def test_a_scene_is_one_input(s3_environment: S3, tmp_path) -> None:
    fs, bucket = s3_environment.fs, s3_environment.bucket
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "x",
        "properties": {"datetime": "2024-01-01T00:00:00Z"},
        "assets": {"red": {"href": "./B04.tif", "type": "image/tiff; application=geotiff", "roles": ["data"]}},
    }
    fs.pipe_file(f"{bucket}/scenes/x/item.json", json.dumps(item).encode())
    fs.pipe_file(f"{bucket}/scenes/x/B04.tif", b"II*\0")
    assert [one.relative for one in find_inputs([f"{s3_environment.url}/scenes"])] == ["x"]
    store = tmp_path / "a.zarr"
    zarr.create_array(store, data=np.zeros((4, 4), np.uint8))
    s3_environment.upload(store, "scenes/a.zarr")
    assert [one.relative for one in find_inputs([f"{s3_environment.url}/scenes"])] == ["a.zarr", "x"]
