"""Zarr stores on a server: requests are few, what is not there is background, and what fails is not."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

from tests.servers import first
from tests.sources.assembled import whole_level
from tilestream.errors import SourceError
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.opening import open_source
from tilestream.types import Box

VALUES = np.random.default_rng(0).integers(1, 255, (3, 512, 512)).astype("uint8")


@pytest.fixture
def store(http_server):
    """Shards of 2 x 2 chunks of 128 px; the one at the lower right is not there."""
    array = zarr.create_array(
        http_server.root / "a.zarr",
        shape=VALUES.shape,
        chunks=(3, 128, 128),
        shards=(3, 256, 256),
        dtype="uint8",
        fill_value=7,
        dimension_names=["c", "y", "x"],
    )
    array[:, :256] = VALUES[:, :256]
    array[:, 256:, :256] = VALUES[:, 256:, :256]
    return http_server, f"{http_server.url}/a.zarr"


def expected():
    whole = VALUES.copy()
    whole[:, 256:, 256:] = 7
    return whole


def test_tiles_of_a_box_are_few_requests(store):
    server, url = store
    pyramid = open_pyramid(url, cache_bytes=0)
    server.log.clear()
    np.testing.assert_array_equal(pyramid.read(Box(y=0, x=0, height=256, width=256)), VALUES[:, :256, :256])
    assert len(server.log.seen(ending="c/0/0/0")) <= 3  # what it is, its index, and the four chunks at once
    server.log.clear()
    np.testing.assert_array_equal(pyramid.read(Box(y=0, x=0, height=128, width=128)), VALUES[:, :128, :128])
    assert len(server.log.seen()) <= 1


def test_a_shard_that_is_not_there_is_background_and_asked_for_once(store):
    server, url = store
    source = open_source(url)
    np.testing.assert_array_equal(whole_level(source)[0].transpose(2, 0, 1), expected())
    server.log.clear()
    for place in ((2, 2), (2, 3), (3, 2), (3, 3)):
        assert (source.read_block(0, *place).pixels == 7).all()
    assert not server.log.seen()


@pytest.mark.parametrize("status", [403, 500])
def test_a_server_that_fails_is_no_background(store, status, monkeypatch):
    server, url = store
    source = open_source(url)
    server.log.fault = lambda request: status if "/c/" in request.path else None
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    with pytest.raises(SourceError):
        source.read_block(0, 0, 0)
    with pytest.raises(SourceError):
        source.read_block(0, 3, 3)
    server.log.fault = None
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, VALUES[:, :128, :128].transpose(1, 2, 0))


def test_a_server_that_stumbles_is_asked_again(store):
    server, url = store
    source = open_source(url)
    server.log.fault = first(1, 503)
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, VALUES[:, :128, :128].transpose(1, 2, 0))


def test_a_shard_that_is_replaced_is_no_mixture(store):
    server, url = store
    source = open_source(url)
    source.read_block(0, 0, 0)
    shard = server.root / "a.zarr" / "c" / "0" / "0" / "0"
    zarr.open_array(server.root / "a.zarr")[:, :256, :256] = 255 - VALUES[:, :256, :256]
    assert shard.is_file()
    with pytest.raises(SourceError):
        source.read_block(0, 0, 1)
    again = open_source(url).read_block(0, 0, 1).pixels
    np.testing.assert_array_equal(again, 255 - VALUES[:, :128, 128:256].transpose(1, 2, 0))


def test_chunks_that_are_files_are_asked_for_together(http_server, monkeypatch):
    """One file a band, as stores for GDAL have them: the answers come side by side."""
    zarr.create_array(http_server.root / "b.zarr", data=VALUES, chunks=(1, 256, 256), dimension_names=["c", "y", "x"])
    source = pickle.loads(pickle.dumps(open_source(f"{http_server.url}/b.zarr")))
    np.testing.assert_array_equal(whole_level(source)[0].transpose(2, 0, 1), VALUES)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts
    http_server.log.fault = lambda request: 500 if request.path.endswith("c/1/0/0") else None
    with pytest.raises(SourceError):
        source.read_block(0, 0, 0)
