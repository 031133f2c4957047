"""Caches on real workers: peers instead of a slow source, folders refused before the run, figures on the dashboard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Client

import tilestream as ts
from tests.servers import HttpServer
from tilestream.cache import limits
from tilestream.cache.limits import Limits
from tilestream.cache.ranges import kept_ranges
from tilestream.cache.stack import CacheConfig, disk_tier, fetch_through
from tilestream.cache.tally import by_tier
from tilestream.cluster.caching import CachePlugin, install_caches
from tilestream.cluster.client import open_client
from tilestream.errors import ConfigError
from tilestream.metrics import collect
from tilestream.stream.batches import stream_tiles
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


def read_all(url: str) -> tuple[float, dict[str, dict[str, int]]]:
    """Read all tiles of a slide; return their sum and what the caches did."""
    pyramid = ts.open_pyramid(url, cache_bytes=0)
    plan = ts.plan_tiles(pyramid, tile_px=256, where="all", super_tile_px=512)
    with collect() as meter:
        total = sum(int(batch.pixels.sum()) for batch in stream_tiles(pyramid, plan))
    return total, by_tier(meter.counts)


def limits_here(_: object = None) -> tuple[int, int]:
    return limits.within(1 << 40), limits.compressed_bytes()


@pytest.fixture(scope="module")
def workers() -> Iterator[Client]:
    with open_client("local:2") as client:
        yield client


def fetch_files(delay_s: float) -> tuple[list[bytes], int, dict[str, dict[str, int]]]:
    """Get a range of each of 64 files; return them, how many came from the source, and what the caches did."""
    fetched = 0

    def fetch(ranges: list[tuple[int, int]]) -> list[bytes]:
        nonlocal fetched
        fetched += len(ranges)
        time.sleep(delay_s)
        return [bytes([start % 251]) * nbytes for start, nbytes in ranges]

    data = []
    with collect() as meter:
        for number in range(64):
            file = b"%d" % number
            kept = kept_ranges.get(file, number, number + 20_000)
            data.append(kept or fetch_through(file, [(number, 20_000)], fetch, source="slow")[0])
            kept_ranges.put(file, number, data[-1])
    return data, fetched, by_tier(meter.counts)


def test_workers_ask_each_other_before_a_source(workers):
    install_caches(workers, CacheConfig(host_bytes=64 << 20))
    first, second = workers.scheduler_info()["workers"]
    data, fetched, done = workers.submit(fetch_files, 0.01, workers=first, pure=False).result()
    assert fetched == 64
    assert done["peer"]["hits"] == 0
    again, fetched, found = workers.submit(fetch_files, 0.01, workers=second, pure=False).result()
    assert again == data
    # what the second owns was offered to it and lies there, the rest it asks for
    assert found["peer"]["misses"] == 0
    assert found["peer"]["hits"] > 5
    assert fetched == 0
    # Figures travel with the heartbeat. The dashboard's table of workers has a column for each that is a text.
    told, metrics = f"{found['peer']['hits']:,} of ", {}
    deadline = time.monotonic() + 60
    while not metrics.get("cache peer", "").startswith(told) and time.monotonic() < deadline:
        time.sleep(0.05)
        seen = workers.scheduler_info()["workers"]  # which may lack one for a while
        metrics = seen.get(second, {"metrics": {}})["metrics"]
    assert metrics.get("cache peer", "").startswith(told), (second, seen.keys())
    assert metrics["cache disk"] == "–"


def test_a_slide_is_fetched_once_by_all_workers(workers, http_server: HttpServer):
    write_slide(http_server.root / "a.svs", Shape(y=1024, x=1024), tile_px=256)
    install_caches(workers, CacheConfig(host_bytes=64 << 20))
    first, second = workers.scheduler_info()["workers"]
    url = f"{http_server.url}/a.svs"
    total, _ = workers.submit(read_all, url, workers=first, pure=False).result()
    asked = len(http_server.log.seen("GET"))
    again, found = workers.submit(read_all, url, workers=second, pure=False).result()
    assert again == total
    assert found.get("peer", {"misses": 0})["misses"] == 0
    assert asked
    assert len(http_server.log.seen("GET")) == asked


def test_workers_of_a_machine_share_its_budget(workers):
    install_caches(workers, CacheConfig(host_bytes=64 << 20))
    share = Limits.of_machine(64 << 20, 2)
    assert set(workers.run(limits_here).values()) == {(share.decoded, share.compressed)}


def test_a_folder_that_cannot_be_used_is_told_before_the_run(workers, tmp_path: Path):
    (tmp_path / "slide.svs").write_text("not a cache")
    with pytest.raises(ConfigError, match=r"a folder with other files \(`slide.svs`\)"):
        install_caches(workers, CacheConfig(disk=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["slide.svs"]


def test_caches_of_this_process_are_as_before_when_a_run_has_ended(tmp_path: Path):
    before = limits_here()
    with open_client("threads:1") as client:
        install_caches(client, CacheConfig(host_bytes=64 << 20, disk=str(tmp_path / "cache")))
        share = Limits.of_machine(64 << 20, 1)
        assert limits_here() == (share.decoded, share.compressed)
        assert disk_tier() is not None
        install_caches(client, CacheConfig())  # another run on the same cluster
        assert disk_tier() is None
    assert limits_here() == before


def test_a_worker_that_joins_late_without_the_folder_works_without_it(tmp_path: Path):
    (tmp_path / "slide.svs").write_text("somebody's")
    here = "tcp://10.0.0.1:1"

    async def ncores() -> dict[str, int]:
        return {here: 1, "tcp://10.0.0.1:2": 1, "tcp://10.0.0.2:3": 1}

    worker = SimpleNamespace(address=here, handlers={}, metrics={}, loop=None, scheduler=SimpleNamespace(ncores=ncores))
    plugin = CachePlugin(CacheConfig(host_bytes=64 << 20, disk=str(tmp_path)))

    async def life() -> None:
        await plugin.setup(worker)
        share = Limits.of_machine(64 << 20, 2)
        assert limits_here() == (share.decoded, share.compressed)
        assert disk_tier() is None
        plugin.teardown(worker)

    asyncio.run(life())
    assert worker.handlers == worker.metrics == {}
    assert [path.name for path in tmp_path.iterdir()] == ["slide.svs"]
