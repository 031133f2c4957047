"""What `tilestream export` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_ignored, print_line, without_subject
from tilestream.cli.words import counted, duration, size

if TYPE_CHECKING:
    from tilestream.pipelines.export import ExportOutcome, ExportRow

COLOURS = {"done": "green", "kept": "green", "failed": "bold red"}
MOST_REASONS = 3
"""Damaged blocks that are named; all of them are in `--json`."""


@contextmanager
def exporting(images: int) -> Iterator[Callable[[str, float], None]]:
    """Yield the function that hears of progress and shows it on a terminal.

    Parameters
    ----------
    images : int
        Inputs of the run.

    Yields
    ------
    callable
        To be given to `run_export`.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda key, share: None
        return
    begun: dict[str, None] = {}
    with console.status("") as status:

        def hear(key: str, share: float) -> None:
            begun[key] = None
            status.update(f"{len(begun):,}/{images:,} inputs: {key} {share:.0%}")

        yield hear


def export_document(outcome: ExportOutcome, *, strict: bool) -> dict[str, Any]:
    """Return the outcome of a run as JSON values.

    Parameters
    ----------
    outcome : ExportOutcome
        What `run_export` returned.
    strict : bool
        Whether damaged blocks count as failures.

    Returns
    -------
    dict
        `status`, `exit_code`, `inputs`, `ignored`, `unmatched` and `notes`.
    """
    code = outcome.exit_code(strict=strict)
    return {
        "status": "done" if code == 0 else "some inputs failed",
        "exit_code": code,
        "inputs": [asdict(row) for row in outcome.rows],
        "ignored": [{"path": path, "reason": reason} for path, reason in outcome.ignored],
        "unmatched": list(outcome.unmatched),
        "notes": list(outcome.notes),
    }


def print_export(outcome: ExportOutcome, *, seconds: float, console: Console | None = None) -> None:
    """Print what was written, what failed, and one last line that counts.

    Parameters
    ----------
    outcome : ExportOutcome
        What `run_export` returned.
    seconds : float
        Wall time.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    for row in outcome.rows:
        print_row(console, row)
    print_ignored(console, outcome.ignored, rest="--json")
    for note in outcome.notes:
        print_line(console, ("note ", "yellow"), note)
    for name in outcome.unmatched:
        print_line(console, ("failed ", "bold red"), name)
    print_line(console, last_line(outcome, seconds=seconds))


def print_row(console: Console, row: ExportRow) -> None:
    """Print what became of one input: its file and how large it is, or why there is none, and what to know of it.

    Parameters
    ----------
    console : Console
        Where to print.
    row : ExportRow
        The input.
    """
    if row.status == "failed":
        text = f"{row.path}: {without_subject(row.reason, row.path)}"
    else:
        levels = "" if row.levels is None else f", {counted(row.levels, 'level')}"
        text = f"{row.output}: {size(row.size_bytes)}{levels}"
    print_line(console, (f"{row.status} ", COLOURS[row.status]), text)
    for reason in row.damage[:MOST_REASONS]:
        print_line(console, ("damaged ", "yellow"), f"{row.path}: {reason}")
    if len(row.damage) > MOST_REASONS:
        print_line(console, ("damaged ", "yellow"), f"{row.path}: {len(row.damage) - MOST_REASONS:,} more: see --json")
    for note in row.notes:
        print_line(console, ("note ", "yellow"), f"{row.path}: {note}")


def last_line(outcome: ExportOutcome, *, seconds: float) -> str:
    """Return the counts of a run in one line.

    Parameters
    ----------
    outcome : ExportOutcome
        What `run_export` returned.
    seconds : float
        Wall time.

    Returns
    -------
    str
        Inputs done, kept, failed, ignored; damaged blocks; bytes; seconds.
    """
    kinds = [row.status for row in outcome.rows]
    failed = kinds.count("failed") + len(outcome.unmatched)
    written = sum(row.size_bytes for row in outcome.rows if row.status == "done")
    damaged = sum(len(row.damage) for row in outcome.rows)
    kept = f"{kinds.count('kept'):,} kept from an earlier run, " if "kept" in kinds else ""
    return (
        f"{kinds.count('done'):,} done, {kept}{failed:,} failed, {len(outcome.ignored):,} ignored; "
        f"{counted(damaged, 'block')} damaged; {size(written)} written; {duration(seconds)}"
    )
