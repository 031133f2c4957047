"""One image on its way through the window."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tilestream.stream.events import Job, Prepared
from tilestream.types import Unit


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

    def next_unit(self) -> Unit | None:
        """Return a unit that can be submitted now."""
        if self.busy and self.busy[0][0] <= time.monotonic():
            return self.busy.popleft()[1]
        if self.opened:
            return self.opened.popleft()
        return next(self.units, None)

    @property
    def can_finish(self) -> bool:
        """Return whether all units are done and nobody else was seen finishing a moment ago."""
        return not self.pending and not self.busy and self.finish_at <= time.monotonic()
