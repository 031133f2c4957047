"""The stack under remote files: what a tier has is not asked of the source, and a changed object is another one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.servers import HttpServer, serve_http
from tilestream.cache import stack
from tilestream.cache.limits import Limits, compressed_bytes
from tilestream.cache.ranges import kept_ranges
from tilestream.cache.stack import CacheConfig, disk_tier, share_machine, use_caches, use_peers
from tilestream.cache.tally import by_tier
from tilestream.errors import ConfigError, SourceError
from tilestream.metrics import collect
from tilestream.sources import shares
from tilestream.sources.files import File
from tilestream.sources.remotefiles import remote_file

MIB = 1 << 20
DATA = np.random.default_rng(0).bytes(4 * MIB)
TILES = [(MIB + 30_000 * number, 25_000) for number in range(40)]


class Dictionary(dict):
    """Peers that have what was offered to them."""

    def get(self, file, ranges):
        return {one: self[file, one] for one in ranges if (file, one) in self}

    def offer(self, file, parts):
        self.update({(file, one): data for one, data in parts.items()})


@pytest.fixture(autouse=True)
def a_stack_of_its_own(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(stack, "_worth", stack.Worth())
    yield
    use_caches(None)
    use_peers(None)


@pytest.fixture
def served(http_server: HttpServer) -> HttpServer:
    (http_server.root / "a").write_bytes(DATA)
    return http_server


def fresh(server: HttpServer) -> File:
    """The file as a new process meets it."""
    kept_ranges.reset()
    remote_file(f"{server.url}/a", {})._seen = None
    server.log.clear()
    return File(url=f"{server.url}/a")


def expected(tiles=TILES, data=DATA):
    return [data[start : start + nbytes] for start, nbytes in tiles]


def use_disk(tmp_path):
    use_caches(CacheConfig(disk=str(tmp_path / "cache"), disk_bytes=100 * MIB))


@pytest.mark.parametrize("how", ["warm", "ranges", "one by one"])
def test_the_disk_spares_a_later_run_its_requests(served, tmp_path, how):
    use_disk(tmp_path)
    for is_later in (False, True):
        file = fresh(served)
        with collect() as meter:
            if how == "warm":
                file.warm(TILES)
            if how == "ranges":
                assert file.read_ranges(TILES) == expected()
            assert [file.read(*tile) for tile in TILES] == expected()
        disk_tier().flush()
        assert bool(served.log.seen("GET")) != is_later
        done = by_tier(meter.counts)
        assert done["disk"]["hits"] == (len(TILES) if is_later else 0)
        assert (done["compressed"]["hits"] == len(TILES)) == (how != "one by one")
        use_caches(None)
        use_disk(tmp_path)


def test_a_part_of_what_is_wanted_is_fetched_and_the_rest_is_not(served, tmp_path):
    use_disk(tmp_path)
    fresh(served).read_ranges(TILES[:20])
    disk_tier().flush()
    file = fresh(served)
    assert file.read_ranges(TILES) == expected()
    (request,) = served.log.seen("GET")
    assert request.range == f"bytes={TILES[20][0]}-{sum(TILES[-1]) - 1}"


def test_what_came_along_with_a_request_for_others_is_kept_below_too(served, tmp_path):
    use_disk(tmp_path)
    peers = Dictionary()
    use_peers(peers)
    file = fresh(served)
    file.warm(TILES[::3])
    file.warm(TILES[:20])  # of which two thirds lay between others
    assert len(served.log.seen("GET")) == 1
    disk_tier().flush()
    wanted = [*TILES[:20], *TILES[21::3]]
    assert set(disk_tier().get(next(iter(peers))[0], wanted)) == set(wanted)
    assert {one for _, one in peers} == set(wanted)


def test_a_changed_object_is_never_answered_from_an_older_entry(served, tmp_path):
    use_disk(tmp_path)
    peers = Dictionary()
    use_peers(peers)
    opened = fresh(served)
    assert opened.read_ranges(TILES) == expected()
    disk_tier().flush()
    other = np.random.default_rng(1).bytes(len(DATA))
    (served.root / "a").write_bytes(other)
    assert fresh(served).read_ranges(TILES) == expected(data=other)
    kept_ranges.reset()
    assert opened.read_ranges(TILES) == expected()  # of the state that it was opened in, as a run must have it
    with pytest.raises(SourceError, match="changed during the run"):
        opened.read(MIB - 50_000, 10)


def test_nothing_is_kept_of_a_server_that_does_not_say_what_it_serves(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a").write_bytes(DATA)
    use_disk(tmp_path)
    peers = Dictionary()
    use_peers(peers)
    with serve_http(tmp_path / "served", has_validators=False) as server:
        assert fresh(server).read_ranges(TILES) == expected()
        assert not peers
        disk_tier().flush()
        assert fresh(server).read_ranges(TILES) == expected()
        assert server.log.seen("GET")


def test_peers_are_asked_before_the_source_and_offered_what_it_gives(served):
    peers = Dictionary()
    use_peers(peers)
    assert fresh(served).read_ranges(TILES[:30]) == expected()[:30]
    assert len(peers) == 30
    assert fresh(served).read_ranges(TILES[:30]) == expected()[:30]
    assert not served.log.seen("GET")


def test_a_folder_that_cannot_be_used_changes_nothing(tmp_path):
    (tmp_path / "a.svs").write_text("a slide")
    with pytest.raises(ConfigError, match="other files"):
        use_caches(CacheConfig(disk=str(tmp_path)))
    assert disk_tier() is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.svs"]


def test_memory_is_shared_with_the_other_workers_of_the_machine():
    use_caches(CacheConfig(host_bytes=64 * MIB))
    assert compressed_bytes() == Limits.of_machine(64 * MIB, 1).compressed == 8 * MIB
    for number in range(8):
        kept_ranges.put("a", number * MIB, bytes(MIB))
    assert kept_ranges.held_bytes >= 7 * MIB
    share_machine(4)
    assert kept_ranges.held_bytes <= kept_ranges.budget_bytes == 2 * MIB
    kept_ranges.reset()


@pytest.mark.parametrize("is_share", [True, False])
def test_files_on_network_shares_count_as_remote(is_share, tmp_path, monkeypatch):
    monkeypatch.setattr(shares, "on_network", lambda path: is_share)
    (tmp_path / "a").write_bytes(DATA)
    use_disk(tmp_path)
    file = File(url=str(tmp_path / "a"))
    version = file.version()
    with collect() as meter:
        assert [file.read(*tile) for tile in TILES] == expected()
        disk_tier().flush()
        assert [file.read(*tile) for tile in TILES] == expected()
        assert file.read_version(version, TILES) == expected()
    assert by_tier(meter.counts).get("disk", {"hits": 0})["hits"] == (2 * len(TILES) if is_share else 0)
    other = DATA[:MIB] + bytes(MIB) + DATA[2 * MIB :]
    (tmp_path / "a").write_bytes(other)
    assert File(url=str(tmp_path / "a")).read(*TILES[3]) == bytes(25_000)
