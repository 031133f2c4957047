"""What `tilestream check` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tilestream.cli.lines import print_ignored, print_line, without_subject
from tilestream.cli.words import counted, duration, number, shortened, size

if TYPE_CHECKING:
    from tilestream.pipelines.check import CheckOutcome, CheckRow

MOST_ROWS = 200
"""Rows on a terminal, those that fail first; the rest is in `--json`."""
COLOURS = {"ok": "green", "ok with notes": "yellow", "fails": "bold red"}
WORDS = {"ok": "ok", "ok with notes": "note", "fails": "FAILS"}
WIDE = 110
"""Columns of a terminal from which on the less important columns are shown too."""


@contextmanager
def checking(images: int) -> Iterator[Callable[[CheckRow], None]]:
    """Yield the function that takes verdicts and shows on a terminal how many there are.

    Parameters
    ----------
    images : int
        Inputs of the check.

    Yields
    ------
    callable
        To be given to `run_check`.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda row: None
        return
    done = 0
    with console.status(f"0/{images:,} inputs") as status:

        def hear(_: CheckRow) -> None:
            nonlocal done
            done += 1
            status.update(f"{done:,}/{images:,} inputs")

        yield hear


def check_document(outcome: CheckOutcome) -> dict[str, Any]:
    """Return the verdicts as JSON values.

    Parameters
    ----------
    outcome : CheckOutcome
        What `run_check` returned.

    Returns
    -------
    dict
        `inputs`, `ignored`, `unmatched`, `total`, `machine` and `problems`.
    """
    return {
        "status": "ok" if outcome.exit_code == 0 else "fails",
        "inputs": [asdict(row) for row in outcome.rows],
        "ignored": [{"path": path, "reason": reason} for path, reason in outcome.ignored],
        "unmatched": list(outcome.unmatched),
        "notes": list(outcome.notes),
        "problems": list(outcome.problems),
        "total": asdict(outcome.total),
        "machine": {**asdict(outcome.machine), "free_bytes": outcome.free_bytes},
    }


def print_check(outcome: CheckOutcome, console: Console | None = None) -> None:
    """Print the verdicts: a table on a terminal, a line an input anywhere else.

    Parameters
    ----------
    outcome : CheckOutcome
        What `run_check` returned.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    if console.is_terminal:
        _print_table(outcome, console)
    else:
        for row in outcome.rows:
            print_line(console, _line(row))
    print_ignored(console, outcome.ignored, rest="--json")
    for name in outcome.unmatched:
        print_line(console, ("FAILS ", "bold red"), name)
    for note in outcome.notes:
        print_line(console, ("note ", "yellow"), note)
    for problem in outcome.problems:
        print_line(console, ("FAILS ", "bold red"), problem)
    print_line(console, totals(outcome))


def totals(outcome: CheckOutcome) -> str:
    """Return the sums of a check in a sentence or two.

    Parameters
    ----------
    outcome : CheckOutcome
        What `run_check` returned.

    Returns
    -------
    str
        Counts of verdicts, then the forecast.
    """
    total = outcome.total
    kinds = [row.verdict for row in outcome.rows]
    counts = [counted(len(kinds), "input")]
    counts += [f"{kinds.count('fails') + len(outcome.unmatched):,} would fail"]
    counts += [f"{kinds.count('ok with notes'):,} with notes", f"{len(outcome.ignored):,} ignored"]
    return (
        f"{', '.join(counts)}. At most {counted(total.tiles, 'tile')} (tissue is not looked for here): about "
        f"{size(total.read_bytes or 0)} to read, {size(total.output_bytes)} of features "
        f"({size(outcome.free_bytes)} free), {duration(total.seconds)} on this machine, "
        f"{size(total.memory_bytes)} of memory (limit {size(outcome.machine.memory_bytes)})."
    )


def _print_table(outcome: CheckOutcome, console: Console) -> None:
    from tilestream.pipelines.check import failed_first

    is_wide = console.width >= WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column("", no_wrap=True)
    table.add_column("input", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("format", no_wrap=True)
        table.add_column("levels", justify="right")
    table.add_column("µm/px, CRS", no_wrap=True)
    table.add_column("tiles ≤", justify="right", no_wrap=True)
    if is_wide:
        table.add_column("read", justify="right", no_wrap=True)
        table.add_column("output ≤", justify="right", no_wrap=True)
    table.add_column("time ≤", justify="right", no_wrap=True)
    shown = list(outcome.rows) if len(outcome.rows) <= MOST_ROWS else failed_first(outcome.rows)[:MOST_ROWS]
    for row in shown:
        table.add_row(*_cells(row, is_wide=is_wide, name_width=max(16, console.width - (92 if is_wide else 54))))
    console.print(table)
    _print_remarks(shown, console)
    if len(outcome.rows) > MOST_ROWS:
        print_line(console, (f"and {len(outcome.rows) - MOST_ROWS:,} more: see --json", "dim"))


def _cells(row: CheckRow, *, is_wide: bool, name_width: int) -> list[Text | str]:
    forecast = row.forecast
    cells: list[Text | str] = [
        Text(WORDS[row.verdict], COLOURS[row.verdict]),
        Text(shortened(row.path, name_width)),
        "–" if row.shape_yx is None else f"{row.shape_yx[1]:,}×{row.shape_yx[0]:,}",
    ]
    cells += [row.format or "–", number(row.levels)] if is_wide else []
    cells += [Text(_place(row)), number(None if forecast is None else forecast.tiles)]
    if is_wide:
        unknown = forecast is None or forecast.read_bytes is None
        cells += ["–" if unknown or forecast is None else size(forecast.read_bytes or 0)]
        cells += ["–" if forecast is None else size(forecast.output_bytes)]
    return [*cells, duration(None if forecast is None else forecast.seconds)]


def _print_remarks(rows: list[CheckRow], console: Console) -> None:
    """Print reasons and notes under the table, where they have room; one note of many images only once."""
    for row in rows:
        if row.verdict == "fails":
            print_line(
                console, ("FAILS ", "bold red"), (row.path, "bold"), f": {without_subject(row.reason, row.path)}"
            )
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in row.notes:
            notes.setdefault(note, []).append(PurePosixPath(row.path).name)
    for note, names in notes.items():
        more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
        print_line(console, ("note ", "yellow"), (", ".join(names[:2]) + more, "bold"), f": {note}")


def _place(row: CheckRow) -> str:
    known = [f"{row.mpp:.4g}" if row.mpp is not None else "", shortened(row.crs, 14) if row.crs else ""]
    return ", ".join(part for part in known if part) or ("–" if row.shape_yx is None else "unknown")


def _line(row: CheckRow) -> str:
    parts = [f"{row.verdict}: {row.path}"]
    if row.shape_yx is not None:
        parts += [f"{row.shape_yx[1]}x{row.shape_yx[0]}", row.format or "", f"{row.levels} levels", _place(row)]
    if row.forecast is not None:
        parts += [f"at most {counted(row.forecast.tiles, 'tile')}", f"at most {duration(row.forecast.seconds)}"]
    return "; ".join([*parts, *([without_subject(row.reason, row.path)] if row.reason else []), *row.notes])
