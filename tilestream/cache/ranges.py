"""Bytes of remote files that this process has and will want again: headers, and tiles asked for ahead of their use."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import TypeAlias

from tilestream.cache import limits
from tilestream.cache.tally import COMPRESSED, PEER, tell

Range: TypeAlias = tuple[int, int]
"""First byte and number of bytes."""
MOST_TRIED = 8
"""Kept ranges that begin before a wanted one and are looked at, nearest first."""


class KeptRanges:
    """Ranges of files, the least recently used forgotten first; safe under threads.

    Parameters
    ----------
    budget_bytes : callable
        Returns the most bytes kept, which may change.
    tier : str
        Under which what is pushed out is counted.
    """

    def __init__(self, budget_bytes: Callable[[], int], tier: str = COMPRESSED) -> None:
        self._budget, self._tier = budget_bytes, tier
        self.reset()

    @property
    def budget_bytes(self) -> int:
        """Return the most bytes kept."""
        return self._budget()

    @property
    def held_bytes(self) -> int:
        """Return the bytes that are kept now."""
        return self._bytes

    def reset(self) -> None:
        """Forget everything, and the lock, which a thread of a parent process may have held."""
        self._lock = Lock()
        self._ranges: OrderedDict[tuple[Hashable, int], bytes] = OrderedDict()
        self._starts: dict[Hashable, list[int]] = {}
        self._bytes = 0

    def put(self, file: Hashable, start: int, data: bytes) -> None:
        """Keep a range.

        Parameters
        ----------
        file : Hashable
            What tells the file, in the state it is in, from others.
        start : int
            First byte.
        data : bytes
            What stands there. More than half of the budget is not kept.
        """
        if not data or len(data) > self.budget_bytes // 2:
            return
        evictions = 0
        with self._lock:
            stop = start + len(data)
            if self._holder(file, start, stop) is not None:
                return
            starts = self._starts.get(file, [])
            inside = starts[bisect_left(starts, start) : bisect_left(starts, stop)]
            for one in [one for one in inside if one + len(self._ranges[file, one]) <= stop]:
                self._drop(file, one)  # a later, smaller one would hide this one from `get`
            self._drop(file, start)
            evictions = self._make_room(len(data))
            self._ranges[file, start] = data
            insort(self._starts.setdefault(file, []), start)
            self._bytes += len(data)
        tell(self._tier, evictions=evictions)

    def get(self, file: Hashable, start: int, stop: int) -> bytes | None:
        """Return the bytes of a range that lies in a kept one, None where none does.

        Parameters
        ----------
        file : Hashable
            As for `put`.
        start, stop : int
            First byte, and the one behind the last.

        Returns
        -------
        bytes or None
            Exactly `stop - start` of them.
        """
        with self._lock:
            first = self._holder(file, start, stop)
            if first is None:
                return None
            self._ranges.move_to_end((file, first))
            return self._ranges[file, first][start - first : stop - first]

    def _holder(self, file: Hashable, start: int, stop: int) -> int | None:
        """Return the first byte of a kept range that holds another, None where none does."""
        starts = self._starts.get(file, [])
        number = bisect_right(starts, start)
        for first in reversed(starts[max(0, number - MOST_TRIED) : number]):  # they may overlap
            if stop <= first + len(self._ranges[file, first]):
                return first
        return None

    def fit(self) -> None:
        """Drop what no longer fits, after the budget has changed."""
        with self._lock:
            evictions = self._make_room(0)
        tell(self._tier, evictions=evictions)

    def _make_room(self, nbytes: int) -> int:
        evictions, most = 0, self.budget_bytes - nbytes
        while self._bytes > most and self._ranges:
            self._drop(*next(iter(self._ranges)))
            evictions += 1
        return evictions

    def _drop(self, file: Hashable, start: int) -> None:
        data = self._ranges.pop((file, start), None)
        if data is not None:
            self._bytes -= len(data)
            self._starts[file].remove(start)
            if not self._starts[file]:
                del self._starts[file]


kept_ranges = KeptRanges(limits.compressed_bytes)
"""What this process has read or will read."""
owned_ranges = KeptRanges(limits.owned_bytes, PEER)
"""What others have fetched and this process is asked for; apart, so that it does not push out what is read ahead."""

if hasattr(os, "register_at_fork"):
    for _ranges in (kept_ranges, owned_ranges):
        os.register_at_fork(after_in_child=_ranges.reset)
