"""Signs of life of a process: how one that is slow is told from one in which everything hangs.

A task shows that it lives when a step of it ends: a read, a batch through a stage, a file written. How long it takes
between two of these says nothing, since stages and machines differ by orders of magnitude; so the longest silence that
came to an end is kept too, as the measure of what is still normal here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Life:
    """What a process has shown so far; one silent task beside others that live is not seen until these are done."""

    __slots__ = ("_last", "_lock", "_longest_s", "_tasks", "done")

    def __init__(self) -> None:
        self._lock = Lock()
        self._tasks = 0
        self._last = 0.0
        self._longest_s = 0.0
        self.done = 0
        """Tasks that have come to their end."""

    def sign(self) -> None:
        """Note that a step of a task has ended."""
        now = time.monotonic()  # without the lock: a lost update is a sign as well, and it is called for every tile
        if not self._tasks:  # a starter that plans in its own process
            return
        self._longest_s = max(self._longest_s, now - self._last)
        self._last = now

    @contextmanager
    def task(self) -> Iterator[None]:
        """Count a task as running during the block."""
        with self._lock:
            if not self._tasks:  # while nothing runs there is nothing to be silent
                self._last = time.monotonic()
            self._tasks += 1
        try:
            yield
        finally:
            self.sign()
            with self._lock:
                self._tasks -= 1
                self.done += 1

    @property
    def silent_s(self) -> float:
        """Return the seconds since the last sign, 0 while no task runs."""
        return time.monotonic() - self._last if self._tasks else 0.0

    @property
    def longest_s(self) -> float:
        """Return the longest silence that has ended."""
        return self._longest_s


LIFE = Life()
"""That of this process."""
