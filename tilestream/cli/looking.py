"""What `tilestream relevance` and `tilestream plan` print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_ignored, print_line, without_subject
from tilestream.cli.words import counted, duration, size

if TYPE_CHECKING:
    from tilestream.pipelines.look import LookOutcome, LookRow

COLOURS = {"done": "green", "failed": "bold red"}
MOST_REASONS = 3
"""Damaged blocks that are named; all of them are in `--json`."""


@contextmanager
def looking(images: int, *, as_json: bool) -> Iterator[Callable[[LookRow], None]]:
    """Yield the function that hears what became of each image: a line each, and how many are left on a terminal.

    Parameters
    ----------
    images : int
        Inputs of the run.
    as_json : bool
        Whether lines must not be printed.

    Yields
    ------
    callable
        To be given to the run.
    """
    console, told = Console(highlight=False), Console(stderr=True)
    done = 0
    with told.status(f"0/{images:,} inputs") as status:

        def hear(row: LookRow) -> None:
            nonlocal done
            done += 1
            status.update(f"{done:,}/{images:,} inputs")
            if not as_json:
                print_row(console, row)

        yield hear


def print_row(console: Console, row: LookRow) -> None:
    """Print what became of one input: what was found and where the figure is, or why there is none.

    Parameters
    ----------
    console : Console
        Where to print.
    row : LookRow
        The input.
    """
    if row.status == "failed":
        text = f"{row.path}: {without_subject(row.reason, row.path)}"
    else:
        text = f"{row.outputs[0]}: {row.words}"
    print_line(console, (f"{row.status} ", COLOURS[row.status]), text)
    for reason in row.damage[:MOST_REASONS]:
        print_line(console, ("damaged ", "yellow"), f"{row.path}: {reason}")
    if len(row.damage) > MOST_REASONS:
        print_line(console, ("damaged ", "yellow"), f"{row.path}: {len(row.damage) - MOST_REASONS:,} more: see --json")
    for note in row.notes:
        print_line(console, ("note ", "yellow"), f"{row.path}: {note}")


def print_looks(outcome: LookOutcome, *, seconds: float, console: Console | None = None) -> None:
    """Print what was ignored and one last line that counts.

    Parameters
    ----------
    outcome : LookOutcome
        What came of the run.
    seconds : float
        Wall time.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    print_ignored(console, outcome.ignored, rest="--json")
    for note in outcome.notes:
        print_line(console, ("note ", "yellow"), note)
    for name in outcome.unmatched:
        print_line(console, ("failed ", "bold red"), name)
    failed = sum(row.status == "failed" for row in outcome.rows) + len(outcome.unmatched)
    damaged = sum(len(row.damage) for row in outcome.rows)
    print_line(
        console,
        f"{sum(row.status == 'done' for row in outcome.rows):,} done, {failed:,} failed, "
        f"{len(outcome.ignored):,} ignored; {counted(damaged, 'block')} damaged; "
        f"{size(sum(row.bytes_read for row in outcome.rows))} read; {duration(seconds)}",
    )


def look_document(outcome: LookOutcome, *, strict: bool) -> dict[str, Any]:
    """Return the outcome of a run as JSON values.

    Parameters
    ----------
    outcome : LookOutcome
        What came of the run.
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
