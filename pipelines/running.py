"""Runs the jobs of a pipeline and lets everybody hear of it: the report, the metrics file, and whoever asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from distributed import Client

from tilestream.energy import measured_energy
from tilestream.pipelines.course import Course
from tilestream.pipelines.report_metrics import told
from tilestream.stream.engine import Engine, Event, Job

Listener = Callable[[Event], None]


def run_jobs(
    client: Client,
    jobs: Iterable[Job],
    *,
    course: Course,
    hear: Listener,
    on_event: Listener | None = None,
    out: Path | None = None,
) -> None:
    """Run every job to its end; one that fails is an event and never stops the others.

    Parameters
    ----------
    client : distributed.Client
        Where tasks run.
    jobs : iterable of Job
        Taken one by one as there is room.
    course : Course
        Hears of everything; its time ends with the last job, and it is told what energy was used.
    hear : callable
        Hears of everything; what it raises ends the run.
    on_event : callable, optional
        Hears of everything as long as it is there: a closed terminal or pipe ends the display, not the run.
    out : Path, optional
        Folder in which `metrics.prom` is kept up to date.
    """
    listeners = [] if on_event is None else [on_event]

    def heard(event: Event) -> None:
        event = replace(event, threads=engine.threads)
        course.hear(event)
        hear(event)
        listeners[:] = [listener for listener in listeners if _is_there(listener, event)]

    engine = Engine(client, heard)
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(told(out, course))
        stack.callback(course.stop)
        with measured_energy() as joules:
            engine.run(jobs)
    used = asdict(joules.energy)
    course.energy = {name: value for name, value in used.items() if value is not None}


def _is_there(listener: Listener, event: Event) -> bool:
    try:
        listener(event)
    except (BrokenPipeError, SystemExit):  # rich turns the first into the second
        return False
    return True
