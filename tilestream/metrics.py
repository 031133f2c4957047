"""Counters and timers of the current task, collected without passing an object through every call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from tilestream.life import LIFE

STEPS = frozenset((
    "read", "decode", "gather", "supply", "wait", "transfer", "paste", "levels", "encode", "store", "write", "plan",
    "finish",
))  # fmt: skip
"""Steps of our own that take time in a run; a stage of the same name is another step."""

_STAGE = "stage "


def stage_step(name: str) -> str:
    """Return the name of the step in which a stage computes: its own, unless a step of ours is called so."""
    return f"{_STAGE}{name}" if name in STEPS else name


def stage_of(step: str) -> str:
    """Return the name of the stage that computes in a step, which `stage_step` gave."""
    return step.removeprefix(_STAGE)


@dataclass
class Meter:
    """Sums of seconds and counts by name; belongs to one task and one thread."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by step."""
    counts: dict[str, int] = field(default_factory=dict)
    """Events and bytes by name."""

    def add(self, other: Meter) -> None:
        """Add the figures of a thread that has worked for this task; that thread must be done."""
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for name, amount in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + amount


# A context variable, not a global: tasks run in many threads of one process and must not mix their figures.
_current: ContextVar[Meter | None] = ContextVar("tilestream_meter", default=None)


@contextmanager
def collect() -> Iterator[Meter]:
    """Yield a meter that takes what `timed` and `count` report inside the block.

    Yields
    ------
    Meter
        The figures, complete when the block has ended.
    """
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)


class timed:
    """Adds the wall time of a block to a step, if anybody collects.

    A class, since a generator would cost more than the smallest of the steps that it measures.

    Parameters
    ----------
    name : str
        Step, such as `read` or `decode`.
    """

    __slots__ = ("_meter", "_name", "_start")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._meter = _current.get()
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._meter is not None:
            seconds = self._meter.seconds
            seconds[self._name] = seconds.get(self._name, 0.0) + time.perf_counter() - self._start
            LIFE.sign()


def advance() -> None:
    """Note that a long step without a name of its own goes on, if anybody collects; other threads are no task."""
    if _current.get() is not None:
        LIFE.sign()


def merge(other: Meter) -> None:
    """Add the figures of another thread that has worked for this task, if anybody collects."""
    meter = _current.get()
    if meter is not None:
        meter.add(other)


def spent(name: str, seconds: float) -> None:
    """Add seconds that another clock has measured, such as a device's, to a step, if anybody collects.

    Parameters
    ----------
    name : str
        Step, such as `transfer`.
    seconds : float
        What to add.
    """
    meter = _current.get()
    if meter is not None:
        meter.seconds[name] = meter.seconds.get(name, 0.0) + seconds


def count(name: str, amount: int = 1) -> None:
    """Add `amount` to the counter `name`, if anybody collects.

    Parameters
    ----------
    name : str
        Counter, such as `bytes_read` or `cache.decoded.hits`.
    amount : int
        What to add.
    """
    meter = _current.get()
    if meter is not None:
        meter.counts[name] = meter.counts.get(name, 0) + amount
