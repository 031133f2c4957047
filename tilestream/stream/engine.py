"""Runs the units of many images through a bounded window on a `distributed.Client`."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from distributed import Client, Future

from tilestream.errors import TilestreamError
from tilestream.stream.journal import Journal
from tilestream.stream.work import Busy, Failure, TileWork
from tilestream.types import Plan, Receipt, SuperTile

BUSY_WAIT_S = 1.0
"""How long a unit that another run holds is left alone before it is asked for again."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An image that is open and planned; comes back from the worker that prepared it."""

    plan: Plan
    """Which units."""
    work: TileWork
    """Does one unit."""
    finish: Callable[[], Any]
    """Runs on a worker after the last receipt; picklable."""
    facts: Any = None
    """What the caller wants to know of the image (report figures); not used here."""


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
    """With `prepared`: receipts of an earlier run."""
    receipt: Receipt | None = None
    """With `unit`."""
    result: Any = None
    """With `skipped` and `finished`: what the job returned."""
    failure: Failure | None = None
    """With `failed`."""


@dataclass
class _Running:
    """The state of one job in the window."""

    job: Job
    prepared: Prepared | None = None
    units: Iterator[SuperTile] = field(default_factory=lambda: iter(()))
    opened: deque[SuperTile] = field(default_factory=deque)
    busy: deque[tuple[float, SuperTile]] = field(default_factory=deque)
    pending: int = 0
    is_over: bool = False

    def next_unit(self) -> SuperTile | None:
        """Return a unit that can be submitted now."""
        if self.busy and self.busy[0][0] <= time.monotonic():
            return self.busy.popleft()[1]
        if self.opened:
            return self.opened.popleft()
        return next(self.units, None)


class Engine:
    """Keeps a bounded number of tasks on the cluster and turns their results into events.

    Parameters
    ----------
    client : distributed.Client
        Where tasks run.
    on_event : callable
        Called in this thread for each `Event`.
    window : int, optional
        Most tasks submitted at a time; twice the number of threads of the cluster by default, enough to keep every
        thread busy while results travel.
    """

    def __init__(self, client: Client, on_event: Callable[[Event], None], window: int | None = None) -> None:
        self._client = client
        self._on_event = on_event
        self._window = window or 2 * max(1, sum(client.nthreads().values()))
        self._finished: SimpleQueue[tuple[_Running, str, Any, Future[Any]]] = SimpleQueue()
        self._running: list[_Running] = []
        self._pending: set[Future[Any]] = set()

    def run(self, jobs: Iterable[Job]) -> None:
        """Run every job to its end; one that fails is an event and never stops the others.

        Parameters
        ----------
        jobs : iterable of Job
            Taken one by one as the window has room, so that the next image is prepared while this one still runs.
        """
        waiting = iter(jobs)
        try:
            while True:
                self._fill(waiting)
                if not self._pending and not self._running:
                    return
                self._take()
        finally:
            # An interrupt leaves tasks behind: those in flight end by themselves, those queued must not start.
            self._client.cancel(list(self._pending), force=True)

    def _fill(self, waiting: Iterator[Job]) -> None:
        while len(self._pending) < self._window:
            if self._submit_unit():
                continue
            preparing = sum(running.prepared is None for running in self._running)
            job = next(waiting, None) if preparing < self._window else None
            if job is None:
                return
            running = _Running(job)
            self._running.append(running)
            self._submit(running, "prepare", job.prepare)

    def _submit_unit(self) -> bool:
        for running in self._running:  # oldest first, so that images finish one after the other
            if running.prepared is None or running.is_over:
                continue
            unit = running.next_unit()
            if unit is not None:
                self._submit(running, "unit", running.prepared.work, unit)
                return True
            if not running.pending and not running.busy:
                running.is_over = True
                self._submit(running, "finish", running.prepared.finish)
                return True
        return False

    def _submit(self, running: _Running, step: str, function: Callable[..., Any], *arguments: Any) -> None:
        unit = arguments[0] if arguments else None
        future = self._client.submit(_guarded, function, *arguments, pure=False, retries=0)
        running.pending += 1
        self._pending.add(future)
        future.add_done_callback(lambda done: self._finished.put((running, step, unit, done)))

    def _take(self) -> None:
        try:
            running, step, unit, future = self._finished.get(timeout=BUSY_WAIT_S)
        except Empty:
            return
        self._pending.discard(future)
        running.pending -= 1
        if running not in self._running:  # its image has failed meanwhile
            return
        result = _result(future)
        if isinstance(result, Failure):
            self._end(running, "failed", failure=result)
        elif step == "prepare":
            self._start(running, result)
        elif step == "finish":
            self._end(running, "finished", result=result)
        elif isinstance(result, Busy):
            running.busy.append((time.monotonic() + BUSY_WAIT_S, unit))
        else:
            self._open_next(running, result)
            self._on_event(Event(job=running.job, kind="unit", receipt=result))

    def _start(self, running: _Running, result: Any) -> None:
        if not isinstance(result, Prepared):
            self._end(running, "skipped", result=result)
            return
        running.prepared = result
        done = result.work.journal.receipts()
        running.units = (unit for unit in result.plan.start() if not self._is_done(running, unit, done))
        reused = tuple(done.values())
        self._on_event(Event(job=running.job, kind="prepared", prepared=result, reused=reused))

    def _is_done(self, running: _Running, unit: SuperTile, done: dict[str, Receipt]) -> bool:
        receipt = done.get(unit.key)
        if receipt is None:
            return False
        for opened in self._plan(running).after(receipt):
            if not self._is_done(running, opened, done):
                running.opened.append(opened)
        return True

    def _open_next(self, running: _Running, receipt: Receipt) -> None:
        running.opened.extend(self._plan(running).after(receipt))

    @staticmethod
    def _plan(running: _Running) -> Plan:
        if running.prepared is None:
            raise RuntimeError(f"{running.job.key} gave a receipt before it was prepared")
        return running.prepared.plan

    def _end(self, running: _Running, kind: str, *, result: Any = None, failure: Failure | None = None) -> None:
        self._running.remove(running)
        self._on_event(Event(job=running.job, kind=kind, prepared=running.prepared, result=result, failure=failure))


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the function returns, or a `Failure`: an exception in a task would be printed by the worker."""
    try:
        return function(*arguments)
    except TilestreamError as error:
        return Failure(reason=str(error))
    except MemoryError as error:
        return Failure(reason=f"out of memory: {error}")
    except Exception as error:  # noqa: BLE001 - one image must not end the run, whatever its stages raise
        return Failure(reason=f"{type(error).__name__}: {error}", expected=False, trace=traceback.format_exc())


def _result(future: Future[Any]) -> Any:
    if future.status == "finished":
        return future.result()
    error = future.exception() if future.status == "error" else None
    reason = f"{type(error).__name__}: {error}" if error else "the task was cancelled"
    return Failure(reason=f"the worker was lost ({reason})", expected=False)


__all__ = ["Engine", "Event", "Job", "Journal", "Prepared"]
