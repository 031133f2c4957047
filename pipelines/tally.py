"""Rows of the report from the events of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tilestream.pipelines.cohort import Cohort
from tilestream.pipelines.finish import PICTURE, add_seconds, merge_damage, merge_failed
from tilestream.pipelines.places import Places
from tilestream.pipelines.report_rows import InputRow
from tilestream.stream.engine import Event
from tilestream.types import Receipt


@dataclass
class _Course:
    """How one input has gone so far."""

    started: float = field(default_factory=time.perf_counter)
    tiles: int = 0
    units: int = 0
    reused: int = 0
    computed: dict[str, Receipt] = field(default_factory=dict)
    row: InputRow | None = None


class Tally:
    """Listens to a run and gives a row an input, in the order of the cohort.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    out : Path
        Folder of all outputs.
    suffix : str
        What the names of receipts have behind the name of an input.
    """

    def __init__(self, cohort: Cohort, out: Path, *, suffix: str = "") -> None:
        self._cohort = cohort
        self._out = out
        self._suffix = suffix
        self._courses: dict[str, _Course] = {}

    def hear(self, event: Event) -> None:
        """Take what has happened to an input."""
        key = event.job.key
        course = self._courses.setdefault(key, _Course())
        if event.kind == "prepared" and event.prepared is not None:
            course.tiles, course.units = event.prepared.facts["tiles"], event.prepared.facts["units"]
            course.reused = len(event.reused)
            course.started = time.perf_counter()
        elif event.receipt is not None:
            if not event.reused:  # another run has made it meanwhile
                course.computed[event.receipt.key] = event.receipt
        elif event.kind == "skipped":
            course.row = self._done(key, event.result, reused=event.result["supertiles_total"], computed=0, wall_s=0.0)
        elif event.kind == "finished":
            computed = sum(receipt.tiles for receipt in course.computed.values())
            reused = course.units - len(course.computed)
            wall_s = time.perf_counter() - course.started
            course.row = self._done(key, event.result, reused=reused, computed=computed, wall_s=wall_s)
        elif event.failure is not None:
            course.row = _failed(key, event.failure.reason + event.failure.trace, course)

    def rows(self) -> tuple[InputRow, ...]:
        """Return one row an input, then the manifest rows that match nothing, then the ignored files."""
        lost = "interrupted before it was done: the same command goes on with it"
        rows = []
        for entry in self._cohort.entries:
            course = self._courses.get(entry.key, _Course())
            rows.append(course.row or _failed(entry.key, lost, course))
        rows += [InputRow(path=row.partition(":")[0], status="failed", reason=row) for row in self._cohort.unmatched]
        rows += [InputRow(path=path, status="ignored", reason=reason) for path, reason in self._cohort.ignored]
        return tuple(rows)

    def _done(self, key: str, summary: Mapping[str, Any], *, reused: int, computed: int, wall_s: float) -> InputRow:
        fields = dict(summary)
        fields["shape_yx"] = tuple(fields["shape_yx"])
        for name in ("damaged", "failed"):
            fields[name] = {reason: tuple(rows) for reason, rows in fields.get(name, {}).items()}
        fields["cache"] = {tier: (done["hits"], done["misses"]) for tier, done in fields["cache"].items()}
        fields["outputs"], fields["notes"] = tuple(fields["outputs"]), tuple(fields["notes"])
        return InputRow(
            path=key,
            status="done",
            supertiles_reused=reused,
            tiles_computed=computed,
            wall_s=wall_s,
            picture=Places.of(self._out, f"{key}{self._suffix}").journal / PICTURE,
            **fields,
        )


def _failed(key: str, reason: str, course: _Course) -> InputRow:
    receipts = list(course.computed.values())
    damaged = merge_damage(receipts)
    return InputRow(
        path=key,
        status="failed",
        reason=reason,
        tiles=course.tiles,
        tiles_damaged=sum(map(len, damaged.values())),
        damaged=damaged,
        tiles_failed=sum(receipt.counts.get("failed", 0) for receipt in receipts),
        failed=merge_failed(receipts),
        bytes_read=sum(receipt.bytes_read for receipt in receipts),
        seconds=add_seconds(receipts),
        supertiles_total=course.units,
        supertiles_reused=course.reused,
    )
