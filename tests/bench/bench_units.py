"""Very many super-tiles that take no time: what is left is the engine, which may not slow down or grow with them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from distributed import Client

from tests.bench.table import make_row
from tilestream.cluster.client import open_client
from tilestream.stream.engine import Engine, Event, Prepared
from tilestream.stream.journal import Journal
from tilestream.types import PlanLevel, Receipt, Shape, SuperTile

UNITS = 10_000
MANY_UNITS = 100_000
"""Of an image of 1.7 terapixels."""
TILES = 256
"""In a super-tile of 4096 px."""
SLOWER_BAR = 1.25
"""Time that a super-tile may take in the second half, over that in the first."""
GROWTH_BAR_BYTES = 600.0
"""Memory that a super-tile may leave behind. Dask remembers the names of up to 100,000 tasks, which is most of it."""
LEVEL = PlanLevel(stored=0, shape=Shape(y=1 << 20, x=1 << 20), scale_yx=(1.0, 1.0))


@dataclass(frozen=True)
class NullPlan:
    """Super-tiles in rows."""

    n: int
    digest: str = "null"

    def __len__(self) -> int:
        return self.n * TILES

    def start(self) -> Iterator[SuperTile]:
        corners = np.zeros((TILES, 2), np.int64)
        for number in range(self.n):
            iy, ix = divmod(number, 256)
            yield SuperTile(
                plan="null", level=LEVEL, iy=iy, ix=ix, first_row=number * TILES, tile_yx=corners + number, tile_px=256
            )

    def after(self, receipt: Receipt) -> Iterable[SuperTile]:
        return ()


@dataclass(frozen=True)
class NullWork:
    """A receipt, and nothing behind it."""

    journal: Journal

    def __call__(self, unit: SuperTile) -> Receipt:
        counts = {"empty": 0, "failed": 0}
        return Receipt(key=unit.key, recipe="null", outputs={"part": "0" * 32}, tiles=TILES, counts=counts)


def nothing() -> None:
    """Finish the image."""


@dataclass(frozen=True)
class NullJob:
    """An image of so many super-tiles."""

    root: Path
    n: int
    key: str = "null"

    def prepare(self) -> Prepared:
        return Prepared(plan=NullPlan(self.n), work=NullWork(Journal(root=self.root, recipe="null")), finish=nothing)


def course(client: Client, n: int, folder: Path, *, marks: int = 10) -> list[tuple[float, int]]:
    """Return time and memory of this process after each tenth of the units, those of the start first."""
    process, seen = psutil.Process(), 0
    found = [(time.perf_counter(), process.memory_info().rss)]

    def hear(event: Event) -> None:
        nonlocal seen
        seen += event.kind == "unit"
        if event.kind == "unit" and seen % (n // marks) == 0:
            found.append((time.perf_counter(), process.memory_info().rss))

    Engine(client, hear).run([NullJob(folder, n)])
    return found


def unit_rows(n: int = UNITS, *, growth_bytes: float = GROWTH_BAR_BYTES) -> list[dict[str, Any]]:
    """Return what the second half of many units takes beside the first, and what each leaves in memory."""
    with open_client("threads:2") as client, TemporaryDirectory() as folder:
        course(client, 100, Path(folder))
        found = course(client, n, Path(folder))
    half = len(found) // 2
    first, second = ((found[b][0] - found[a][0]) / (b - a) for a, b in ((0, half), (half, len(found) - 1)))
    units = n / (len(found) - 1)
    return [
        make_row(
            f"engine, a super-tile of {n:,} that take no time",
            second / units * 1e3,
            "ms",
            rival=("in the first half", first / units * 1e3),
            bar=(0.0, SLOWER_BAR),
            note="client, scheduler and workers in one process",
        ),
        make_row(
            f"memory that a super-tile of {n:,} leaves behind",
            (found[-1][1] - found[2][1]) / (n * (1 - 2 / (len(found) - 1))),
            "bytes",
            bar=(float("-inf"), growth_bytes),
            note="VmRSS of client, scheduler and workers in one process, after the first fifth",
        ),
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return unit_rows()
