"""Decoded blocks: the budget is never exceeded, and a later run finds what the first has kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import tilestream as ts
from tilestream.cache import blocks, limits
from tilestream.cache.blocks import BlockCache, block_cache, fit_blocks, new_block_cache
from tilestream.cache.tally import by_tier
from tilestream.cache.tier import ENTRY_BYTES, STALE_BUDGETS
from tilestream.metrics import collect
from tilestream.stream.batches import stream_tiles
from tilestream.testing.slide import write_slide
from tilestream.types import Block, Shape

BLOCK_BYTES = 1000 - ENTRY_BYTES  # so that an entry is 1000


def block(nbytes: int = BLOCK_BYTES) -> Block:
    return Block(pixels=np.zeros((1, nbytes, 1), np.uint8))


def key(number: int) -> tuple[str, int, int, int]:
    return "image", 0, 0, number


def charged(cache: BlockCache) -> int:
    return sum(one.nbytes for kind in (cache._shared, cache._later) for one in kind.values())


def held(cache: BlockCache, numbers: range) -> list[int]:
    return [number for number in numbers if cache.find(key(number))]


def second_pass(cache: BlockCache, numbers: range) -> int:
    """Go through blocks as a run does that will not ask for them again; return how many were found."""
    hits = 0
    for number in numbers:
        if cache.find(key(number)):
            hits += 1
        elif cache.has_room(BLOCK_BYTES):
            cache.keep_later(key(number), block())
    return hits


def test_the_least_recently_used_goes_first():
    cache = new_block_cache(3000)
    for number in (0, 1, 2):
        cache.keep(key(number), block())
    assert cache.find(key(0))
    with collect() as meter:
        cache.keep(key(3), block())
    assert held(cache, range(4)) == [0, 2, 3]
    assert by_tier(meter.counts) == {"decoded": {"hits": 0, "misses": 0, "bytes": 0, "evictions": 1}}


def test_a_later_run_finds_all_that_fits_and_of_more_what_fits():
    cache = new_block_cache(10_000)
    assert second_pass(cache, range(10)) == 0
    assert second_pass(cache, range(10)) == 10
    # of twice as much, where least-recently-used would find nothing: each block would push out the one wanted next
    assert second_pass(cache, range(20)) == 10
    assert second_pass(cache, range(20)) == 10


def test_what_nobody_asks_for_any_more_makes_room():
    cache = new_block_cache(10_000)
    second_pass(cache, range(10))
    for _ in range(STALE_BUDGETS + 3):
        second_pass(cache, range(100, 110))
    assert second_pass(cache, range(100, 110)) == 10
    assert not held(cache, range(10))


def test_blocks_of_this_run_leave_those_for_later_most_of_the_room():
    cache = new_block_cache(20_000)
    second_pass(cache, range(20))
    for number in range(100, 200):
        cache.keep(key(number), block())
    assert len(held(cache, range(20))) == 15
    assert held(cache, range(100, 200)) == [195, 196, 197, 198, 199]


def test_a_part_of_an_array_is_charged_with_all_of_it():
    cache = new_block_cache(100_000)
    whole = np.zeros((1, 60_000, 1), np.uint8)
    cache.keep(key(0), Block(pixels=whole[:, :100]))
    assert cache.held_bytes == 0
    cache.keep(key(1), Block(pixels=whole[:, :100].copy()))
    assert cache.held_bytes == 100 + ENTRY_BYTES
    cache.keep(key(2), None)  # absent ones cost something too
    assert cache.held_bytes == 100 + 2 * ENTRY_BYTES
    assert cache.find(key(2)) == (None,)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["keep", "later", "find", "resize"]), st.integers(0, 9), st.integers(0, 3000)),
        max_size=80,
    )
)
def test_the_budget_is_true_at_every_step(steps):
    cache = new_block_cache(8000)
    for step, number, nbytes in steps:
        if step == "keep":
            cache.keep(key(number), block(nbytes))
        elif step == "later" and cache.has_room(nbytes):
            cache.keep_later(key(number), block(nbytes))
        elif step == "find":
            cache.find(key(number))
        elif step == "resize":
            cache.resize(nbytes * 3)
        assert cache.held_bytes == charged(cache) <= cache.budget_bytes


def test_the_budget_is_true_under_32_threads():
    cache = new_block_cache(50_000)
    most = []

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).integers(0, 200, 300).tolist():
            cache.get(key(number), block)
            if cache.has_room(BLOCK_BYTES):
                cache.keep_later(key(number + 1000), block())
            with cache._lock:
                most.append(cache.held_bytes)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert cache.held_bytes == charged(cache)
    assert max(most) <= 50_000


@pytest.mark.parametrize("keep", ["keep", "keep_later"])
def test_a_budget_that_shrinks_while_a_block_is_on_its_way(keep, monkeypatch):
    cache = new_block_cache(50_000)
    lock = cache._lock

    class Late:
        """The lock, which another thread has first."""

        def __enter__(self) -> None:
            cache._lock = lock
            cache.resize(100)
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(cache, "_lock", Late())
    getattr(cache, keep)(key(1), block())
    assert cache.held_bytes == charged(cache) == 0


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("host_bytes", [None, 10_000_000])
def test_workers_of_a_machine_share_its_budget(workers, host_bytes):
    share = limits.Limits.of_machine(host_bytes, workers)
    whole = limits.Limits.of_machine(host_bytes, 1)
    assert workers * sum(astuple(share)) <= (host_bytes or 2**62)
    assert share.decoded <= whole.decoded
    if host_bytes is None:
        assert share.decoded <= limits.DECODED_BYTES


@pytest.fixture
def process(monkeypatch):
    """A process whose caches nobody has used yet."""
    monkeypatch.setattr(blocks, "_process", blocks._Process())
    yield
    limits.set_limits(None)


def test_a_process_has_one_cache_which_shrinks_to_its_share_of_the_machine(process):
    cache = block_cache(20_000)
    assert block_cache(400) is cache is block_cache(10_000)
    assert cache.budget_bytes == 20_000
    for number in range(20):
        cache.keep(key(number), block())
    limits.set_limits(limits.Limits(decoded=5000, images=0, compressed=1000, owned=0, indexes=1000))
    fit_blocks()
    assert cache.held_bytes == cache.budget_bytes == 5000
    assert block_cache(30_000).budget_bytes == 5000
    limits.set_limits(None)
    fit_blocks()
    assert cache.budget_bytes == 30_000


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "a.svs"
    write_slide(path, Shape(y=1024, x=1024), tile_px=128)
    return path


@pytest.mark.parametrize("tile_px", [128, 96])
def test_a_second_pass_decodes_nothing(slide, tile_px, monkeypatch):
    monkeypatch.setattr(
        blocks, "_process", blocks._Process()
    )  # blocks that others have found again stay in the shared one

    def supply(cache_bytes: int) -> tuple[list[np.ndarray], dict[str, int]]:
        pyramid = ts.open_pyramid(slide, cache_bytes=cache_bytes)
        plan = ts.plan_tiles(pyramid, tile_px=tile_px, where="all", super_tile_px=4 * tile_px)
        with collect() as meter:
            return [np.ascontiguousarray(batch.pixels) for batch in stream_tiles(pyramid, plan)], meter.counts

    plain, _ = supply(0)
    first, counts = supply(16 << 20)
    assert counts["cache.decoded.misses"] >= 64
    second, again = supply(16 << 20)
    assert "cache.decoded.misses" not in again
    assert "bytes_read" not in again
    for one, other, third in zip(plain, first, second, strict=True):
        assert np.array_equal(one, other)
        assert np.array_equal(one, third)


def test_a_slide_that_changes_is_decoded_again(tmp_path):
    slide = write_slide(tmp_path / "a.svs", Shape(y=2048, x=2048), tile_px=256)

    def read() -> np.ndarray:
        pyramid = ts.open_pyramid(slide, cache_bytes=17 << 20)
        plan = ts.plan_tiles(pyramid, tile_px=128, where="all")
        return np.concatenate([batch.pixels.copy() for batch in stream_tiles(pyramid, plan)])

    before = read()
    with tifffile.TiffFile(slide) as tiff:
        at, nbytes = tiff.pages.first.dataoffsets[32], tiff.pages.first.databytecounts[32]
    data = bytearray(slide.read_bytes())
    data[at + nbytes // 2 : at + nbytes // 2 + 8] = bytes(8)  # tables and size stay, and so does the fingerprint
    fingerprint = ts.open_pyramid(slide).fingerprint
    slide.write_bytes(data)
    assert ts.open_pyramid(slide).fingerprint == fingerprint
    assert not np.array_equal(read(), before)
