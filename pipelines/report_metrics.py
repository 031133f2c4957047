"""Figures of a run as a text file for Prometheus: what the textfile collector of its node exporter picks up."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from tilestream import __version__
from tilestream.codecs.durable import ensure_directory
from tilestream.errors import OutputError
from tilestream.pipelines.course import Course
from tilestream.pipelines.figures import Figures
from tilestream.stream.leases import claim

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

METRICS = "metrics.prom"
"""Name of the file in the folder of the outputs. A second process at work in that folder writes
`metrics-<host>-<process id>.prom` beside it, since figures of two processes cannot be one counter."""
LEASE = ".metrics.lease"
"""Among the receipts: says which process the file belongs to."""
EVERY_S = 5.0
"""How often it is replaced."""
STALE_S = 3600.0
"""A file of another process that was not replaced for this long is removed by the next run."""
_TIER_COUNTERS = ("hits", "misses", "evictions")


@contextmanager
def told(out: Path, course: Course) -> Iterator[None]:
    """Keep the metrics file of a run up to date inside the block, and leave it as it is at the end.

    Parameters
    ----------
    out : Path
        Folder of all outputs; must be there.
    course : Course
        Whose figures.

    Yields
    ------
    None
        Nothing. A file that cannot be written costs the run nothing.
    """
    with _place(out) as (path, labels):
        stop = Event()

        def keep() -> None:
            while not stop.wait(EVERY_S):
                _write(path, course, labels)

        _write(path, course, labels)
        thread = Thread(target=keep, name="tilestream-metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            _write(path, course, labels)


@contextmanager
def _place(out: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the file that is this process's own, and the labels that keep its figures apart from those of others."""
    labels = {"out": str(out)}
    process = f"{socket.gethostname()}-{os.getpid()}"
    try:
        ensure_directory(out / "receipts")
        lease = claim(out / "receipts" / LEASE)
    except OutputError:
        lease = None
    if lease is None:
        yield out / f"metrics-{process}.prom", {**labels, "process": process}
        return
    with lease:
        for path in out.glob("metrics-*.prom"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_S and path.read_bytes().startswith(b"# HELP tilestream_"):
                    path.unlink()
        yield out / METRICS, labels


def _write(path: Path, course: Course, labels: Mapping[str, str]) -> None:
    from prometheus_client import write_to_textfile

    with suppress(OSError):  # a full disk is told by what matters: features, receipts, the report
        write_to_textfile(str(path), _Figures(course.figures(), labels))


class _Figures:
    """The figures of a moment in the form in which the client library takes them."""

    def __init__(self, figures: Figures, labels: Mapping[str, str]) -> None:
        self._figures = figures
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        figures = self._figures
        yield from self._work(figures)
        yield from self._caches(figures.cache)
        yield from self._state(figures)

    def _work(self, figures: Figures) -> Iterator[Metric]:
        bad = {"damaged": figures.damaged_made, "failed": figures.unfit, "empty": figures.empty}
        made = {"ok": max(0, figures.tiles - sum(bad.values())), **bad, "reused": figures.reused}
        what = f"What became of {figures.noun}s; reused: made by an earlier run or another process"
        yield self._counter("tiles", what, made, label="status")
        yield self._counter("supertiles", "Super-tiles made", {"": figures.supertiles})
        yield self._counter("pixels", "Pixels of the plan under the tiles made", {"": figures.pixels})
        yield self._counter("bytes_read", "Compressed bytes asked of the sources", {"": figures.bytes_read})
        what = "Time by step, summed over threads"
        yield self._counter("step_seconds", what, dict(sorted(figures.seconds.items())), label="step")

    def _caches(self, cache: Mapping[str, Mapping[str, int]]) -> Iterator[Metric]:
        for name in _TIER_COUNTERS:
            counts = {tier: figures.get(name, 0) for tier, figures in cache.items()}
            yield self._counter(f"cache_{name}", f"{name.capitalize()} of each cache", counts, label="tier")
        counts = {tier: figures.get("bytes", 0) for tier, figures in cache.items()}
        yield self._counter("cache_bytes", "Bytes that each cache has given", counts, label="tier")

    def _state(self, figures: Figures) -> Iterator[Metric]:
        images = {
            "done": figures.done,
            "failed": figures.failed,
            "active": len(figures.current),
            "waiting": max(0, figures.images - figures.ended - len(figures.current)),
        }
        yield self._gauge("images", "Inputs by state", images, label="state")
        yield self._gauge("threads", "Threads of the workers", {"": figures.threads})
        now = figures.now
        yield self._gauge("threads_busy", "Threads in tasks, of late", {"": 0.0 if now is None else now.busy})
        yield self._gauge("run_seconds", "Time since the start of the run", {"": figures.wall_s})
        yield self._gauge("info", "Version of tilestream", {__version__: 1}, label="version")

    def _counter(self, name: str, what: str, values: Mapping[str, float], label: str = "") -> Metric:
        from prometheus_client.core import CounterMetricFamily

        return self._filled(CounterMetricFamily(f"tilestream_{name}", what, labels=self._names(label)), values, label)

    def _gauge(self, name: str, what: str, values: Mapping[str, float], label: str = "") -> Metric:
        from prometheus_client.core import GaugeMetricFamily

        return self._filled(GaugeMetricFamily(f"tilestream_{name}", what, labels=self._names(label)), values, label)

    def _names(self, label: str) -> list[str]:
        return [*([label] if label else []), *self._labels]

    def _filled(
        self, family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[str, float], label: str
    ) -> Metric:
        for key, value in values.items():
            family.add_metric([*([key] if label else []), *self._labels.values()], value)
        return family
