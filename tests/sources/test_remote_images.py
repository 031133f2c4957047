"""Whole images from a web server and from S3: the same pixels as from a disk, in few requests."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import tilestream as ts
from tests.servers import first
from tilestream.codecs import retries
from tilestream.errors import SourceError
from tilestream.pipelines.ingest import build_pyramid

FILES = (
    "slides/CMU-1-Small-Region.svs",
    "slides/OS-1-detail.ome.tif",
    "slides/camelyon-jpeg2000.dcm",
    "satellite/cogeo.tif",
    "satellite/cog_nodata.tif",
    "satellite/colorado_15cm_mask.tif",
    "zarr/blobs_multiscale_image.v05.ome.zarr",
    "zarr/exemplar-001.crop.image.ome.zarr",
    "photos/kodim01.png",
)


@pytest.fixture(params=["http", "s3"])
def put(request):
    """A function that puts a file or folder on a server: URL, options, log."""
    if request.param == "http":
        server = request.getfixturevalue("http_server")

        def link(path):
            (server.root / path.name).symlink_to(path)
            return f"{server.url}/{path.name}", {}, server.log

        return link
    s3 = request.getfixturevalue("s3")
    return lambda path: (s3.upload(path), s3.options, s3.log)


@pytest.mark.parametrize("name", FILES)
def test_the_same_as_from_a_disk(put, shared_data, name):
    local = ts.open_pyramid(str(shared_data / name))
    url, options, _ = put(shared_data / name)
    remote = pickle.loads(pickle.dumps(ts.open_pyramid(url, options=options)))
    # that of a Zarr store on a disk also knows the sizes of its chunks, which a remote one would have to list
    assert replace(remote.info, fingerprint="") == replace(local.info, fingerprint="")
    assert remote.fingerprint == local.fingerprint or "zarr" in name
    for level in (0, len(local.levels) - 1):
        box = local.levels[level].box
        ours, theirs = remote.read_region(box), local.read_region(box)
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_array_equal(ours.valid, theirs.valid)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide of five levels; as in real ones the tiles of a row follow one another."""
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    pixels = np.random.default_rng(0).integers(0, 255, (512, 2048, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(5):
            file.write(
                pixels[:: 2**level, :: 2**level],
                tile=(256, 256),
                photometric="rgb",
                compression="jpeg",
                subfiletype=int(level > 0),
                description="Aperio Image Library v1\r\n16384x4096|MPP = 0.25" if level == 0 else None,
                metadata=None,
            )
    return path


def test_few_requests_open_a_slide_and_read_256_tiles(put, slide):
    url, options, log = put(slide)
    log.clear()
    pyramid = ts.open_pyramid(url, options=options)
    assert len(pyramid.levels) == 5
    assert len(log.requests) <= 12
    log.clear()
    box = ts.Box(level=0, y=0, x=4096, height=4096, width=4096)
    pixels = pyramid.read(box)
    assert len(log.requests) <= 16  # one a row of tiles
    np.testing.assert_array_equal(pixels, ts.open_pyramid(slide).read(box))


def test_few_requests_read_the_tiles_of_a_sharded_store(put, slide, tmp_path):
    build_pyramid(slide, tmp_path / "a.zarr")
    url, options, log = put(tmp_path / "a.zarr")
    pyramid = ts.open_pyramid(url, options=options)
    log.clear()
    box = ts.Box(level=0, y=0, x=4096, height=4096, width=4096)
    pixels = pyramid.read(box)
    assert len(log.requests) <= 6  # what the shard is, its index, and pieces of 16 MiB
    np.testing.assert_array_equal(pixels, ts.open_pyramid(slide).read(box))


def test_few_requests_read_the_frames_of_a_dicom_file(put, shared_data):
    path = shared_data / "slides" / "camelyon-jpeg2000.dcm"
    url, options, log = put(path)
    pyramid = ts.open_pyramid(url, options=options)
    log.clear()
    box = pyramid.levels[0].box
    pixels = pyramid.read(box)
    assert len(log.requests) <= 3
    np.testing.assert_array_equal(pixels, ts.open_pyramid(path).read(box))


def test_trouble_while_tiles_are_read_costs_no_tile(put, slide, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    url, options, log = put(slide)
    pyramid = ts.open_pyramid(url, options=options)
    log.fault = first(5, 503)
    box = ts.Box(level=1, y=0, x=0, height=1024, width=1024)
    np.testing.assert_array_equal(pyramid.read(box), ts.open_pyramid(slide).read(box))


def test_an_object_replaced_under_a_reader_is_an_error(put, s3, slide, tmp_path):
    data = slide.read_bytes()
    (tmp_path / "b.svs").write_bytes(data)
    url, options, _ = put(tmp_path / "b.svs")
    pyramid = ts.open_pyramid(url, options=options)
    pyramid.read(ts.Box(level=0, y=0, x=0, height=256, width=256))
    (tmp_path / "b.svs").write_bytes(data[:-1] + b"1")
    put_again = s3.fs.pipe_file if url.startswith("s3") else lambda *_: None
    put_again(url, data[:-1] + b"1")
    with pytest.raises(SourceError, match="changed"):
        pyramid.read(ts.Box(level=0, y=2048, x=2048, height=512, width=512))


@pytest.mark.parametrize("name", ["a.ndpi", "a.mrxs"])
def test_what_only_openslide_reads_has_to_be_copied(put, tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xd8\xff" + bytes(2000))
    url, options, _ = put(tmp_path / name)
    with pytest.raises(SourceError, match=r"(?i)copy"):
        ts.open_pyramid(url, options=options, source="openslide")


def test_info_of_a_url(put, slide, monkeypatch, s3_environment):
    from tilestream.cli.app import app

    url, _, _ = put(slide)
    done = CliRunner().invoke(app, ["info", url])
    assert done.exit_code == 0, done.output
    assert "16,384 × 4,096" in done.output
