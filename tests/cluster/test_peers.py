"""Workers that ask each other: right answers are used, and whatever else comes back, the source is asked in time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.cache.ranges import kept_ranges, owned_ranges
from tilestream.cache.stack import CacheConfig, use_caches
from tilestream.cache.tally import by_tier
from tilestream.cluster import peers as module
from tilestream.cluster.breaker import FAILURES
from tilestream.cluster.peers import ANSWER_BYTES, ASK, GROUP_BYTES, OFFER, Peers, answer_ranges, owner_of, take_ranges
from tilestream.metrics import collect

HERE, THERE = "tcp://10.0.0.1:1", "tcp://10.0.0.2:2"
FILE = b"a file as it is"
TIMEOUT_S = 0.3


def mine(count: int, members=(HERE, THERE), owner: str = THERE) -> list[tuple[int, int]]:
    """Ranges that a member owns."""
    groups = (group for group in range(10_000) if owner_of(FILE, group, members) == owner)
    return [(next(groups) * GROUP_BYTES + 77, 1000 + number) for number in range(count)]


def content(start: int, nbytes: int) -> bytes:
    return np.random.default_rng(start).bytes(nbytes)


def part(start: int, data: bytes) -> tuple[int, bytes, int]:
    return start, data, google_crc32c.value(data)


class Neighbour:
    """A peer that answers as a test says."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, []
        self.offered: list[tuple[int, bytes, int]] = []

    def __getattr__(self, call: str) -> Any:
        async def called(**message: Any) -> Any:
            if call == OFFER:
                self.offered += message["parts"]
                return None
            assert call == ASK
            self.asked.append(message["ranges"])
            found = self.answer(**message)
            return await found if asyncio.iscoroutine(found) else found

        return called


