"""Runs the units of many images through a bounded window on a `distributed.Client`."""

from __future__ import annotations

import pickle
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker

from tilestream.errors import TilestreamError
from tilestream.stream.events import Event, Job, Prepared, Ready
from tilestream.stream.interrupts import Interrupts, held_back
from tilestream.stream.work import Again, Busy, Failure, Found, Work
from tilestream.types import Plan, Receipt, Unit

BUSY_WAIT_S = 1.0
"""How long a unit that another run holds is left alone before it is asked for again."""
LOOK_S = 2.0
"""How often the cluster is asked how many threads it has."""
RESULT_S = 2.0
"""How long the result of a finished task, a receipt, may take to travel."""
NO_WORKER_S = 30.0
"""How long a run waits for a worker when there is none; a nanny needs a few seconds to start another."""
MOST_REPEATS = 2
"""How often an image goes back from its finish to units whose outputs are lost."""
LARGE_BYTES = 1 << 20
"""Work that pickles larger than this (an array in memory) travels once a worker, not once a unit."""


@dataclass
class _Running:
    """The state of one job in the window."""

    job: Job
    prepared: Prepared | None = None
    work: Any = None
    units: Iterator[Unit] = field(default_factory=lambda: iter(()))
    opened: deque[Unit] = field(default_factory=deque)
    busy: deque[tuple[float, Unit]] = field(default_factory=deque)
    pending: int = 0
    is_over: bool = False
    finish_at: float = 0.0
    repeats: int = 0

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


@dataclass(frozen=True)
class _Task:
    """One submitted call."""

    running: _Running
    step: str
    function: Callable[..., Any]
    unit: Unit | None = None
    is_alone: bool = False


