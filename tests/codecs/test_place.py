import errno
import os
import pickle
import shutil
import threading

import google_crc32c
import numpy as np
import pytest
import zarr

from tests.servers import first
from tilestream.codecs import objects, retries
from tilestream.codecs.checksums import checksum
from tilestream.codecs.metadata import array_metadata, encode_json, shard_layout
from tilestream.codecs.place import Place
from tilestream.codecs.shards import ShardWriter
from tilestream.errors import OutputError


@pytest.fixture(params=["disk", "s3", "memory"])
def place(request, tmp_path):
    """An empty folder on each kind of storage."""
    if request.param == "disk":
        return Place.of(tmp_path / "out")
    if request.param == "memory":
        return Place.of(f"memory://{tmp_path.name}/out")
    s3 = request.getfixturevalue("s3")
    return Place.of(f"{s3.url}/out", s3.options)


def test_what_is_put_is_there_whole(place):
    assert place.get("a b/ü.json") is None
    assert not place.exists("a b/ü.json")
    assert place.put("a b/ü.json", b"old") == checksum(b"old")
    assert place.put("a b/ü.json", b"new") == checksum(b"new")
    assert place.get("a b/ü.json") == place.at("a b").get("ü.json") == b"new"
    assert place.exists("a b/ü.json")
    assert place.exists("a b")
    place.put("empty", b"")
    assert place.get("empty") == b""
    assert place.sizes() == {"a b/ü.json": 3, "empty": 0}
    assert place.get_many(["empty", "a b/ü.json", "none"]) == {"empty": b"", "a b/ü.json": b"new"}


def test_names_are_those_of_files_right_there(place):
    assert place.names() == []
    for name in ("L0.json", "L1.json", "x.lease", "below/L2.json"):
        place.put(name, b"1")
    assert place.names() == ["L0.json", "L1.json", "x.lease"]
    assert place.names("L*.json") == ["L0.json", "L1.json"]
    assert place.at("below").names() == ["L2.json"]
    assert place.at("L0.json").names() == []


def test_remove_and_clear_pass_over_what_is_not_there(place):
    for name in ("a", "b", "c/0/0", "c/0/1", "cc"):
        place.put(name, b"1")
    place.remove("a", "none")
    place.remove()
    assert place.sizes() == {"b": 1, "c/0/0": 1, "c/0/1": 1, "cc": 1}
    place.clear("c", "none", "b")
    assert place.sizes() == {"cc": 1}
    with pytest.raises(ValueError, match="the place itself"):
        place.clear("/")


def test_of_many_that_create_at_once_one_succeeds(place):
    place.prepare()
    start = threading.Barrier(8)
    made = []

    def create(number):
        start.wait()
        if place.create("lease", b"%d" % number):
            made.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert place.get("lease") == b"%d" % made[0]
    place.remove("lease")
    assert place.create("lease", b"again")


@pytest.mark.parametrize("sizes", [(), (0,), (3, 4), (700, 700, 1), (1000,) * 30])
def test_a_writer_gives_the_same_bytes_in_one_put_or_in_parts(place, sizes, monkeypatch):
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)
    pieces = [np.random.default_rng(size).bytes(size << 10) for size in sizes]
    with place.writer("c/0/0") as file:
        for piece in pieces:
            file.write(piece)
        if not place.url.startswith("memory"):  # which has no parts
            assert not place.exists("c/0/0")
    whole = b"".join(pieces)
    assert place.get("c/0/0") == whole
    assert file.checksum == f"{google_crc32c.value(whole):08x}"
    assert file.size_bytes == len(whole)


@pytest.mark.parametrize("size", [10, 12 << 20])
def test_a_writer_that_fails_leaves_nothing_and_keeps_what_was_there(s3, size, monkeypatch):
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)
    place = Place.of(s3.url, s3.options)
    place.put("shard", b"old")
    file = place.writer("shard")
    with pytest.raises(RuntimeError, match="stop"), file:
        _fail_after(file, bytes(size))
    del file
    assert place.get("shard") == b"old"
    assert s3.fs.list_multipart_uploads(s3.bucket) == []


def _fail_after(file, data):
    file.write(data)
    raise RuntimeError("stop")


def _fail_in_parts(file, log, data):
    file.write(data)
    log.fault = lambda request: 403 if "partNumber" in request.path else None
    file.write(data)


def test_a_part_that_is_refused_leaves_nothing(s3, monkeypatch):
    monkeypatch.setattr(objects, "PART_BYTES", 5 << 20)
    place = Place.of(s3.url, s3.options)
    file = place.writer("shard")
    with pytest.raises(OutputError, match=r"shard.*access denied \(403\)"), file:
        _fail_in_parts(file, s3.log, bytes(6 << 20))
    s3.log.fault = None
    assert place.sizes() == {}
    assert s3.fs.list_multipart_uploads(s3.bucket) == []


def test_a_small_file_is_one_request(s3):
    place = Place.of(s3.url, s3.options)
    place.exists()  # the connection
    s3.log.clear()
    place.put("a", b"1")
    with place.writer("b") as file:
        file.write(b"2")
    place.create("c", b"3")
    assert [r.method for r in s3.log.requests] == ["PUT"] * 3
    s3.log.clear()
    place.get("a")
    assert [r.method for r in s3.log.requests] == ["GET"]


