"""The peer tier: workers ask each other for what is remote, one question to whoever owns the answer.

The owner of a block of a file is found by rendezvous hashing, so that all workers agree without talking, and one that
leaves changes only what it owned. What a worker fetches from a source it offers to the owner; who lacks it asks there.
Whatever goes wrong, the source is asked: a peer that is late, dead, or answers nonsense costs a time-out, and then
nothing for a while.

Only stored bytes of remote files go this way. Decoding a tile again is cheaper than asking for its pixels
(`tests/bench/bench_caches.py` measures both).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from hashlib import blake2b
from typing import Any
from urllib.parse import urlsplit

import google_crc32c
from distributed import Worker

from tilestream.cache.ranges import Range, kept_ranges, owned_ranges
from tilestream.cache.stack import share_machine
from tilestream.cache.tally import PEER, tell
from tilestream.cluster.breaker import Breaker

ASK, OFFER = "tilestream_cached", "tilestream_cache"
"""Names of the two calls that a worker answers."""
GROUP_BYTES = 4 << 20
"""Bytes of a file that have one owner: those of about 16 x 16 tiles."""
ANSWER_BYTES = 8 << 20
"""Most bytes of one answer or offer."""
ANSWER_RANGES = 1024
"""Most ranges of one question."""
TIMEOUT_S = 0.5
"""How long a peer may take to answer."""
ASKS = 16
"""Questions of one worker that may wait for answers at once; who comes on top asks the source."""
OFFERED_BYTES = 32 << 20
"""Most bytes of one worker that are on their way to owners; more is not offered."""

_logger = logging.getLogger(__name__)
Part = tuple[int, bytes, int]
"""First byte, bytes and checksum of a range as it travels."""


class Peers:
    """The peer tier of one worker.

    Parameters
    ----------
    worker : distributed.Worker
        The worker, whose loop and connections are used.
    timeout_s : float
        How long a peer may take to answer.
    """

    def __init__(self, worker: Worker, *, timeout_s: float = TIMEOUT_S) -> None:
        self._worker, self._timeout_s = worker, timeout_s
        self._members: tuple[str, ...] = ()
        self._breaker = Breaker()
        self._asks = threading.BoundedSemaphore(ASKS)
        self._offered_bytes = 0  # changed in the loop only

    def get(self, file: bytes, ranges: Sequence[Range]) -> dict[Range, bytes]:
        """Return those of some ranges that their owners have; none when they do not answer in time.

        Parameters
        ----------
        file : bytes
            Identity of the file in the state it is in.
        ranges : sequence of (int, int)
            First byte and number of bytes.

        Returns
        -------
        dict
            Bytes by range, their length and checksum compared.
        """
        own = {one: owned_ranges.get(file, one[0], sum(one)) for one in ranges}  # what others have offered to this one
        found = {one: data for one, data in own.items() if data is not None}
        asked = len(found)
        asks = self._by_owner(file, [one for one in ranges if one not in found])
        if asks and self._asks.acquire(blocking=False):
            asked += sum(len(some) for _, some in asks)
            try:
                found |= self._run(self._ask_all(file, asks))
            finally:
                self._asks.release()
        tell(PEER, hits=len(found), misses=asked - len(found), bytes=sum(map(len, found.values())))
        return found

    def offer(self, file: bytes, parts: Mapping[Range, bytes]) -> None:
        """Give ranges to those that own them; does not wait.

        Parameters
        ----------
        file : bytes
            As for `get`.
        parts : Mapping
            Bytes by range.
        """
        for owner, ranges in self._by_owner(file, list(parts)):
            self._worker.loop.add_callback(self._offer, owner, file, {one: parts[one] for one in ranges})

    def members(self, addresses: Sequence[str]) -> None:
        """Take the addresses of all workers, and the share of this one in the memory of its machine."""
        self._members = tuple(sorted(addresses))
        here = host_of(self._worker.address)
        share_machine(len({process_of(one) for one in addresses if host_of(one) == here}))

    def _by_owner(self, file: bytes, ranges: Sequence[Range]) -> list[tuple[str, list[Range]]]:
        """Return what to ask of whom, in questions of a bounded size; of what this process owns itself, nothing."""
        members = [one for one in self._members if self._breaker.allows(one)]
        here = process_of(self._worker.address)
        asks: list[tuple[str, list[Range]]] = []
        newest: dict[str, tuple[list[Range], int]] = {}
        for start, nbytes in ranges:
            owner = owner_of(file, start // GROUP_BYTES, members)
            if not owner or process_of(owner) == here or nbytes > ANSWER_BYTES:
                continue
            some, held = newest.get(owner, ([], ANSWER_BYTES))
            if held + nbytes > ANSWER_BYTES or len(some) >= ANSWER_RANGES:
                some, held = [], 0
                asks.append((owner, some))
            some.append((start, nbytes))
            newest[owner] = some, held + nbytes
        return asks

    def _run(self, work: Coroutine[Any, Any, dict[Range, bytes]]) -> dict[Range, bytes]:
        """Return what a coroutine gives in the worker's loop, from a thread of a task."""
        loop: asyncio.AbstractEventLoop = self._worker.loop.asyncio_loop  # type: ignore[attr-defined]
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # the worker is closing
            work.close()
            return {}
        try:
            found: dict[Range, bytes] = future.result(2 * self._timeout_s)  # a busy loop may be late as well
        except (TimeoutError, CancelledError):  # the loop is late, or ends
            future.cancel()
            return {}
        return found

    async def _ask_all(self, file: bytes, asks: Sequence[tuple[str, list[Range]]]) -> dict[Range, bytes]:
        answers = await asyncio.gather(*(self._ask(owner, file, ranges) for owner, ranges in asks))
        return {one: data for answer in answers for one, data in answer.items()}

    async def _ask(self, owner: str, file: bytes, ranges: list[Range]) -> dict[Range, bytes]:
        try:
            answer = await asyncio.wait_for(
                getattr(self._worker.rpc(owner), ASK)(file=file, ranges=ranges), self._timeout_s
            )
            found = checked(ranges, answer)
        except Exception as error:  # noqa: BLE001 - whatever a peer does, the source is asked instead
            self._breaker.failed(owner)
            _logger.debug("peer %s gave no answer: %r", owner, error)
            return {}
        self._breaker.answered(owner)
        return found

    async def _offer(self, owner: str, file: bytes, parts: Mapping[Range, bytes]) -> None:
        nbytes = sum(map(len, parts.values()))
        if self._offered_bytes + nbytes > OFFERED_BYTES:
            return
        self._offered_bytes += nbytes
        try:
            signed = [(start, data, google_crc32c.value(data)) for (start, _), data in parts.items()]
            await asyncio.wait_for(
                getattr(self._worker.rpc(owner), OFFER)(file=file, parts=signed), 4 * self._timeout_s
            )
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            self._breaker.failed(owner)
            _logger.debug("peer %s took no offer: %r", owner, error)
        finally:
            self._offered_bytes -= nbytes


