"""One image on its way through the window, and its tasks there."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from tilestream.stream.events import Job, Prepared
from tilestream.stream.tasks import TASK_S
from tilestream.types import Unit

MOST_UNITS = 8
"""Most units of one task: its results come together."""


@dataclass
class Running:
    """The state of one job in the window."""

    job: Job
    """What it was given."""
    prepared: Prepared | None = None
    """Its plan and work, once they are there."""
    work: Any = None
    """The work as it travels."""
    units: Iterator[Unit] = field(default_factory=lambda: iter(()))
    """Units that have not been submitted yet."""
    opened: deque[Unit] = field(default_factory=deque)
    """Units that finished ones have opened."""
    busy: deque[tuple[float, Unit]] = field(default_factory=deque)
    """Units that another run holds, and when each is asked for again."""
    pending: int = 0
    """Tasks that are submitted."""
    has_begun: bool = False
    """Whether a unit, or its finish, was submitted."""
    is_over: bool = False
    """Whether its finish is submitted."""
    finish_at: float = 0.0
    """When its finish may be asked for again."""
    repeats: int = 0
    """How often it went back from its finish to units."""
    hung: set[str] = field(default_factory=set)
    """Units and steps that were in a process in which everything hung."""

    unit_s: float = 0.0
    """How long a unit takes, the latest ones counting most; 0 before the first has come back."""

    def next_units(self, threads: int) -> tuple[Unit, ...]:
        """Return units for one task, none when no unit can be submitted now.

        Parameters
        ----------
        threads : int
            Threads of the cluster. Towards the end of the image tasks become small again, so that no thread waits for
            another that took several.

        Returns
        -------
        tuple of Unit
            Where units are short as many as fill `TASK_S`, else one.
        """
        first = self.next_unit()
        if first is None:
            return ()
        most = min(MOST_UNITS, int(TASK_S / self.unit_s)) if self.unit_s else 1
        if most < 2:
            return (first,)
        share = 2 * max(1, threads)
        self.opened.extend(islice(self.units, max(0, most * share - len(self.opened))))
        more = min(most, len(self.opened) // share) - 1
        return (first, *(self.opened.popleft() for _ in range(more)))

    def took(self, seconds: float, units: int) -> None:
        """Learn how long units take."""
        each = seconds / units
        self.unit_s = each if not self.unit_s else self.unit_s + (each - self.unit_s) / 4

    def next_unit(self) -> Unit | None:
        """Return a unit that can be submitted now."""
        if self.busy and self.busy[0][0] <= time.monotonic():
            return self.busy.popleft()[1]
        if not self.opened and (found := next(self.units, None)) is not None:
            return found
        return self.opened.popleft() if self.opened else None  # also what the last of `units` have opened

    @property
    def can_finish(self) -> bool:
        """Return whether all units are done and nobody else was seen finishing a moment ago."""
        return not self.pending and not self.busy and not self.opened and self.finish_at <= time.monotonic()


@dataclass(frozen=True)
class Task:
    """One submitted call."""

    running: Running
    """Its image."""
    step: str
    """`prepare`, `unit` or `finish`."""
    function: Callable[..., Any]
    """What is called."""
    units: tuple[Unit, ...] = ()
    """What it is called with, one after the other."""
    is_alone: bool = False
    """Whether nothing runs beside it."""
    is_last_try: bool = False
    """Whether it was lost alone before."""

    @property
    def name(self) -> str:
        """Return what the task is called in messages."""
        return ", ".join(unit.key for unit in self.units) or f"the step `{self.step}`"

    def parts(self) -> list[Task]:
        """Return a task for each of its units, so that one that does harm is known by itself."""
        return [replace(self, units=(unit,)) for unit in self.units] if len(self.units) > 1 else [self]
