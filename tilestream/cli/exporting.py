"""What `tilestream export` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_ignored, print_line, without_subject
from tilestream.cli.words import counted, duration, size
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pipelines.exchange import Total
    from tilestream.pipelines.export import ExportOutcome, ExportRow

COLOURS = {"done": "green", "kept": "green", "failed": "bold red"}
MOST_REASONS = 3
"""Damaged blocks that are named; all of them are in `--json`."""


def exported(
    paths: Sequence[str],
    *,
    out: str,
    to: str,
    manifest: str | None,
    encoders: Sequence[str] | None,
    value: str | None,
    codec: str,
    quality: int,
    resume: bool,
) -> ExportOutcome:
    """Export images or features, whichever the format is of, and return what came of it.

    Parameters
    ----------
    paths : sequence of str
        Inputs.
    out, to, manifest, encoders, value, codec, quality, resume
        The options of the command.

    Returns
    -------
    ExportOutcome
        A row an input.

    Raises
    ------
    ConfigError
        When there is no such format, or an option is none of its kind.
    """
    from tilestream.pipelines.cohort import read_cohort
    from tilestream.pipelines.exchange import exchange_config, local_folder, run_exchange
    from tilestream.pipelines.exchange_form import LAYOUTS
    from tilestream.pipelines.exchange_import import TO, ImportConfig, run_import
    from tilestream.pipelines.export import export_config, run_export
    from tilestream.pipelines.export_form import TARGETS

    if to not in (*TARGETS, *LAYOUTS, TO):
        known = (
            f"one of {', '.join(TARGETS)} for images, {', '.join(LAYOUTS)} for features, or {TO} for those of others"
        )
        raise ConfigError.of("`--to`", got=repr(to), expected=known, do="Choose one.")
    if to in LAYOUTS:
        _refuse({"--manifest": manifest}, to, kind="images")
        exchange = exchange_config(out=out, to=to, encoders=encoders or (), value=value, resume=resume)
        with exporting(len(paths)) as on_progress:
            return run_exchange(paths, exchange, on_total=print_total, on_progress=on_progress)
    if to == TO:
        _refuse({"--manifest": manifest, "--value": value}, to, kind="other formats")
        imported = ImportConfig(out=local_folder(out), encoders=tuple(encoders or ()), resume=resume)
        with exporting(len(paths)) as on_progress:
            return run_import(paths, imported, on_progress=on_progress)
    _refuse({"--encoder": encoders, "--value": value}, to, kind="features")
    config = export_config(out=out, to=to, codec=codec, quality=quality, resume=resume)
    cohort = read_cohort(paths, manifest=manifest, out=config.out.path if config.out.is_local else None)
    with exporting(len(cohort.entries)) as on_progress:
        return run_export(cohort, config, on_progress=on_progress)


def _refuse(options: dict[str, Any], to: str, *, kind: str) -> None:
    for name, value in options.items():
        if value:
            raise ConfigError.of(
                f"`{name}`", got=f"it together with --to {to}", expected=f"it for {kind} only", do="Leave it out."
            )


def print_total(total: Total) -> None:
    """Say on standard error how much is about to be written.

    Parameters
    ----------
    total : Total
        Of the whole run.
    """
    slides, tiles = counted(total.slides, "slide"), counted(total.tiles, "tile")
    Console(stderr=True, highlight=False).print(f"{tiles} of {slides}, about {size(total.size_bytes)}")


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
        text = f"{row.output or row.path}: {size(row.size_bytes)}{levels}"
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