def owner_of(file: bytes, group: int, members: Sequence[str]) -> str:
    """Return the member that owns a group of bytes of a file, by rendezvous hashing; nothing where there is none.

    Parameters
    ----------
    file : bytes
        Identity of the file.
    group : int
        Number of the group.
    members : sequence of str
        Addresses.

    Returns
    -------
    str
        The one whose hash with the group is the largest.

    References
    ----------
    Thaler and Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Trans. Networking 6(1), 1998.
    """
    name = file + group.to_bytes(8, "big")
    return max(members, key=lambda one: blake2b(name + one.encode(), digest_size=8).digest(), default="")


def checked(ranges: Sequence[Range], answer: object) -> dict[Range, bytes]:
    """Return the ranges of an answer, each compared with its checksum.

    Parameters
    ----------
    ranges : sequence of (int, int)
        What was asked for.
    answer : object
        What came back.

    Returns
    -------
    dict
        Bytes by range.

    Raises
    ------
    ValueError
        When anything in it is not what was asked for: then nothing of it is used.
    """
    wanted, found = dict(ranges), {}
    if not isinstance(answer, list | tuple):
        raise ValueError(f"an answer of type {type(answer).__name__}")
    for start, data, checksum in answer:
        if wanted.get(start) != len(data) or google_crc32c.value(data) != checksum:
            raise ValueError(f"{len(data)} wrong bytes for {wanted.get(start)} at {start}")
        found[start, len(data)] = bytes(data)
    return found


def answer_ranges(file: bytes, ranges: Sequence[Range]) -> list[Part]:
    """Return what this worker keeps of some ranges; what a peer's question is answered with.

    Parameters
    ----------
    file : bytes
        Identity of the file.
    ranges : sequence of (int, int)
        First byte and number of bytes.

    Returns
    -------
    list of tuple
        First byte, bytes and checksum of each that is kept, as far as they are no more than one answer may hold.
    """
    found: list[Part] = []
    room = ANSWER_BYTES
    for start, nbytes in ranges[:ANSWER_RANGES]:
        data = _kept(bytes(file), start, start + nbytes) if nbytes <= room else None
        if data is not None:
            room -= nbytes
            found.append((start, data, google_crc32c.value(data)))
    return found


def _kept(file: bytes, start: int, stop: int) -> bytes | None:
    owned = owned_ranges.get(file, start, stop)
    return kept_ranges.get(file, start, stop) if owned is None else owned


def take_ranges(file: bytes, parts: Sequence[Part]) -> None:
    """Keep ranges that a peer has fetched and that this worker owns; those that are damaged are passed over."""
    for start, data, checksum in parts[:ANSWER_RANGES]:
        if google_crc32c.value(data) == checksum:
            owned_ranges.put(bytes(file), start, bytes(data))


def host_of(address: str) -> str:
    """Return the machine in the address of a worker."""
    return urlsplit(address).hostname or ""


def process_of(address: str) -> str:
    """Return an address without what tells the workers of one process apart."""
    return address.rpartition("/")[0] if address.startswith("inproc://") else address
