"""The caches of this process as one stack, and how ranges of remote files are looked for in it.

Memory is asked by whoever reads (`ranges.kept_ranges`); below it stand the disk tier, the peers, and the source itself.
"""

from __future__ import annotations

import atexit
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from tilestream.cache import limits
from tilestream.cache.blocks import fit_blocks
from tilestream.cache.fields import fit_fields
from tilestream.cache.ranges import Range, kept_ranges, owned_ranges
from tilestream.cache.worth import Worth

if TYPE_CHECKING:
    from tilestream.cache.disk import DiskTier

DISK_BYTES = 20 << 30
"""Budget of the disk tier when nothing is said."""
REMEMBERED = 1 << 15
"""Ranges of which a process remembers that the tiers below memory have them."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What caches may take; picklable, the same for all workers."""

    host_bytes: int | None = None
    """Memory that the worker processes of one machine may take together; None = the usual."""
    disk: str | None = None
    """Folder of the disk tier; None = there is none."""
    disk_bytes: int = DISK_BYTES
    """Budget of the disk tier, of all processes of a machine together."""
    peers: bool = True
    """Whether workers ask each other for bytes of remote files."""


class PeerTier(Protocol):
    """Other processes that may have what this one lacks."""

    def get(self, file: bytes, ranges: Sequence[Range]) -> dict[Range, bytes]:
        """Return those of some ranges that peers have, soon; never raises."""

    def offer(self, file: bytes, parts: Mapping[Range, bytes]) -> None:
        """Give ranges to the peers that will be asked for them; returns at once, never raises."""


@dataclass(kw_only=True)
class _Stack:
    config: CacheConfig | None = None
    disk: DiskTier | None = None
    peers: PeerTier | None = None


_stack = _Stack()
_worth = Worth()
_inherited: list[object] = []


class _Passed:
    """Which ranges disk and peers were given, so that they are not given them again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._ranges: OrderedDict[tuple[bytes, Range], None] = OrderedDict()

    def forget(self) -> None:
        """Begin anew: there are other tiers."""
        with self._lock:
            self._ranges.clear()

    def is_new(self, file: bytes, one: Range) -> bool:
        """Return whether a range was not given to them, as far as is remembered."""
        return (file, one) not in self._ranges

    def add(self, file: bytes, ranges: Iterable[Range]) -> None:
        """Remember that they have these."""
        with self._lock:
            self._ranges.update(dict.fromkeys((file, one) for one in ranges))
            while len(self._ranges) > REMEMBERED:
                self._ranges.popitem(last=False)


_passed = _Passed()


def use_caches(config: CacheConfig | None) -> None:
    """Give the caches of this process the tiers of a configuration; what they hold stays as far as it fits.

    Parameters
    ----------
    config : CacheConfig, optional
        None = as at the start: memory only, each cache with the budget that it was made with.

    Raises
    ------
    ConfigError
        When the folder of the disk tier cannot be used; nothing has changed then.
    """
    from tilestream.cache.disk import DiskTier  # most processes have none, and do without SQLite
    from tilestream.cache.diskfolder import claim_folder

    before = _stack.disk
    wanted = None
    if config is not None and config.disk is not None:
        wanted = claim_folder(Path(config.disk)), config.disk_bytes
    if before is None or (before.folder, before.budget_bytes) != wanted:
        _stack.disk = None if wanted is None else DiskTier(*wanted)
        if before is not None:
            before.close()
            atexit.unregister(before.close)
    if config != _stack.config:
        _passed.forget()
    _stack.config = config
    share_machine(1)


def share_machine(workers: int) -> None:
    """Fit the caches in memory to the share of one of so many worker processes of a machine."""
    config = _stack.config
    limits.set_limits(None if config is None else limits.Limits.of_machine(config.host_bytes, workers))
    fit_blocks()
    fit_fields()
    for ranges in (kept_ranges, owned_ranges) if config is not None else ():  # else they stay for the next run
        ranges.fit()


def _alone() -> None:
    """Leave disk and peers to the process that was forked: their locks, connections and threads are its own."""
    global _passed
    _passed = _Passed()
    if _stack.disk is not None:  # closing its file, here or at exit, would end what the parent is writing
        _inherited.append(_stack.disk)
        atexit.unregister(_stack.disk.close)
    _stack.disk = _stack.peers = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)


def use_peers(peers: PeerTier | None) -> None:
    """Set, or with None remove, the peers of this process."""
    _stack.peers = peers


def disk_tier() -> DiskTier | None:
    """Return the disk tier of this process, None where there is none."""
    return _stack.disk


def fetch_through(
    file: bytes | None, ranges: Sequence[Range], fetch: Callable[[Sequence[Range]], list[bytes]], *, source: str
) -> list[bytes]:
    """Return ranges of a remote file that memory does not have.

    Parameters
    ----------
    file : bytes or None
        Identity of the file in the state it is in; None where it cannot be told, so that only the source is asked.
    ranges : sequence of (int, int)
        First byte and number of bytes.
    fetch : callable
        Asks the source; what it raises is passed on.
    source : str
        Names the service, of which it is remembered how fast it answers.

    Returns
    -------
    list of bytes
        In the order of the ranges, each of its length.
    """
    disk, peers = _stack.disk, _stack.peers
    if file is None or (disk is None and peers is None):
        return fetch(ranges)
    found = {} if disk is None else disk.get(file, ranges)
    missing = [one for one in dict.fromkeys(ranges) if one not in found]
    if peers is not None and missing and _worth.asking(source):
        with _worth.measured_ask(len(missing)) as ask:
            told = peers.get(file, missing)
            ask.found = len(told)
        found |= told
        missing = [one for one in missing if one not in told]
        if disk is not None and told:
            disk.put(file, told)
    _passed.add(file, found)
    if missing:
        with _worth.measured_fetch(source, len(missing)):
            fresh = dict(zip(missing, fetch(missing), strict=True))
        found |= fresh
        _pass_down(file, fresh)
    return [found[one] for one in ranges]


def pass_down(file: bytes | None, parts: Mapping[Range, bytes]) -> None:
    """Give disk and peers what memory has, unless they were given it before.

    Parameters
    ----------
    file : bytes or None
        As for `fetch_through`.
    parts : Mapping
        Bytes by range: tiles that came along in a request for others, and are only now known to be some.
    """
    if file is not None and (_stack.disk is not None or _stack.peers is not None):
        _pass_down(file, {one: data for one, data in parts.items() if _passed.is_new(file, one)})


def _pass_down(file: bytes, parts: Mapping[Range, bytes]) -> None:
    _passed.add(file, parts)
    if parts and _stack.disk is not None:
        _stack.disk.put(file, parts)
    if parts and _stack.peers is not None:
        _stack.peers.offer(file, parts)
