"""Rows of the report from the events of a run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tilestream.pipelines.cohort import Cohort
from tilestream.pipelines.finish import PICTURE
from tilestream.pipelines.places import Places
from tilestream.pipelines.report_rows import InputRow
from tilestream.pipelines.report_time import cache_figures
from tilestream.stream.engine import Event
from tilestream.types import Receipt


@dataclass
class _Course:
    """How one input has gone so far."""

    started: float = field(default_factory=time.perf_counter)
    tiles: int = 0
    pixels: float = 0.0
    units: int = 0
    reused: int = 0
    computed: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, tuple[int, ...]] = field(default_factory=dict)
    failed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tiles_failed: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_read: int = 0
    row: InputRow | None = None

    def add(self, receipt: Receipt) -> None:
        """Take in what this run has made; the receipts themselves are not kept."""
        self.computed[receipt.key] = receipt.tiles
        for known, found in ((self.damaged, receipt.damaged), (self.failed, receipt.failed)):
            for reason, rows in found.items():
                known[reason] = (*known.get(reason, ()), *rows)
        self.tiles_failed += receipt.counts.get("failed", 0)
        for step, value in receipt.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + value
        self.bytes_read += receipt.bytes_read


class Tally:
    """Listens to a run and gives a row an input, in the order of the cohort.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    out : Path
        Folder of all outputs.
    suffix : str
        What the names of receipts have behind the name of an input; only those of stores of pixels have anything.
    makes_maps : bool
        Whether these stores are maps.
    """

    def __init__(self, cohort: Cohort, out: Path, *, suffix: str = "", makes_maps: bool = False) -> None:
        self._cohort = cohort
        self._out = out
        self._suffix = suffix
        self._makes_maps = makes_maps
        self._courses: dict[str, _Course] = {}

    def hear(self, event: Event) -> None:
        """Take what has happened to an input."""
        key = event.job.key
        course = self._courses.setdefault(key, _Course())
        if event.kind == "prepared" and event.prepared is not None:
            course.tiles, course.units = event.prepared.facts["tiles"], event.prepared.facts["units"]
            course.pixels = event.prepared.facts.get("pixels", 0.0)
            course.reused = len(event.reused)
            course.started = time.perf_counter()
        elif event.receipt is not None:
            if not event.reused:  # another run has made it meanwhile
                course.add(event.receipt)
        elif event.kind == "skipped":
            course.row = self._done(key, event.result)
        elif event.kind == "finished":
            row = self._done(key, event.result)
            course.row = replace(
                row,
                supertiles_reused=row.supertiles_total - len(course.computed),
                tiles_computed=sum(course.computed.values()),
                pixels=course.pixels,
                wall_s=time.perf_counter() - course.started,
            )
        elif event.failure is not None:
            course.row = _failed(key, event.failure.reason + event.failure.trace, course)

    def rows(self) -> tuple[InputRow, ...]:
        """Return one row an input, then the manifest rows that match nothing, then the ignored files."""
        lost = "interrupted before it was done: the same command goes on with it"
        rows = []
        for entry in self._cohort.entries:
            course = self._courses.get(entry.key, _Course())
            row = course.row or _failed(entry.key, lost, course)
            rows.append(replace(row, receipts=f"{entry.key}{self._suffix}", is_map=self._makes_maps))
        rows += [InputRow(path=row.partition(":")[0], status="failed", reason=row) for row in self._cohort.unmatched]
        rows += [InputRow(path=path, status="ignored", reason=reason) for path, reason in self._cohort.ignored]
        return tuple(rows)

    def _done(self, key: str, summary: Mapping[str, Any]) -> InputRow:
        return replace(row_of(self._out, f"{key}{self._suffix}", summary), path=key)


def row_of(out: Path, receipts: str, summary: Mapping[str, Any]) -> InputRow:
    """Return the row of a finished image, as if nothing of it had been done in this run.

    Parameters
    ----------
    out : Path
        Folder of all outputs.
    receipts : str
        Name of its receipts.
    summary : Mapping
        What its last step has kept; entries that another version has put there are passed over.

    Returns
    -------
    InputRow
        Its row.
    """
    known = {field.name for field in fields(InputRow)}
    kept = {name: value for name, value in summary.items() if name in known}
    return InputRow(
        **kept
        | {
            "path": receipts,
            "receipts": receipts,
            "status": "done",
            "shape_yx": tuple(summary["shape_yx"]),
            **{name: _rows_by_reason(summary.get(name, {})) for name in ("damaged", "failed")},
            "cache": cache_figures(summary["cache"]),
            "outputs": tuple(summary["outputs"]),
            "notes": tuple(summary["notes"]),
            "supertiles_reused": summary["supertiles_total"],
            "tiles_computed": 0,
            "picture": Places.of(out, receipts).journal / PICTURE,
        }
    )


def _rows_by_reason(found: Mapping[str, Iterable[int]]) -> dict[str, tuple[int, ...]]:
    return {reason: tuple(rows) for reason, rows in found.items()}


def _failed(key: str, reason: str, course: _Course) -> InputRow:
    return InputRow(
        path=key,
        status="failed",
        reason=reason,
        tiles=course.tiles,
        tiles_damaged=sum(map(len, course.damaged.values())),
        tiles_failed=course.tiles_failed,
        damaged=dict(sorted(course.damaged.items())),
        failed=dict(sorted(course.failed.items())),
        bytes_read=course.bytes_read,
        seconds=course.seconds,
        supertiles_total=course.units,
        supertiles_reused=course.reused,
    )
