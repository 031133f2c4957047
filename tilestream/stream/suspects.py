"""Tasks that lost their worker, each tried with nothing beside it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from tilestream.stream.running import Task

SETTLED_S, NOT_SETTLED_S = 5.0, 60.0
"""How long workers must have neither come nor gone before a task that lost its worker runs alone, and how long that is
waited for: one that dies before its nanny has heard that it started, seconds after the scheduler has, is not started
again."""


class Suspects:
    """Finds the task that ends its worker among those that were lost with it.

    Notes
    -----
    Each is tried alone, twice if need be: once it may have been given to a worker that was dead already, which nobody
    had heard.
    """

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._is_trying = False
        self._lost_at = self._changed_at = float("-inf")
        self._workers: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        """Return whether one waits or is being tried, so that no other task may start."""
        return self._is_trying or bool(self._waiting)

    def see(self, workers: Iterable[str]) -> None:
        """Take note of who is there.

        Parameters
        ----------
        workers : iterable of str
            Addresses.
        """
        seen = frozenset(workers)
        if seen != self._workers:
            self._workers, self._changed_at = seen, time.monotonic()

    def add(self, task: Task) -> None:
        """Let a task that lost its worker wait for its turn, the last one if it was alone.

        Parameters
        ----------
        task : Task
            Of one unit, or of a step.
        """
        self._lost_at = time.monotonic()
        self._waiting.append(replace(task, is_alone=True, is_last_try=task.is_alone))

    def take(self) -> Task | None:
        """Return the next one to be tried, nothing as long as workers come and go or none is there."""
        now = time.monotonic()
        is_settled = now - self._changed_at > SETTLED_S or now - self._lost_at > NOT_SETTLED_S
        if self._is_trying or not self._waiting or not self._workers or not is_settled:
            return None
        self._is_trying = True
        return self._waiting.popleft()

    def tried(self) -> None:
        """Take note that the one being tried has come to an end, or is not wanted any more."""
        self._is_trying = False