@dataclass(frozen=True)
class _Lost:
    """A task whose worker died, perhaps through a fault of a neighbour's."""

    reason: str


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

    Notes
    -----
    A task whose worker died is run once more with nothing beside it, so that the one that kills workers is found and
    its neighbours are not blamed; killing a worker alone fails the image. When there is no worker for `NO_WORKER_S`, or
    no scheduler, all images left fail.
    """

    def __init__(self, client: Client, on_event: Callable[[Event], None], window: int | None = None) -> None:
        self._client = client
        self._on_event = on_event
        self._given = window
        self._window = window or 1
        self._finished: SimpleQueue[tuple[_Task, Future[Any]] | None] = SimpleQueue()
        self._running: list[_Running] = []
        self._pending: set[Future[Any]] = set()
        self._suspects: deque[_Task] = deque()
        self._alone = False
        self._looked_at = float("-inf")
        self._seen_at = time.monotonic()

    def run(self, jobs: Iterable[Job]) -> None:
        """Run every job to its end; one that fails is an event and never stops the others.

        Parameters
        ----------
        jobs : iterable of Job
            Taken one by one as the window has room, so that the next image is prepared while this one still runs.
        """
        with held_back(lambda: self._finished.put(None)) as interrupts:
            self._run(iter(jobs), interrupts)

    def _run(self, waiting: Iterator[Job], interrupts: Interrupts) -> None:
        try:
            while True:
                interrupts.check()
                trouble = self._look()
                if trouble:
                    self._give_up(waiting, trouble)
                    return
                self._fill(waiting)
                if not self._pending and not self._running:
                    return
                self._take()
        finally:
            # An interrupt leaves tasks behind: those in flight end by themselves, those queued must not start.
            if self._client.status == "running":
                self._client.cancel(list(self._pending), force=True)

    def _look(self) -> str:
        """Return why nothing can run any more, nothing while it can; fit the window to the cluster."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_S and self._client.status == "running":
            return ""
        self._looked_at = now
        try:
            if self._client.status != "running":
                raise OSError(self._client.status)
            threads = sum(self._client.nthreads().values())
        except (OSError, RuntimeError, TimeoutError) as error:
            return f"the connection to the scheduler is lost ({error})"
        if threads:
            self._seen_at = now
            self._window = self._given or 2 * threads
        absent_s = now - self._seen_at
        return f"the cluster has had no worker for {absent_s:.0f} s" if absent_s > NO_WORKER_S else ""

    def _give_up(self, waiting: Iterator[Job], trouble: str) -> None:
        do = "Start workers again, then run the same command again: finished work is kept."
        failure = Failure(reason=f"`--cluster`: {trouble}. {do}")
        for running in list(self._running):
            self._end(running, "failed", failure=failure)
        for job in waiting:
            self._on_event(Event(job=job, kind="failed", failure=failure))

    def _fill(self, waiting: Iterator[Job]) -> None:
        while len(self._pending) < self._window:
            if self._suspects or self._alone:
                self._submit_suspect()
                return
            if self._submit_next():
                continue
            preparing = sum(running.prepared is None for running in self._running)
            job = next(waiting, None) if preparing < self._window else None
            if job is None:
                return
            running = _Running(job)
            self._running.append(running)
            if isinstance(job, Ready):
                self._start(running, job.prepared)
            else:
                self._submit(_Task(running, "prepare", job.prepare))

    def _submit_suspect(self) -> None:
        if self._pending:
            return
        task = self._suspects.popleft()
        if task.running in self._running:
            self._alone = True
            self._submit(replace(task, is_alone=True))

    def _submit_next(self) -> bool:
        for running in self._running:  # oldest first, so that images finish one after the other
            if running.prepared is None or running.is_over:
                continue
            unit = running.next_unit()
            if unit is not None:
                self._submit(_Task(running, "unit", running.work, unit))
                return True
            if running.can_finish:
                running.is_over = True
                self._submit(_Task(running, "finish", running.prepared.finish))
                return True
        return False

    def _submit(self, task: _Task) -> None:
        arguments = () if task.unit is None else (task.unit,)
        future = self._client.submit(_guarded, task.function, *arguments, pure=False, retries=0)
        task.running.pending += 1
        self._pending.add(future)
        future.add_done_callback(lambda done: self._finished.put((task, done)))

    def _take(self) -> None:
        try:
            ended = self._finished.get(timeout=BUSY_WAIT_S)
        except Empty:
            return
        if ended is None:  # an interrupt
            return
        task, future = ended
        result = _result(future)
        if result is None:  # it went down with its worker on the way here and is being computed again
            self._finished.put((task, future))
            return
        result = result[0]
        self._pending.discard(future)
        running = task.running
        running.pending -= 1
        if task.is_alone:
            self._alone = False
        if running not in self._running:  # its image has failed meanwhile
            return
        if isinstance(result, _Lost):
            self._suspect(task, result)
        elif isinstance(result, Failure):
            self._end(running, "failed", failure=result)
        elif task.step == "prepare":
            self._start(running, result)
        elif task.step == "finish":
            self._finish(running, result)
        else:
            self._receive(task, result)

    def _suspect(self, task: _Task, lost: _Lost) -> None:
        if not task.is_alone:
            self._suspects.append(task)
            return
        what = task.unit.key if task.unit is not None else f"the step `{task.step}`"
        reason = f"{what} ends its worker process, alone as well as with others ({lost.reason})"
        self._end(task.running, "failed", failure=Failure(reason=reason))

    def _receive(self, task: _Task, result: Receipt | Found | Busy) -> None:
        running = task.running
        if isinstance(result, Busy):
            if task.unit is not None:
                running.busy.append((time.monotonic() + BUSY_WAIT_S, task.unit))
            return
        receipt = result.receipt if isinstance(result, Found) else result
        reused = (receipt,) if isinstance(result, Found) else ()
        running.opened.extend(self._plan(running).after(receipt))
        self._on_event(Event(job=running.job, kind="unit", receipt=receipt, reused=reused))

    def _start(self, running: _Running, result: Any) -> None:
        if not isinstance(result, Prepared):
            self._end(running, "skipped", result=result)
            return
        running.prepared = result
        running.work = self._portable(result.work)
        reused = tuple(self._plan_units(running, result).values())
        self._on_event(Event(job=running.job, kind="prepared", prepared=result, reused=reused))

    def _plan_units(self, running: _Running, prepared: Prepared) -> dict[str, Receipt]:
        """Set the units that have no receipt yet, and return the receipts of the others."""
        done = prepared.work.journal.receipts()
        running.units = (unit for unit in prepared.plan.start() if not self._is_done(running, unit, done))
        return done

    def _portable(self, work: Work) -> Any:
        """Return the work, or a future of it when it holds an array and would travel with every unit."""
        if pickled_bytes(work) <= LARGE_BYTES:
            return work
        return self._client.scatter(work, broadcast=True, hash=False)

    def _finish(self, running: _Running, result: Any) -> None:
        if isinstance(result, Busy):
            running.is_over, running.finish_at = False, time.monotonic() + BUSY_WAIT_S
        elif isinstance(result, Again) and running.prepared is not None:
            running.repeats += 1
            if running.repeats > MOST_REPEATS:
                reason = f"outputs of {', '.join(result.keys[:3])} are lost as often as they are written"
                self._end(running, "failed", failure=Failure(reason=reason))
                return
            running.is_over = False
            self._plan_units(running, running.prepared)
        else:
            self._end(running, "finished", result=result)

    def _is_done(self, running: _Running, unit: Unit, done: dict[str, Receipt]) -> bool:
        receipt = done.get(unit.key)
        if receipt is None:
            return False
        for opened in self._plan(running).after(receipt):
            if not self._is_done(running, opened, done):
                running.opened.append(opened)
        return True

    @staticmethod
    def _plan(running: _Running) -> Plan:
        if running.prepared is None:
            raise RuntimeError(f"{running.job.key} gave a receipt before it was prepared")
        return running.prepared.plan

    def _end(self, running: _Running, kind: str, *, result: Any = None, failure: Failure | None = None) -> None:
        self._running.remove(running)
        self._on_event(Event(job=running.job, kind=kind, prepared=running.prepared, result=result, failure=failure))


def pickled_bytes(value: object) -> int:
    """Return the size of a pickled object; arrays are counted without being copied."""
    buffers: list[int] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=lambda buffer: buffers.append(buffer.raw().nbytes))
    return len(text) + sum(buffers)


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


def _result(future: Future[Any]) -> tuple[Any] | None:
    """Return what became of a task in a tuple, None when its worker died after the end, and with it the result."""
    if future.status in ("finished", "lost", "pending"):
        try:
            return (future.result(timeout=RESULT_S),)  # would wait for ever where no worker is left
        except TimeoutError:
            return None
        except (CancelledError, KilledWorker, OSError):
            return (_Lost("the result was lost"),)
    error = future.exception() if future.status == "error" else None
    if error is None:
        return (_Lost("the task was cancelled"),)
    if isinstance(error, KilledWorker):
        return (_Lost("the process died"),)
    return (Failure(reason=f"{type(error).__name__}: {error}", expected=False),)


__all__ = ["Engine", "Event", "Job", "Prepared", "Ready", "pickled_bytes"]
