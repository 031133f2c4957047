"""Remote files by range: few requests, trouble that passes is ridden out, and what changes is never mixed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.servers import RESET, SHORT, STALL, first, serve_http
from tilestream.codecs import retries
from tilestream.codecs.place import Place
from tilestream.errors import DamagedError, SourceError
from tilestream.sources import fetching
from tilestream.sources.files import File
from tilestream.sources.recognise import list_folder
from tilestream.sources.stamps import Stamp, require_unchanged

MIB = 1 << 20
DATA = np.random.default_rng(0).bytes(24 * MIB)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)


@pytest.fixture(params=["http", "s3"])
def remote(request, tmp_path):
    """A file of random bytes, the log of its server, and a way to replace its content."""
    if request.param == "http":
        server = request.getfixturevalue("http_server")
        path = server.root / "a b.bin"
        path.write_bytes(DATA)
        return File(url=f"{server.url}/a%20b.bin"), server.log, path.write_bytes
    s3 = request.getfixturevalue("s3")
    (tmp_path / "a b.bin").write_bytes(DATA)
    url = s3.upload(tmp_path / "a b.bin")
    s3.log.clear()
    return File(url=url, options=s3.options), s3.log, lambda data: s3.fs.pipe_file(url, data)


def ranges_of(log):
    return [request.range for request in log.seen("GET") if request.range]


def test_the_bytes_of_a_range(remote):
    file, log, _ = remote
    assert file.exists
    assert file.size == len(DATA)
    assert file.read(3 * MIB, 100_000) == DATA[3 * MIB : 3 * MIB + 100_000]
    assert file.read(len(DATA) - 5, 5) == DATA[-5:]
    assert file.read(7, 0) == b""
    assert len(log.seen("HEAD")) == 1
    with pytest.raises(DamagedError, match="outside the file"):
        file.read(len(DATA) - 5, 6)
    with pytest.raises(DamagedError, match="outside the file"):
        file.read_ranges([(0, 1), (len(DATA), 1)])
    assert len(ranges_of(log)) == 2


def test_ranges_that_lie_close_together_are_one_request(remote):
    file, log, _ = remote
    wanted = [(5 * MIB, 10), (5 * MIB + 500_000, 20), (0, 5), (8 * MIB, 100_000), (5 * MIB, 30), (0, 0)]
    assert file.read_ranges(wanted) == [DATA[offset : offset + nbytes] for offset, nbytes in wanted]
    assert sorted(ranges_of(log)) == sorted(
        ["bytes=0-65535", f"bytes={5 * MIB}-{5 * MIB + 500_019}", f"bytes={8 * MIB}-{8 * MIB + 99_999}"]
    )
    log.clear()
    many = [(at, 1000) for at in range(0, 24 * MIB - 1000, 50_000)]
    assert file.read_ranges(many) == [DATA[offset : offset + nbytes] for offset, nbytes in many]
    assert len(ranges_of(log)) == 2  # at most 16 MiB each


def test_what_is_asked_for_ahead_is_not_asked_for_again(remote):
    file, log, _ = remote
    tiles = [(MIB + 30_000 * number, 25_000) for number in range(100)]
    file.warm(tiles)
    file.warm(tiles[20:50])
    assert [file.read(*tile) for tile in tiles] == [DATA[offset : offset + size] for offset, size in tiles]
    assert len(ranges_of(log)) == 1


def test_the_head_of_a_file_is_one_request(remote):
    file, log, _ = remote
    for offset in (0, 8, 1000, 60_000):
        assert file.read(offset, 100) == DATA[offset : offset + 100]
    again = File(url=file.url, options=file.options)
    assert again.read(0, 1024) == DATA[:1024]
    assert ranges_of(log) == ["bytes=0-65535"]


@pytest.mark.parametrize("status", [500, 503])
def test_trouble_that_passes_is_ridden_out(remote, status):
    file, log, _ = remote
    assert file.size == len(DATA)
    log.fault = first(2, status)
    assert file.read(2 * MIB, 70_000) == DATA[2 * MIB : 2 * MIB + 70_000]


@pytest.mark.parametrize("trouble", [429, 408, 502, 504, RESET, SHORT, STALL])
def test_trouble_of_web_servers_is_ridden_out(http_server, trouble, monkeypatch):
    monkeypatch.setattr(fetching, "STALL_S", 0.5)
    (http_server.root / "a").write_bytes(DATA)
    file = File(url=f"{http_server.url}/a")
    http_server.log.fault = first(2, trouble, method="HEAD" if trouble == 429 else "GET")
    assert file.size == len(DATA)
    assert file.read(MIB, 70_000) == DATA[MIB : MIB + 70_000]
    assert file.read_ranges([(0, 9), (9 * MIB, 9)]) == [DATA[:9], DATA[9 * MIB : 9 * MIB + 9]]


def test_trouble_that_stays_is_an_error_after_a_bounded_number_of_tries(http_server):
    (http_server.root / "a").write_bytes(DATA)
    file = File(url=f"{http_server.url}/a")
    assert file.size
    http_server.log.fault = lambda _: 503
    http_server.log.clear()
    with pytest.raises(SourceError, match="503"):
        file.read(0, 10)
    assert len(http_server.log.requests) == retries.TRIES


def test_a_server_says_how_long_to_wait():
    class TooMany(Exception):
        status = 429
        headers = {"Retry-After": "7"}  # noqa: RUF012

    waits = []
    left = [TooMany(), TooMany()]

    def request():
        if left:
            raise left.pop()
        return 1

    assert retries.tries(sleep=waits.append)(request) == 1
    assert waits == [7.0, 7.0]
    TooMany.headers = {"Retry-After": "3600"}
    left.append(TooMany())
    retries.tries(sleep=waits.append)(request)
    assert waits[-1] == retries.LONGEST_WAIT_S


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_permission_is_said_at_once(remote, method):
    file, log, _ = remote
    if method == "GET":
        assert file.size
    log.fault = lambda _: 403
    log.clear()
    with pytest.raises(SourceError, match=r"access denied \(403\)"):
        file.read(0, 10)
    assert len(log.requests) <= 3  # a web server that refuses HEAD may answer GET
    log.fault = None


def test_nothing_there(remote):
    file, log, _ = remote
    nothing = File(url=file.url + ".nothing", options=file.options)
    assert not nothing.exists
    with pytest.raises(SourceError, match=r"nothing there \(404\)"):
        _ = nothing.size
    assert len(log.requests) < 8


def test_who_may_not_list_a_bucket_is_told_403_of_what_is_not_there(remote):
    file, log, _ = remote
    log.fault = lambda _: 403
    assert not File(url=file.url + ".msk", options=file.options).exists


def test_whether_a_mask_is_there_is_not_guessed_from_trouble(http_server):
    http_server.log.fault = lambda _: 503
    with pytest.raises(SourceError, match="503"):
        _ = File(url=f"{http_server.url}/a.msk").exists


@pytest.mark.parametrize("new", [DATA[::-1], DATA[:-1], DATA + b"1"])
def test_a_changed_object_is_an_error_and_no_mixture(remote, new):
    file, log, replace = remote
    assert file.read(MIB, 70_000) == DATA[MIB : MIB + 70_000]
    replace(new)
    log.clear()
    with pytest.raises(SourceError, match="changed during the run"):
        file.read(2 * MIB, 70_000)
    with pytest.raises(SourceError, match="changed during the run"):
        file.read_ranges([(0, 10), (5 * MIB, 10)])
    assert len(log.requests) <= 4  # not tried again
    opened = File(url=file.url, options=file.options)
    assert opened.size == len(new)
    assert opened.read(2 * MIB, 70_000) == new[2 * MIB : 2 * MIB + 70_000]
    with pytest.raises(SourceError, match="changed during the run"):  # still the old one
        file.read(6 * MIB, 70_000)


def test_a_web_server_without_entity_tags_still_tells_the_size(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    with serve_http(tmp_path, has_validators=False) as server:
        file = File(url=f"{server.url}/a")
        assert file.read(MIB, 70_000) == DATA[MIB : MIB + 70_000]
        (tmp_path / "a").write_bytes(DATA[:-7])
        with pytest.raises(SourceError, match=f"changed during the run: got {len(DATA) - 7} bytes"):
            file.read(2 * MIB, 70_000)


def test_a_server_that_sends_whole_files_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    with serve_http(tmp_path, has_ranges=False) as server:
        file = File(url=f"{server.url}/a")
        with pytest.raises(SourceError, match=r"sends whole files only.*Copy it to a disk first"):
            file.read(5, 70_000)


def test_no_server(remote):
    with pytest.raises(SourceError, match="no answer from the storage"):
        _ = File(url="http://127.0.0.1:9/a").size


def test_unknown_protocol():
    with pytest.raises(SourceError, match="nosuch"):
        _ = File(url="nosuch://a/b").size


def test_a_web_folder_is_not_downloaded_to_look_for_links(http_server):
    (http_server.root / "a.svs").write_bytes(DATA)
    assert list_folder(File(url=f"{http_server.url}/a.svs")) is None
    assert http_server.log.requests == []


def stamp_of(file):
    return Stamp(path=file.url, size_bytes=file.size, version=file.seen.version, options=file.options)


def test_a_run_notices_that_an_object_was_replaced(remote):
    file, _, replace = remote
    stamps = pickle.loads(pickle.dumps((stamp_of(file),)))
    require_unchanged(stamps)
    replace(DATA[::-1])
    with pytest.raises(SourceError, match=r"changed during the run: got another entity tag"):
        require_unchanged(stamps)
    replace(DATA[:-1])
    with pytest.raises(SourceError, match="changed during the run: got 25165823 bytes"):
        require_unchanged(stamps)


def test_small_files_are_read_whole(remote):
    file, log, replace = remote
    with pytest.raises(DamagedError, match="holds more than 100 bytes"):
        file.read_whole(100)
    assert ranges_of(log) == ["bytes=0-100"]
    replace(b"small")
    assert file.read_whole(100) == b"small"
    replace(b"")
    assert file.read_whole(100) == b""
    assert File(url=file.url + ".none", options=file.options).read_whole(100) is None
    log.fault = lambda _: 403
    with pytest.raises(SourceError, match="403"):
        file.read_whole(100)


def test_a_version_is_read_or_refused(remote):
    file, _, replace = remote
    version = pickle.loads(pickle.dumps(file.version()))
    assert version.size_bytes == len(DATA)
    assert file.read_version(version, [(5, 7), (9 * MIB, 3)]) == [DATA[5:12], DATA[9 * MIB : 9 * MIB + 3]]
    replace(DATA[::-1])
    with pytest.raises(SourceError, match="changed"):
        file.read_version(version, [(3 * MIB, 7)])
    assert file.version() != version
    assert File(url=file.url + ".none", options=file.options).version() is None


FORKS = """
import os, sys, warnings
from tilestream.sources.files import File
file = File(url=sys.argv[1])
first = file.read(100_000, 9)
child = os.fork()
if not child:
    os._exit(0 if file.read(200_000, 9) and file.read(100_000, 9) == first else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_forked_child_reads_with_a_connection_of_its_own(kind, request, tmp_path):
    if kind == "http":
        server = request.getfixturevalue("http_server")
        (server.root / "a").write_bytes(DATA)
        url = f"{server.url}/a"
    else:
        (tmp_path / "a").write_bytes(DATA)
        url = request.getfixturevalue("s3_environment").upload(tmp_path / "a")
    command = [sys.executable, "-W", "ignore", "-c", FORKS, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ.copy(), check=False)
    assert done.stdout == "0\n", done.stderr


def test_requests_of_one_call_run_at_once(http_server):
    (http_server.root / "a").write_bytes(DATA)
    file = File(url=f"{http_server.url}/a")
    assert file.size
    http_server.log.delay_s = 0.2
    begun = time.monotonic()
    file.read_ranges([(at * 3 * MIB + 70_000, 10) for at in range(8)])
    assert time.monotonic() - begun < 0.8  # 1.6 s one after the other


def test_a_web_server_that_answers_get_alone(http_server):
    (http_server.root / "a").write_bytes(DATA)
    http_server.log.fault = lambda request: 405 if request.method == "HEAD" else None
    file = File(url=f"{http_server.url}/a")
    assert file.size == len(DATA)
    assert file.read(MIB, 70_000) == DATA[MIB : MIB + 70_000]


def test_what_is_not_there_is_asked_for_once(http_server):
    assert not File(url=f"{http_server.url}/a.msk").exists
    assert [request.method for request in http_server.log.requests] == ["HEAD"]


def test_secrets_are_not_shown(s3):
    file = File(url=f"{s3.url}/a", options=s3.options)
    assert "test" not in repr(file)
    assert "test" not in repr(Place.of(s3.url, s3.options))


def test_a_signed_address_that_only_get_may_use(http_server):
    (http_server.root / "a.tif").write_bytes(DATA)

    def signed(request):
        return None if request.method == "GET" and request.path == "/a.tif?signature=x" else 403

    http_server.log.fault = signed
    file = File(url=f"{http_server.url}/a.tif?signature=x")
    assert file.read(MIB, 70_000) == DATA[MIB : MIB + 70_000]
    assert not file.beside(file.name + ".msk").exists