async def ended() -> None:
    """Wait for what is still under way, so that no coroutine is left behind."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for one in others:
        one.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def loop() -> Iterator[Any]:
    """A loop in a thread, as a worker has one."""
    running = asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()
    yield SimpleNamespace(
        asyncio_loop=running,
        add_callback=lambda function, *args: asyncio.run_coroutine_threadsafe(function(*args), running),
    )
    asyncio.run_coroutine_threadsafe(ended(), running).result(30)
    running.call_soon_threadsafe(running.stop)
    thread.join()
    running.close()


@pytest.fixture
def peers(loop) -> Iterator[Any]:
    def made(answer: Any, members=(HERE, THERE)) -> tuple[Peers, Neighbour]:
        neighbour = Neighbour(answer)
        worker = SimpleNamespace(address=HERE, loop=loop, rpc=lambda address: neighbour)
        tier = Peers(worker, timeout_s=TIMEOUT_S)
        use_caches(CacheConfig(host_bytes=512 << 20))
        tier.members(members)
        return tier, neighbour

    yield made
    use_caches(None)
    for ranges in (kept_ranges, owned_ranges):
        ranges.reset()


def right(file, ranges):
    return [part(start, content(start, nbytes)) for start, nbytes in ranges]


async def late(file, ranges):
    await asyncio.sleep(60)


def raises(file, ranges):
    raise OSError("connection refused")


def test_what_the_owner_has_is_used(peers):
    tier, neighbour = peers(lambda file, ranges: right(file, ranges[:3]))
    wanted = mine(5)
    with collect() as meter:
        assert tier.get(FILE, wanted) == {one: content(*one) for one in wanted[:3]}
    assert by_tier(meter.counts)["peer"] == {"hits": 3, "misses": 2, "bytes": 3003, "evictions": 0}
    assert neighbour.asked == [wanted]


def test_what_this_worker_owns_is_asked_of_nobody(peers):
    tier, neighbour = peers(right)
    assert tier.get(FILE, mine(5, owner=HERE)) == {}
    assert not neighbour.asked


def test_workers_of_one_process_have_the_same_and_do_not_ask(peers):
    members = ("inproc://10.0.0.1/77/1", "inproc://10.0.0.1/77/2")
    tier, neighbour = peers(right, members)
    tier._worker.address = members[0]
    assert tier.get(FILE, mine(5, members, owner=members[1])) == {}
    assert not neighbour.asked


def flipped(file, ranges):
    found = right(file, ranges)
    start, data, checksum = found[-1]
    return [*found[:-1], (start, bytes([data[0] ^ 1]) + data[1:], checksum)]


def cut(file, ranges):
    return [part(start, content(start, nbytes)[:-1]) for start, nbytes in ranges]


def another_place(file, ranges):
    return [part(start + 1, content(start, nbytes)) for start, nbytes in ranges]


@pytest.mark.parametrize(
    "answer", [raises, flipped, cut, another_place, lambda **_: None, lambda **_: [1], lambda **_: {"a": 1}]
)
def test_a_wrong_answer_is_not_used_and_its_giver_left_out(peers, answer):
    tier, neighbour = peers(answer)
    wanted = mine(4)
    for _ in range(FAILURES + 2):
        assert tier.get(FILE, wanted) == {}
    assert len(neighbour.asked) == FAILURES


def test_a_peer_that_never_answers_costs_a_time_out_and_then_nothing(peers):
    tier, neighbour = peers(late)
    wanted = mine(4)
    started = time.monotonic()
    for _ in range(50):
        assert tier.get(FILE, wanted) == {}
    assert time.monotonic() - started < 50 * TIMEOUT_S / 2
    assert len(neighbour.asked) == FAILURES


def test_a_loop_that_hangs_is_not_waited_for(peers, loop):
    tier, _ = peers(right)
    release = threading.Event()
    loop.asyncio_loop.call_soon_threadsafe(release.wait)
    started = time.monotonic()
    assert tier.get(FILE, mine(1)) == {}
    assert time.monotonic() - started < 30
    release.set()


def test_a_loop_that_ends_costs_no_answer_but_this_one(peers, loop):
    asked = threading.Event()

    async def cancelled(file, ranges):
        asked.set()
        await asyncio.sleep(60)

    tier, _ = peers(cancelled)
    tier._timeout_s = 30
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(tier.get, FILE, mine(1))
        assert asked.wait(30)
        asyncio.run_coroutine_threadsafe(ended(), loop.asyncio_loop).result(30)  # as a worker does at its end
        assert found.result(30) == {}


def test_no_more_questions_wait_than_may(peers, monkeypatch):
    monkeypatch.setattr(module, "ASKS", 1)
    asked = threading.Event()
    go_on = threading.Event()

    async def slow(file, ranges):
        asked.set()
        while not go_on.is_set():
            await asyncio.sleep(0.005)
        return right(file, ranges)

    tier, _ = peers(slow)
    found: list[Any] = []
    wanted = mine(1)
    first = threading.Thread(target=lambda: found.append(tier.get(FILE, wanted)))
    first.start()
    assert asked.wait(30)
    assert tier.get(FILE, wanted) == {}
    go_on.set()
    first.join()
    assert found in ([{wanted[0]: content(*wanted[0])}], [{}])  # the latter where the machine took longer than allowed


def test_questions_and_answers_are_of_a_bounded_size(peers, loop):
    tier, neighbour = peers(lambda **_: [])
    large = [(start, ANSWER_BYTES // 2 - 1) for start, _ in mine(5)]
    assert tier.get(FILE, [*large, (large[0][0], ANSWER_BYTES + 1)]) == {}
    assert sorted(map(len, neighbour.asked)) == [1, 2, 2]
    for start, nbytes in large:
        kept_ranges.put(FILE, start, bytes(nbytes))
    assert len(answer_ranges(FILE, large)) == 2


def test_what_was_fetched_is_offered_to_its_owner(peers, loop):
    tier, neighbour = peers(right)
    theirs, ours = mine(3), mine(3, owner=HERE)
    tier.offer(FILE, {one: content(*one) for one in theirs + ours})
    deadline = time.monotonic() + 30
    while len(neighbour.offered) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sorted(neighbour.offered) == sorted(right(FILE, theirs))
    take_ranges(FILE, [*neighbour.offered[:2], (neighbour.offered[2][0], b"rotten", 1)])
    assert sorted(answer_ranges(FILE, theirs)) == sorted(neighbour.offered[:2])
    assert kept_ranges.held_bytes == 0  # what is offered does not push out what is read ahead
    tier.members((HERE,))
    assert set(tier.get(FILE, theirs)) == {(start, len(data)) for start, data, _ in neighbour.offered[:2]}


@given(
    members=st.lists(st.integers(1, 99), min_size=2, max_size=8, unique=True),
    groups=st.lists(st.integers(0, 10**6), min_size=1, max_size=30),
)
def test_a_member_that_leaves_changes_only_what_it_owned(members, groups):
    addresses = [f"tcp://10.0.0.{number}:8000" for number in members]
    left = addresses[0]
    for group in groups:
        before = owner_of(FILE, group, addresses)
        assert before == owner_of(FILE, group, addresses[::-1])
        if before != left:
            assert owner_of(FILE, group, addresses[1:]) == before


def test_members_own_about_as_much():
    addresses = [f"tcp://10.0.0.{number}:8000" for number in range(4)]
    owned = Counter(owner_of(FILE, group, addresses) for group in range(2000))
    assert min(owned.values()) > 350
    assert owner_of(FILE, 1, []) == ""
