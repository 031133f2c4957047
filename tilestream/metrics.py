"""Counters and timers of the current task, collected without passing an object through every call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class Meter:
    """Sums of seconds and counts by name; belongs to one task and one thread."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time by step."""
    counts: dict[str, int] = field(default_factory=dict)
    """Events and bytes by name."""


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


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Add the wall time of the block to the step `name`, if anybody collects.

    Parameters
    ----------
    name : str
        Step, such as `read` or `decode`.

    Yields
    ------
    None
        Nothing.
    """
    meter = _current.get()
    if meter is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        meter.seconds[name] = meter.seconds.get(name, 0.0) + time.perf_counter() - start


def count(name: str, amount: int = 1) -> None:
    """Add `amount` to the counter `name`, if anybody collects.

    Parameters
    ----------
    name : str
        Counter, such as `bytes_read` or `cache_hits`.
    amount : int
        What to add.
    """
    meter = _current.get()
    if meter is not None:
        meter.counts[name] = meter.counts.get(name, 0) + amount
