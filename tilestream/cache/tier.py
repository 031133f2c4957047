"""A tier of decoded tiles: values by key under a byte budget, for this run and, where there is room, for later ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from tilestream.cache.tally import tell

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 512
"""Charged for the bookkeeping of an entry, so that blocks that are absent cost something too."""
SHARED_PART = 4
"""Values that this run asks for again may push out those kept for later runs, down to this part of the budget."""
STALE_BUDGETS = 8
"""A value that nobody asked for while this many budgets of others were made may be pushed out by any."""


@dataclass(slots=True)
class _Held(Generic[V]):
    """A value that is kept."""

    value: V
    nbytes: int
    used_at: int
    """Bytes that had been made when it was last asked for."""


class Tier(Generic[K, V]):
    """Values by key under a byte budget; safe under threads.

    Two kinds of values share the budget. Those that this run asks for again, such as blocks that reach out of a
    super-tile: the least recently used goes first. And those that only a later run asks for: they are kept as long as
    there is room and push out nothing that is not stale. So a first pass over more than fits costs nothing, and a
    second one finds what the first has kept, where least-recently-used would find none of it.

    Parameters
    ----------
    budget_bytes : int
        Most bytes held; 0 holds nothing.
    nbytes : callable
        Memory that a value keeps alive, without `ENTRY_BYTES`.
    name : str
        Under which hits, misses, bytes and evictions are counted.

    Notes
    -----
    `zict.LRU` was used before. It lets several threads exceed its budget together for a moment, and cannot say whether
    a block would be kept before it is decoded, on which it depends where it is decoded to.
    """

    def __init__(self, budget_bytes: int, nbytes: Callable[[V], int], name: str) -> None:
        self.budget_bytes = budget_bytes
        self._nbytes, self._name = nbytes, name
        self._lock = Lock()
        self._shared: OrderedDict[K, _Held[V]] = OrderedDict()
        self._later: OrderedDict[K, _Held[V]] = OrderedDict()
        self._shared_bytes = self._later_bytes = 0
        self._clock = 0

    @property
    def held_bytes(self) -> int:
        """Return the bytes that are held now."""
        return self._shared_bytes + self._later_bytes

    def __contains__(self, key: K) -> bool:
        """Return whether a value is held now; asking does not count as a use of it."""
        return self.peek(key) is not None

    def peek(self, key: K) -> tuple[V] | None:
        """Return the value of `key` in a tuple, None where it is not held; looking does not count as a use of it."""
        with self._lock:
            held = self._shared.get(key) or self._later.get(key)
        return None if held is None else (held.value,)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of `key`, from memory or by calling `make`, and keep it for this run.

        Parameters
        ----------
        key : hashable
            Its identity.
        make : callable
            Makes it; what it raises is passed on and nothing is kept.

        Returns
        -------
        object
            The value.
        """
        if self.budget_bytes <= 0:
            return make()
        held = self.find(key)
        if held is not None:
            return held[0]
        # Two threads may make the same value at the same time: cheaper than making one wait for the other.
        value = make()
        self.keep(key, value)
        return value

    def find(self, key: K) -> tuple[V] | None:
        """Return the value of `key` in a tuple, since it may be None; None where it is not held."""
        with self._lock:
            kind = self._shared if key in self._shared else self._later
            held = kind.get(key)
            if held is not None:
                kind.move_to_end(key)
                held.used_at = self._clock
        if held is None:
            tell(self._name, misses=1)
            return None
        tell(self._name, hits=1, bytes=held.nbytes - ENTRY_BYTES)
        return (held.value,)

    def has_room(self, nbytes: int) -> bool:
        """Return whether a value that only a later run will ask for would be kept; to be asked once a value.

        Parameters
        ----------
        nbytes : int
            Its size.

        Returns
        -------
        bool
            Whether `keep_later` is worth a call.
        """
        nbytes += ENTRY_BYTES
        with self._lock:
            self._clock += nbytes
            return nbytes <= self.budget_bytes // 2 and (
                self.held_bytes + nbytes <= self.budget_bytes or self._stale() is not None
            )

    def keep(self, key: K, value: V) -> None:
        """Keep a value that this run asks for again; it may push out others."""
        nbytes = self._nbytes(value) + ENTRY_BYTES
        with self._lock:
            if nbytes > self.budget_bytes // 2:
                return
            self._clock += nbytes
            self._drop(key)
            evictions = 0
            while self.held_bytes + nbytes > self.budget_bytes:
                is_much = self._shared_bytes + nbytes > self.budget_bytes // SHARED_PART
                kind = self._shared if self._shared and (is_much or not self._later) else self._later
                evictions += self._drop(next(iter(kind)))
            self._shared[key] = _Held(value, nbytes, self._clock)
            self._shared_bytes += nbytes
        tell(self._name, evictions=evictions)

    def keep_later(self, key: K, value: V) -> None:
        """Keep a value that a later run may ask for, if there is room."""
        nbytes = self._nbytes(value) + ENTRY_BYTES
        evictions = 0
        with self._lock:
            if nbytes > self.budget_bytes // 2:
                return
            self._drop(key)
            while self.held_bytes + nbytes > self.budget_bytes:
                stale = self._stale()
                if stale is None:  # another thread has taken the room
                    break
                evictions += self._drop(stale[0])
            else:
                self._later[key] = _Held(value, nbytes, self._clock)
                self._later_bytes += nbytes
        tell(self._name, evictions=evictions)

    def resize(self, budget_bytes: int) -> None:
        """Change the budget, and drop what no longer fits."""
        evictions = 0
        with self._lock:
            self.budget_bytes = budget_bytes
            while self.held_bytes > budget_bytes:
                evictions += self._drop(next(iter(self._shared or self._later)))
        tell(self._name, evictions=evictions)

    def clear(self) -> None:
        """Drop every value."""
        with self._lock:
            self._shared.clear()
            self._later.clear()
            self._shared_bytes = self._later_bytes = 0

    def _stale(self) -> tuple[K] | None:
        for kind in (self._later, self._shared):
            oldest = next(iter(kind), None)
            if oldest is not None and kind[oldest].used_at < self._clock - STALE_BUDGETS * self.budget_bytes:
                return (oldest,)
        return None

    def _drop(self, key: K) -> int:
        """Drop a value and return how many were dropped."""
        if key in self._shared:
            self._shared_bytes -= self._shared.pop(key).nbytes
        elif key in self._later:
            self._later_bytes -= self._later.pop(key).nbytes
        else:
            return 0
        return 1
