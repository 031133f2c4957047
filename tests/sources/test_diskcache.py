"""fsspec's caches on a disk before remote images: `blockcache::`, `filecache::` and `simplecache::` URLs."""

from __future__ import annotations

import gc

import fsspec
import numpy as np
import pytest

import tilestream as ts
from tests.servers import S3, HttpServer
from tilestream.errors import SourceError
from tilestream.sources import remotefiles
from tilestream.sources.files import File
from tilestream.sources.stamps import Stamp, require_unchanged

# fsspec's block cache leaves closing its file to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

CACHES = ("blockcache", "filecache", "simplecache")


def forget() -> None:
    """Forget what a process knows, as a new one would."""
    remotefiles._kept.reset()
    remotefiles._files.clear()
    fsspec.AbstractFileSystem.clear_instance_cache()
    gc.collect()


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_slide_is_fetched_once(cache, kind, request, shared_data, tmp_path):
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    options = {cache: {"cache_storage": str(tmp_path / "cache")}}
    if kind == "http":
        server: HttpServer = request.getfixturevalue("http_server")
        (server.root / "a.svs").write_bytes(path.read_bytes())
        url, log = f"{cache}::{server.url}/a.svs", server.log
    else:
        s3: S3 = request.getfixturevalue("s3")
        url, log, options = f"{cache}::{s3.upload(path)}", s3.log, {**options, "s3": s3.options}
    box = ts.Box(level=0, y=100, x=0, height=600, width=700)
    expected = ts.open_pyramid(path).read(box)
    for _ in range(2):
        log.clear()
        pyramid = ts.open_pyramid(url, options=options)
        np.testing.assert_array_equal(pyramid.read(box), expected)
        del pyramid
        forget()
    assert [one for one in log.requests if one.method == "GET" and "list-type" not in one.path] == []


@pytest.mark.parametrize("cache", ["blockcache", "filecache"])
def test_a_copy_of_what_was_replaced_is_thrown_away(cache, s3, tmp_path):
    options = {cache: {"cache_storage": str(tmp_path / "cache")}, "s3": s3.options}
    for content in (b"1" * 300_000, b"2" * 300_000):
        s3.fs.pipe_file(f"{s3.bucket}/a", content)
        file = File(url=f"{cache}::{s3.url}/a", options=options)
        assert file.read(100_000, 100_000) == content[:100_000]
        s3.fs.pipe_file(f"{s3.bucket}/a", b"3" * 300_001)
        stamp = Stamp(path=file.url, size_bytes=300_000, version=file.seen.version, options=options)
        with pytest.raises(SourceError, match="changed"):
            require_unchanged([stamp])
        del file
        forget()
