"""Runs the units of many images through a bounded window on a `distributed.Client`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

import dask
from distributed import Client, Future

from tilestream.errors import TilestreamError
from tilestream.stream import halt
from tilestream.stream.events import Event, Job, Prepared, Ready
from tilestream.stream.interrupts import Interrupts, held_back
from tilestream.stream.running import Running, Task
from tilestream.stream.suspects import Suspects
from tilestream.stream.tasks import Lost, Turn, guarded, in_turn, pickled_bytes, result_of
from tilestream.stream.watch import Hung, Watch
from tilestream.stream.work import Again, Busy, Failure, Found, Work
from tilestream.types import Plan, Receipt, Unit

BUSY_WAIT_S = 1.0
"""How long a unit that another run holds is left alone before it is asked for again."""
MOST_ASKED = 16
"""How many such units of an image are asked for in that time: a file server hears it from every idle run."""
LOOK_S = 2.0
"""How often the cluster is asked how many threads it has."""
WATCH_S = 10.0
"""How often its processes are looked at, whether they still live."""
NO_WORKER_S = 30.0
"""How long a run waits for a worker when there is none; a nanny needs a few seconds to start another."""
MOST_REPEATS = 2
"""How often an image goes back from its finish to units whose outputs are lost."""
START_WORKERS = "Start workers again, then run the same command again: finished work is kept."
AHEAD = 1
"""Images that are ready before the one at work has no more units to give, so that no worker waits for a plan."""
LARGE_BYTES = 1 << 18
"""Work that pickles larger than this (networks, 15,000 tiles) travels once a worker: 0.7 MB cost a task 3 ms."""
SCATTER_S = 10.0
"""How long is waited for a worker that such work can be sent to."""


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
    its neighbours are not blamed; losing a worker twice alone fails the image, since once it may have been given to
    one that was dead already, which nobody had heard. When there is no worker for `NO_WORKER_S`, or no scheduler, all
    images left fail.

    A process in which everything hangs (see `Watch`) is ended, and what it was at is given to others; what hangs once
    more fails its image. In the process of the run itself nothing can be ended: there the images left fail.
    """

    def __init__(self, client: Client, on_event: Callable[[Event], None], window: int | None = None) -> None:
        self._client = client
        self._on_event = on_event
        self._given = window
        self._window = window or 1
        self.threads = 0
        """Threads of the cluster's workers, as last counted."""
        self._finished: SimpleQueue[tuple[Task, Future[Any]] | None] = SimpleQueue()
        self._running: list[Running] = []
        self._pending: set[Future[Any]] = set()
        self._suspects = Suspects()
        self._watch = Watch(client)
        self._watched_at = time.monotonic()
        self._looked_at = float("-inf")
        self._absent_from = float("inf")

    def run(self, jobs: Iterable[Job]) -> None:
        """Run every job to its end; one that fails is an event and never stops the others.

        Parameters
        ----------
        jobs : iterable of Job
            Taken one by one as the window has room, so that the next image is prepared while this one still runs.
        """
        try:
            with held_back(lambda: self._finished.put(None)) as interrupts:
                self._run(iter(jobs), interrupts)
        except KeyboardInterrupt:
            prepared = [running.prepared for running in self._running if running.prepared is not None]
            halt.halt(*(one.work.journal.place.url for one in prepared))  # what is in flight in this process
            raise

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
            # An interrupt leaves tasks behind: those in flight end at their next batch, those queued must not start.
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
            workers = self._client.nthreads()
        except (OSError, RuntimeError, TimeoutError) as error:
            return f"the connection to the scheduler is lost ({error}). {START_WORKERS}"
        self._suspects.see(workers)
        if workers:
            self.threads = sum(workers.values())
            self._window = self._given or 2 * self.threads
        # from the first answer that names none: of what was before it nothing is known
        self._absent_from = float("inf") if workers else min(self._absent_from, time.monotonic())
        absent_s = time.monotonic() - self._absent_from
        if absent_s > dask.config.get("tilestream.no-worker-s", NO_WORKER_S):  # jobs stand in a queue for longer
            return f"the cluster has had no worker for {absent_s:.0f} s. {START_WORKERS}"
        return self._end_hung(now)

    def _end_hung(self, now: float) -> str:
        """End processes in which everything hangs; return what is the matter where that is this one."""
        if now - self._watched_at < WATCH_S:
            return ""
        self._watched_at = now
        try:
            for hung in self._watch.hung():
                if hung.is_here:
                    return self._hangs_here(hung)
                self._watch.end(hung)
        except (OSError, RuntimeError, TimeoutError):
            return ""  # the scheduler is gone, which the next look finds, or the worker is
        return ""

    def _hangs_here(self, hung: Hung) -> str:
        do = "With `--cluster local:N` a process that hangs is ended and the others go on; finished work is kept."
        return f"no step of any task has ended for {hung.silent_s:.0f} s, so that it is taken to hang. {do}"

    def _give_up(self, waiting: Iterator[Job], trouble: str) -> None:
        failure = Failure(reason=f"`--cluster`: {trouble}")
        for running in list(self._running):
            self._end(running, "failed", failure=failure)
        for job in waiting:
            self._on_event(Event(job=job, kind="failed", failure=failure))

    def _fill(self, waiting: Iterator[Job]) -> None:
        while len(self._pending) < self._window:
            if self._suspects:
                self._submit_suspect()
                return
            ahead = sum(not running.has_begun for running in self._running)
            if ahead < AHEAD and self._prepare_next(waiting):
                continue
            if self._submit_next():
                continue
            preparing = sum(running.prepared is None for running in self._running)
            if preparing >= self._window or not self._prepare_next(waiting):
                return

    def _prepare_next(self, waiting: Iterator[Job]) -> bool:
        job = next(waiting, None)
        if job is None:
            return False
        running = Running(job)
        self._running.append(running)
        if isinstance(job, Ready):
            self._start(running, job.prepared)
        else:
            self._submit(Task(running, "prepare", job.prepare))
        return True

    def _submit_suspect(self) -> None:
        task = None if self._pending else self._suspects.take()
        if task is not None and task.running in self._running:
            self._submit(task)
        elif task is not None:  # its image has failed meanwhile
            self._suspects.tried()

    def _submit_next(self) -> bool:
        for running in list(self._running):  # oldest first, so that images finish one after the other
            if running.prepared is None or running.is_over:
                continue
            try:
                units = running.next_units(self.threads)
            except TilestreamError as error:  # receipts of an earlier run that the plan cannot go on with
                self._end(running, "failed", failure=Failure(reason=str(error)))
                continue
            if units:
                self._submit(Task(running, "unit", running.work, units))
                return True
            if running.can_finish:
                running.is_over = True
                self._submit(Task(running, "finish", running.prepared.finish))
                return True
        return False

    def _submit(self, task: Task) -> None:
        if task.units and _is_gone(task.function):
            task = replace(task, function=self._sent_again(task.running))
        call = (in_turn, task.function, task.units) if task.units else (guarded, task.function)
        task.running.has_begun |= task.step != "prepare"
        # the steps by their names, for Dask's dashboard and for its estimates of how long each takes
        key = f"tilestream-{task.step}-{uuid.uuid4().hex}"
        # what opens an image, or frees its parts, does not wait behind the units of others
        priority = 0 if task.step == "unit" else 1
        future = self._client.submit(*call, key=key, pure=False, retries=0, priority=priority)
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
        result = result_of(future)
        if result is None:  # it went down with its worker on the way here and is being computed again
            self._finished.put((task, future))
            return
        result, self._absent_from = result[0], float("inf")  # whoever did it was there a moment ago
        self._pending.discard(future)
        running = task.running
        running.pending -= 1
        if task.is_alone:
            self._suspects.tried()
        if running not in self._running:  # its image has failed meanwhile
            return
        if isinstance(result, Lost):
            self._suspect(task, result)
        elif isinstance(result, Failure):
            self._end(running, "failed", failure=result)
        elif task.step == "prepare":
            self._start(running, result)
        elif task.step == "finish":
            self._finish(running, result)
        else:
            self._receive_all(task, result)

    def _receive_all(self, task: Task, turn: Turn) -> None:
        running = task.running
        running.took(turn.seconds, len(turn.results))
        running.opened.extendleft(reversed(task.units[len(turn.results) :]))
        for unit, result in zip(task.units, turn.results, strict=False):
            if isinstance(result, Failure):
                self._end(running, "failed", failure=result)
            elif running in self._running:
                self._receive(running, unit, result)

    def _suspect(self, task: Task, lost: Lost) -> None:
        self._looked_at = float("-inf")  # who is still there is looked at anew
        for part in task.parts():
            if part.running in self._running:
                self._suspect_part(part, lost)

    def _suspect_part(self, task: Task, lost: Lost) -> None:
        silent_s = self._watch.ended.get(lost.worker)
        if silent_s is not None and task.name not in task.running.hung:
            task.running.hung.add(task.name)
            self._submit(replace(task, is_alone=False))
        elif silent_s is not None:
            reason = f"{task.name} hangs: twice its process was ended after {silent_s:.0f} s in which no step ended"
            self._end(task.running, "failed", failure=Failure(reason=reason))
        elif not task.is_last_try:
            self._suspects.add(task)
        else:
            reason = f"{task.name} ends its worker process, twice alone as well as with others ({lost.reason})"
            self._end(task.running, "failed", failure=Failure(reason=reason))

    def _receive(self, running: Running, unit: Unit, result: Receipt | Found | Busy) -> None:
        if isinstance(result, Busy):
            wait_s = BUSY_WAIT_S * max(1.0, len(running.busy) / MOST_ASKED)
            running.busy.append((time.monotonic() + wait_s, unit))
            return
        receipt = result.receipt if isinstance(result, Found) else result
        reused = (receipt,) if isinstance(result, Found) else ()
        try:
            running.opened.extend(self._plan(running).after(receipt))
        except TilestreamError as error:
            self._end(running, "failed", failure=Failure(reason=str(error)))
            return
        self._on_event(Event(job=running.job, kind="unit", receipt=receipt, reused=reused))

    def _start(self, running: Running, result: Any) -> None:
        if not isinstance(result, Prepared):
            self._end(running, "skipped", result=result)
            return
        running.prepared = result
        halt.go_on(result.work.journal.place.url)
        running.work = self._portable(result.work)
        reused = tuple(self._plan_units(running, result).values())
        self._on_event(Event(job=running.job, kind="prepared", prepared=result, reused=reused))

    def _plan_units(self, running: Running, prepared: Prepared) -> dict[str, Receipt]:
        """Set the units that have no receipt yet, and return the receipts of the others."""
        done = prepared.work.journal.receipts()
        running.units = (unit for unit in prepared.plan.start() if not self._is_done(running, unit, done))
        return done

    def _portable(self, work: Work) -> Any:
        """Return the work, or a future of it when it holds an array and would travel with every unit."""
        if pickled_bytes(work) <= LARGE_BYTES:
            return work
        try:
            return self._client.scatter(work, broadcast=True, hash=False, timeout=SCATTER_S)
        except OSError:  # no worker, or no scheduler, is there now: the next look finds it
            return work

    def _sent_again(self, running: Running) -> Any:
        """Return the work of an image whose workers have died with it, sent to those that are there now."""
        if _is_gone(running.work) and running.prepared is not None:
            running.work = self._portable(running.prepared.work)
        return running.work

    def _finish(self, running: Running, result: Any) -> None:
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

    def _is_done(self, running: Running, unit: Unit, done: dict[str, Receipt]) -> bool:
        receipt = done.get(unit.key)
        if receipt is None:
            return False
        for opened in self._plan(running).after(receipt):
            if not self._is_done(running, opened, done):
                running.opened.append(opened)
        return True

    @staticmethod
    def _plan(running: Running) -> Plan:
        if running.prepared is None:
            raise RuntimeError(f"{running.job.key} gave a receipt before it was prepared")
        return running.prepared.plan

    def _end(self, running: Running, kind: str, *, result: Any = None, failure: Failure | None = None) -> None:
        if running in self._running:  # not one that a receipt before, of the same turn, has ended
            self._running.remove(running)
            self._on_event(Event(job=running.job, kind=kind, prepared=running.prepared, result=result, failure=failure))


def _is_gone(work: Any) -> bool:
    """Return whether work was sent to workers all of which are dead."""
    return isinstance(work, Future) and work.status in ("lost", "cancelled")


__all__ = ["Engine", "Event", "Job", "Prepared", "Ready", "pickled_bytes"]
