"""Two workers beside one, on slides of unequal size: each a process of one thread on a core of its own."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client

from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row
from tilestream.cluster.client import open_client
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.stream.engine import Event

GIGAPIXELS = (0.6, 0.05, 0.3, 0.15)
"""Sizes of the slides, in the order in which they are done."""
SCALING_BAR = 1.7
TAIL_BAR = 1.0
"""Super-tiles by which the last worker may end after the first."""


@dataclass
class _Course:
    """When each worker has brought its units."""

    ends: dict[str, list[float]] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        if event.receipt is not None:
            self.ends.setdefault(event.receipt.worker, []).append(time.perf_counter())

    @property
    def tail_units(self) -> float:
        """Super-tiles that the last worker was alone for: time between the ends, over the longest super-tile seen."""
        last = [ends[-1] for ends in self.ends.values()]
        longest = max(after - before for ends in self.ends.values() for before, after in pairwise(ends))
        return (max(last) - min(last)) / longest


def pin(core: int) -> None:
    """Keep all threads of this process, and those that they will start, on one core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _run(client: Client, slides: Sequence[Path], out: Path) -> tuple[float, _Course]:
    """Return how long all slides take, and when units came."""
    course = _Course()
    config = EmbedConfig(out=out, where="all")
    cohort = read_cohort([str(slide) for slide in slides], out=out)
    start = time.perf_counter()
    outcome = run_embed(cohort, config, client=client, on_event=course.hear)
    spent = time.perf_counter() - start
    if outcome.exit_code(strict=True):
        raise RuntimeError(f"embed failed: {[row.reason for row in outcome.rows]}")
    return spent, course


def _rounds(
    processes: int, small: Path, slides: Sequence[Path], folder: Path, *, rounds: int
) -> list[tuple[float, _Course]]:
    cores = sorted(os.sched_getaffinity(0))[:processes]
    with open_client(f"local:{processes}") as client:
        for worker, core in zip(sorted(client.nthreads()), cores, strict=True):
            client.run(pin, core, workers=[worker])
        _run(client, [small] * 1, folder / f"small-{processes}")  # compiles, or loads what was compiled
        return [_run(client, slides, folder / f"out-{processes}-{turn}") for turn in range(rounds)]


def scaling_rows(
    folder: Path, gigapixels: Sequence[float] = GIGAPIXELS, *, rounds: int = 3, share: float = 1.0
) -> list[dict[str, Any]]:
    """Return the rate of two workers beside that of one, and how evenly they end.

    Parameters
    ----------
    folder : Path
        For slides and outputs.
    gigapixels : sequence of float
        Sizes of the slides.
    rounds : int
        How often each is measured; they take turns.
    share : float
        Of the bars that must be held.

    Returns
    -------
    list of dict
        Two rows.
    """
    small = write_gigapixel(folder / "small.svs", shape_of(0.07))
    slides = [write_gigapixel(folder / f"{number}.svs", shape_of(size)) for number, size in enumerate(gigapixels)]
    found = {processes: _rounds(processes, small, slides, folder, rounds=rounds) for processes in (1, 2)}
    pixels = sum(gigapixels) * 1e3
    one, two = (pixels / statistics.median(spent for spent, _ in found[count]) for count in (1, 2))
    tail = statistics.median(course.tail_units for _, course in found[2])
    sizes = ", ".join(f"{size:g}" for size in gigapixels)
    return [
        make_row(
            "embed with handcrafted, local:2",
            two,
            "Mpx/s",
            rival=("local:1", one),
            bar=at_least(share * SCALING_BAR),
            note=f"slides of {sizes} Gpx, all tiles; each worker a process of one thread on a core of its own that it "
            "shares with scheduler and client; start of the processes left out",
        ),
        make_row(
            "last worker after the first",
            tail,
            "super-tiles",
            bar=(0.0, TAIL_BAR / share),
            note="time between the last receipts of both, over the longest time between two of one's",
        ),
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        return scaling_rows(Path(folder))
