"""What the engine is given, and what it tells of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tilestream.stream.work import Failure, Work
from tilestream.types import Plan, Receipt


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image that is open and planned; comes back from the worker that prepared it."""

    plan: Plan
    """Which units."""
    work: Work
    """Does one unit."""
    finish: Callable[[], Any]
    """Runs on a worker after the last receipt; picklable."""
    facts: Any = None
    """What the caller wants to know of the image (report figures); not used here."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A job that its starter has planned already: the plan does not travel to a worker and back."""

    key: str
    """Its name, unique in the run."""
    prepared: Prepared
    """The planned image."""

    def prepare(self) -> Prepared:
        """Return the prepared image."""
        return self.prepared


class Job(Protocol):
    """One input of a run."""

    @property
    def key(self) -> str:
        """Return its name, unique in the run."""

    def prepare(self) -> Prepared | Any:
        """Return the prepared image, or anything else when nothing is left to do; runs on a worker."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to one job; progress bars, reports and tests listen to these."""

    job: Job
    """Whose."""
    kind: str
    """`prepared`, `skipped`, `unit`, `finished` or `failed`."""
    prepared: Prepared | None = None
    """With `prepared`."""
    reused: tuple[Receipt, ...] = ()
    """With `prepared`: receipts of an earlier run; with `unit`: the one that another run has written meanwhile."""
    receipt: Receipt | None = None
    """With `unit`."""
    result: Any = None
    """With `skipped` and `finished`: what the job returned."""
    failure: Failure | None = None
    """With `failed`."""
    threads: int = 0
    """Threads of the cluster's workers as they were last counted; 0 = nobody has said it."""