def test_passing_trouble_of_the_service_is_ridden_out(s3):
    place = Place.of(s3.url, s3.options)
    s3.log.fault = first(2, 500, method="PUT")
    assert place.put("a", b"1") == checksum(b"1")
    s3.log.fault = first(1, 503, method="PUT")
    assert place.create("b", b"1")
    assert place.sizes() == {"a": 1, "b": 1}


def _calls(place):
    return {
        "prepare": place.prepare,
        "put": lambda: place.put("a", b"1"),
        "create": lambda: place.create("a", b"1"),
        "get": lambda: place.get("a"),
        "get_many": lambda: place.get_many(["a", "b"]),
        "names": place.names,
        "writer": lambda: _write(place),
    }


def _write(place):
    with place.writer("a") as file:
        file.write(b"1")


@pytest.mark.parametrize("call", ["prepare", "put", "create", "get", "get_many", "names", "writer"])
@pytest.mark.parametrize("trouble", ["denied", "bucket"])
def test_refusals_are_explained(s3, call, trouble):
    if trouble == "denied":
        place, words = Place.of(f"{s3.url}/out", s3.options), r"got access denied \(403\), expected credentials"
        s3.log.fault = lambda _: 403
    else:
        place, words = Place.of("s3://no-such-bucket-here/out", s3.options), "got no such bucket, expected one that"
    with pytest.raises(OutputError, match=words):
        _calls(place)[call]()


def test_no_credentials(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    place = Place.of(s3.url, {"client_kwargs": s3.options["client_kwargs"]})
    with pytest.raises(OutputError, match=r"got no credentials.*AWS_PROFILE"):
        place.put("a", b"1")


def test_no_server(s3, monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    options = {**s3.options, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}}
    with pytest.raises(OutputError, match="got no answer from the storage"):
        Place.of(s3.url, options).put("a", b"1")


@pytest.mark.parametrize(
    ("url", "words"),
    [("nosuch://a/b", r"protocol not known: nosuch, expected s3, gs"), ("http://a/b", "got a web server")],
)
def test_places_that_are_none(url, words):
    with pytest.raises(OutputError, match=words):
        Place.of(url).prepare()


def test_the_local_place_is_a_path(tmp_path):
    place = Place.of(f"file://{tmp_path}/out/")
    assert place == Place.of(tmp_path / "out") == Place.of(place)
    assert place.is_local
    assert place.path == tmp_path / "out"
    assert place.name == "out"
    assert place.at("a/b", "c").path == tmp_path / "out/a/b/c"
    assert place.free_bytes() > 0
    assert pickle.loads(pickle.dumps(place)) == place
    hash(place)
    (tmp_path / "out").write_bytes(b"mine")
    for call in (place.prepare, lambda: place.put("a", b"1"), lambda: place.create("a", b"1")):
        with pytest.raises(OutputError, match="a file"):
            call()
    assert place.get("a") is None


def test_a_place_on_object_storage_has_no_path_and_no_limit(s3):
    place = pickle.loads(pickle.dumps(Place.of(f"{s3.url}/out/", s3.options)))
    assert not place.is_local
    assert place.name == "out"
    assert place.free_bytes() is None
    with pytest.raises(TypeError, match="not a local path"):
        place.path  # noqa: B018
    place.prepare()
    assert place.names() == []


def test_sizes_pass_over_what_another_process_removes_meanwhile(tmp_path):
    def churn() -> None:
        for number in range(400):
            folder = tmp_path / "3/image/c" / str(number)
            folder.mkdir(parents=True)
            (folder / "0").write_bytes(b"1")
            shutil.rmtree(tmp_path / "3")

    place = Place.of(tmp_path)
    place.put("kept", b"12")
    other = threading.Thread(target=churn)
    other.start()
    while other.is_alive():
        assert place.sizes()["kept"] == 2
    other.join()
    assert place.sizes() == {"kept": 2}


def test_full_disk_at_creation_leaves_nothing(tmp_path, monkeypatch):
    class Full:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self):
            raise OSError(errno.ENOSPC, "No space left")

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "fdopen", Full)
    with pytest.raises(OutputError, match="a full disk"):
        Place.of(tmp_path).create("a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_zarr_reads_a_shard_written_to_a_place(place):
    array = np.arange(24, dtype=np.uint16).reshape(4, 6)
    with ShardWriter(place.writer("c/0/0"), chunk_shape=(2, 6), dtype=array.dtype) as shard:
        shard.append(array[:2])
        shard.append(array[2:])
    document = array_metadata(
        array.shape,
        array.dtype,
        layout=shard_layout(array.dtype, (2, 6), counts=(2, 1)),
        dimension_names=["y", "x"],
        fill_value=0,
        attributes={},
    )
    place.put("zarr.json", encode_json(document))
    assert shard.checksum == f"{google_crc32c.value(place.get('c/0/0')):08x}"
    store = (
        zarr.storage.LocalStore(place.path)
        if place.is_local
        else zarr.storage.FsspecStore.from_url(place.url, storage_options=dict(place.options))
    )
    np.testing.assert_array_equal(zarr.open_array(store, mode="r")[...], array)
