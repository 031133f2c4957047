"""Interrupts held back until the loop of a run is at a point where it can stop cleanly."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Remembers the first SIGINT or SIGTERM; a second one acts at once.

    Raised anywhere, a `KeyboardInterrupt` leaves coroutines unawaited, and inside a `__del__` it is lost.

    Parameters
    ----------
    wake : callable
        Called when a signal has come, so that a waiting loop looks up; must be safe inside a signal handler.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._before: dict[int, Any] = {}
        self._handlers: dict[int, Any] = {}
        self._came: int | None = None

    def check(self) -> None:
        """Do what the signal that has come would have done; to be called where the loop can stop."""
        if self._came is not None:
            self._act(self._came, None)

    def install(self) -> None:
        """Take over the signals that something in Python handles; in any thread but the main one, nothing."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):
                    self._before[number] = self._handlers[number] = signal.signal(number, self._hear)
        except ValueError:
            return

    def restore(self) -> None:
        """Give the signals back."""
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._came is not None:
            self._act(number, frame)
        self._came = number
        self._wake()

    def _act(self, number: int, frame: FrameType | None) -> None:
        self._came = None
        self.restore()
        self._handlers[number](number, frame)


@contextmanager
def held_back(wake: Callable[[], None]) -> Iterator[Interrupts]:
    """Yield the interrupts of the block, whose `check` raises what they would have raised.

    Parameters
    ----------
    wake : callable
        Called when a signal has come.

    Yields
    ------
    Interrupts
        To be checked in the loop.
    """
    interrupts = Interrupts(wake)
    interrupts.install()
    try:
        yield interrupts
    finally:
        interrupts.restore()
    interrupts.check()  # one that came after the last look is not lost
