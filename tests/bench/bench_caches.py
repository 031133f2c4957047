"""What the caches save: a second pass over a slide, a slow source behind peers or a disk; and what a hit costs."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np
from distributed import get_worker

import tilestream as ts
from tests.bench.bench_supply import CORES
from tests.bench.contestants import BareDecoder, all_tiles, run_engine
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tests.servers import serve_http
from tilestream.cache import forget_blocks
from tilestream.cache.blocks import new_block_cache
from tilestream.cache.disk import LEAST_BYTES, DiskTier
from tilestream.cache.diskfolder import claim_folder
from tilestream.cache.ranges import kept_ranges, owned_ranges
from tilestream.cache.stack import CacheConfig
from tilestream.cluster.caching import NAME, install_caches
from tilestream.cluster.client import open_client
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.remotefiles import remote_file
from tilestream.stream.batches import stream_tiles
from tilestream.testing.slide import write_slide
from tilestream.types import Block, Shape

SECOND_BAR = 2.0
"""Times the first pass, for a second null encoder on a slide that fits the cache."""
PEER_BAR = 3.0
"""Times a source that answers after `SLOW_S`."""
SLOW_S = 0.05
CACHE_BYTES = 1 << 30
TILE_BYTES, DECODED_BYTES = 20_000, 256 * 256 * 3


def second_row(
    path: Path, *, rounds: int, bar: float = SECOND_BAR, profile: str = f"threads:{CORES}"
) -> dict[str, Any]:
    """Return the rate of a null encoder over a slide that has been through another one, and of that one."""
    pyramid = open_pyramid(path, cache_bytes=CACHE_BYTES)
    plan = all_tiles(pyramid)
    with open_client(profile) as client:

        def first() -> float:
            forget_blocks()
            run_engine(client, pyramid, plan)
            return float(len(plan))

        def second() -> float:
            run_engine(client, pyramid, plan)
            return float(len(plan))

        first()
        found = rates([second, first], rounds=rounds)
    forget_blocks()
    return make_row(
        "second null encoder over the same slide",
        found[0],
        "tiles/s",
        rival=("the first", found[1]),
        bar=at_least(bar),
        note=f"{len(plan)} tiles of 256 px, {pyramid.levels[0].shape.area * 3 / 1e6:,.0f} MB decoded, all in "
        f"the cache; {profile}, engine and receipts included",
    )


def _read(url: str) -> float:
    """Return the seconds that reading all tiles of a slide takes, on a worker."""
    remote_file(url, {})._seen = None
    started = time.perf_counter()
    pyramid = ts.open_pyramid(url, cache_bytes=0)
    plan = ts.plan_tiles(pyramid, tile_px=256, where="all", super_tile_px=512)
    for batch in stream_tiles(pyramid, plan, reuse=True):
        if not batch.pixels[:, 0, 0, 0].size:
            raise RuntimeError("a batch without tiles")
    return time.perf_counter() - started


def slow_rows(
    folder: Path, *, edge_px: int, rounds: int, bar: float = PEER_BAR, with_disk: bool = True
) -> list[dict[str, Any]]:
    """Return the rates of a worker that reads what another one has read: from peers, from the disk, from the source."""
    (folder / "served").mkdir(exist_ok=True)
    write_slide(folder / "served" / "a.svs", Shape(y=edge_px, x=edge_px), tile_px=256)
    tiles = (edge_px // 256) ** 2
    ways: dict[str, list[float]] = {way: [] for way in ("source", "peer", *(["disk"] if with_disk else []))}
    with serve_http(folder / "served") as server, open_client("local:2") as client:
        server.log.delay_s = SLOW_S
        first, second = client.scheduler_info()["workers"]
        read = partial(client.submit, _read, f"{server.url}/a.svs", pure=False)
        for _ in range(rounds):
            for way, seconds in ways.items():
                disk = str(folder / "cache") if way == "disk" else None
                install_caches(client, CacheConfig(peers=way == "peer", disk=disk))
                client.run(_forget)
                read(workers=first).result()
                client.run(_flush)
                # with peers, what the first has offered to the second lies there already, as it would in a run
                seconds.append(read(workers=second).result())
    rate = {way: tiles / statistics.median(seconds) for way, seconds in ways.items()}
    note = (
        f"{tiles} tiles in units of 4, one request or question a unit, the header included; two processes on loopback, "
        f"the source answers each request after {SLOW_S * 1000:.0f} ms"
    )
    rival = ("the source", rate["source"])
    rows = [make_row("tiles that a peer has read", rate["peer"], "tiles/s", rival=rival, bar=at_least(bar), note=note)]
    if with_disk:
        note = "the same, with `--disk-cache`"
        rows.append(make_row("tiles on the disk", rate["disk"], "tiles/s", rival=rival, note=note))
    return rows


def _forget() -> None:
    for ranges in (kept_ranges, owned_ranges):
        ranges.reset()


def _flush() -> None:
    from tilestream.cache.stack import disk_tier

    disk = disk_tier()
    if disk is not None:
        disk.flush()


def _ask(nbytes: int, count: int, times: int) -> float:
    """Return the seconds that a question for `count` ranges takes, asked by a worker of the other one."""
    worker = get_worker()
    peers = worker.plugins[NAME]._peers
    (other,) = [one for one in peers._members if one != worker.address]
    ranges = [(number * nbytes, nbytes) for number in range(count)]
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        found = asyncio.run_coroutine_threadsafe(peers._ask(other, b"asked", ranges), worker.loop.asyncio_loop).result()
        taken.append(time.perf_counter() - started)
        if len(found) != count:
            raise RuntimeError(f"{len(found)} of {count} ranges came back")
    return statistics.median(taken)


def _keep(nbytes: int, count: int) -> None:
    kept_ranges.reset()
    for number in range(count):
        kept_ranges.put(b"asked", number * nbytes, np.random.default_rng(number).bytes(nbytes))


def asking_rows(slide: Path, *, times: int = 40) -> list[dict[str, Any]]:
    """Return what it costs to ask a peer for a decoded tile, and to decode it again."""
    bare = BareDecoder.open(slide)
    data = slide.read_bytes()
    offset, length = int(bare.offsets[0]), int(bare.lengths[0])
    stream = data[offset : offset + length]
    decode = partial(imagecodecs.jpeg8_decode, stream, tables=bare.tables, colorspace=bare.colorspace, outcolorspace=2)
    scale = 256**2 / bare.tile_px**2
    decode_us = _median_us(decode, times) * scale
    rows = []
    with open_client("local:2") as client:
        install_caches(client, CacheConfig())
        first, second = client.scheduler_info()["workers"]
        for nbytes, count, what in (
            (DECODED_BYTES, 1, "a peer asked for one decoded tile"),
            (DECODED_BYTES, 16, "a peer asked for 16 decoded tiles, each"),
            (TILE_BYTES, 1, "a peer asked for one stored tile"),
            (TILE_BYTES, 64, "a peer asked for 64 stored tiles, each"),
        ):
            client.run(partial(_keep, nbytes, count), workers=[first])
            seconds = client.submit(_ask, nbytes, count, times, workers=second, pure=False).result()
            rival = ("decoding it again", decode_us) if nbytes == DECODED_BYTES else None
            note = "above 1: decoding is cheaper, so that decoded tiles are not asked for" if rival else ""
            rows.append(make_row(what, seconds / count * 1e6, "us", rival=rival, note=note))
    return rows


def hit_rows(folder: Path, *, times: int = 200) -> list[dict[str, Any]]:
    """Return what a hit costs in each tier of one process."""
    blocks = new_block_cache(64 << 20)
    pixels = np.zeros((256, 256, 3), np.uint8)
    blocks.keep(("image", 0, 0, 0), Block(pixels=pixels))
    _keep(TILE_BYTES, 64)
    disk = DiskTier(claim_folder(folder / "hits"), LEAST_BYTES)
    ranges = [(number * TILE_BYTES, TILE_BYTES) for number in range(64)]
    disk.put(b"asked", {one: np.random.default_rng(one[0]).bytes(TILE_BYTES) for one in ranges})
    disk.flush()
    costs: tuple[tuple[str, Callable[[], object], int], ...] = (
        ("a hit among decoded blocks", lambda: blocks.find(("image", 0, 0, 0)), 1),
        ("a hit among compressed tiles", lambda: kept_ranges.get(b"asked", 0, TILE_BYTES), 1),
        ("a hit on the disk", lambda: disk.get(b"asked", ranges[:1]), 1),
        ("64 hits on the disk at once, each", lambda: disk.get(b"asked", ranges), 64),
    )
    rows = [make_row(name, _median_us(use, times) / count, "us") for name, use, count in costs]
    kept_ranges.reset()
    return rows


def _median_us(use: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        use()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e6


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        slide = write_gigapixel(Path(folder) / "slide.svs", shape_of(0.2))
        return [
            second_row(slide, rounds=5),
            *slow_rows(Path(folder), edge_px=4096, rounds=3),
            *asking_rows(slide),
            *hit_rows(Path(folder)),
        ]
