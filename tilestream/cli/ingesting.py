"""What `tilestream ingest` prints: the size of each store before it is written, and one last line that counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.compressing import coded_words, forecast_words
from tilestream.cli.lines import print_ignored, print_line
from tilestream.cli.words import counted, duration, size

if TYPE_CHECKING:
    from tilestream.pipelines.cohort import Cohort
    from tilestream.pipelines.ingest import StoreRow
    from tilestream.stream.engine import Event

MOST_DAMAGE = 10
"""Damaged blocks that are named for one input."""


def announced(hear: Callable[[Event], None], console: Console) -> Callable[[Event], None]:
    """Return a listener that tells about how large a store will be, before the first of it is written.

    Parameters
    ----------
    hear : callable
        Hears every event after that.
    console : Console
        Where to print; the one of the progress, across which another would print.

    Returns
    -------
    callable
        Takes the events of a run.
    """

    def heard(event: Event) -> None:
        if event.kind == "prepared" and event.prepared is not None and not event.reused:
            facts = event.prepared.facts
            if "forecast" in facts:
                words = forecast_words(facts)
            else:
                words = f"about {size(facts['store_bytes'])} as {facts['profile']}"
            print_line(console, ("begin ", "dim"), f"{event.job.key}: {words}")
        hear(event)

    return heard


def ingest_document(rows: Sequence[StoreRow], cohort: Cohort, *, strict: bool) -> dict[str, Any]:
    """Return the outcome of a run as JSON values.

    Parameters
    ----------
    rows : sequence of StoreRow
        What `run_ingest` returned.
    cohort : Cohort
        What it was given.
    strict : bool
        Whether damaged blocks count as failures.

    Returns
    -------
    dict
        `status`, `exit_code` and `inputs`.
    """
    code = exit_code(rows, cohort, strict=strict)
    inputs = [
        {
            "path": row.key,
            "url": row.url,
            "store": row.store,
            "status": row.status,
            "reason": row.reason,
            **dict(row.summary or {}),
        }
        for row in rows
    ]
    inputs += [{"path": name.partition(":")[0], "status": "failed", "reason": name} for name in cohort.unmatched]
    inputs += [{"path": path, "status": "ignored", "reason": reason} for path, reason in cohort.ignored]
    return {"status": "done" if code == 0 else "some inputs failed", "exit_code": code, "inputs": inputs}


def exit_code(rows: Sequence[StoreRow], cohort: Cohort, *, strict: bool) -> int:
    """Return 0 when all was stored, 3 when inputs failed (with `strict` also when blocks were damaged)."""
    return 3 if cohort.unmatched or any(row.status == "failed" or (strict and row.damaged) for row in rows) else 0


def print_ingest(rows: Sequence[StoreRow], cohort: Cohort, *, seconds: float, console: Console | None = None) -> None:
    """Print what was ignored, what could not be decoded, and one last line that counts.

    Parameters
    ----------
    rows : sequence of StoreRow
        What `run_ingest` returned.
    cohort : Cohort
        What it was given.
    seconds : float
        Wall time.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    print_ignored(console, cohort.ignored, rest="`tilestream check`")
    for note in cohort.notes:
        print_line(console, ("note ", "yellow"), note)
    for name in cohort.unmatched:
        print_line(console, ("failed ", "bold red"), name)
    for row in rows:
        if row.summary is not None and "coded" in row.summary:
            print_line(console, ("stored ", "green"), f"{row.key}: {_coded(row.summary)}")
        for reason in row.damaged[:MOST_DAMAGE]:
            print_line(console, ("damaged ", "yellow"), f"{row.key}: {reason}")
        if len(row.damaged) > MOST_DAMAGE:
            print_line(console, ("damaged ", "yellow"), f"{row.key}: {len(row.damaged) - MOST_DAMAGE:,} more blocks")
    for row in rows:
        _print_transcoded(row, console)
    kinds = [row.status for row in rows]
    failed = kinds.count("failed") + len(cohort.unmatched)
    print_line(
        console,
        f"{kinds.count('done'):,} stored, {failed:,} failed, {len(cohort.ignored):,} ignored; "
        f"{counted(sum(len(row.damaged) for row in rows), 'damaged block')}; {duration(seconds)}",
    )


def _print_transcoded(row: StoreRow, console: Console) -> None:
    """Print what JPEG XL made of the tiles of an image that was stored so."""
    told = (row.summary or {}).get("jpegxl")
    if not told:
        return
    before, after, kept = (told.get(name, 0) for name in ("bytes_before", "bytes", "kept"))
    stay = f"; {counted(kept, 'tile')} stay JPEG, which JPEG XL has no smaller form for" if kept else ""
    share = f"{1 - after / before:.1%} less" if before else "no bytes"
    line = f"{row.key}: {counted(told['tiles'], 'tile')}, {size(before)} of JPEG in {size(after)}, {share}{stay}"
    print_line(console, ("jpegxl ", "green"), line)


def _coded(summary: Mapping[str, Any]) -> str:
    """Return what a store of fitted tiles costs and how close it is."""
    return coded_words(
        summary["coded"],
        image_bytes=summary.get("image_bytes"),
        damaged=summary.get("tiles_damaged", 0),
        tiles=summary.get("tiles", 0),
    )
