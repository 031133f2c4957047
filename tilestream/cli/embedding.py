"""What `tilestream embed` prints at its end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_ignored, print_line
from tilestream.cli.words import duration, number

if TYPE_CHECKING:
    from tilestream.pipelines.cohort import Cohort
    from tilestream.pipelines.embed import RunOutcome

MOST_NOTES = 5
"""Notes on images that are printed, those on most images first; the report has all."""


def embed_document(outcome: RunOutcome, *, strict: bool) -> dict[str, Any]:
    """Return the outcome of a run as JSON values.

    Parameters
    ----------
    outcome : RunOutcome
        What `run_embed` returned.
    strict : bool
        Whether damaged tiles count as failures.

    Returns
    -------
    dict
        `status`, `exit_code`, where the report is, and all that the report for programs holds.
    """
    code = outcome.exit_code(strict=strict)
    return {
        "status": "done" if code == 0 else "some inputs failed",
        "exit_code": code,
        "report_html": str(outcome.report_html),
        "report_json": str(outcome.report_json),
        **outcome.document,
    }


def counts(outcome: RunOutcome) -> dict[str, int]:
    """Return how many inputs and tiles a run had of each kind.

    Parameters
    ----------
    outcome : RunOutcome
        What `run_embed` returned.

    Returns
    -------
    dict
        `done`, `lost` of them (no tile has values), `failed`, `ignored`, `tiles`, `tiles_damaged` and `tiles_failed`,
        `regions` of region stages and `regions_failed`.
    """
    kinds = [row.status for row in outcome.rows]
    return {
        **{kind: kinds.count(kind) for kind in ("done", "failed", "ignored")},
        "lost": sum(row.is_lost for row in outcome.rows),
        "tiles": sum(row.tiles for row in outcome.rows),
        "tiles_damaged": sum(row.tiles_damaged for row in outcome.rows),
        "tiles_failed": sum(row.tiles_failed for row in outcome.rows),
        "regions": sum(row.regions for row in outcome.rows),
        "regions_failed": sum(row.regions_failed for row in outcome.rows),
    }


def print_embed(
    outcome: RunOutcome, cohort: Cohort, *, seconds: float, tiles_made: int, console: Console | None = None
) -> None:
    """Print what was ignored or matches nothing, what there is to know of images, and one last line that counts.

    Parameters
    ----------
    outcome : RunOutcome
        What `run_embed` returned.
    cohort : Cohort
        What it was given.
    seconds : float
        Wall time.
    tiles_made : int
        Tiles that this run made; the others were finished before.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    print_ignored(console, cohort.ignored, rest=str(outcome.report_json))
    for note in cohort.notes:
        print_line(console, ("note ", "yellow"), note)
    told = Counter(note for row in outcome.rows for note in row.notes)
    for note, images in told.most_common(MOST_NOTES):
        print_line(console, ("note ", "yellow"), f"{note}{f' ({images:,} images)' if images > 1 else ''}")
    for name in cohort.unmatched:
        print_line(console, ("failed ", "bold red"), name)
    print_line(console, last_line(outcome, seconds=seconds, tiles_made=tiles_made))


def last_line(outcome: RunOutcome, *, seconds: float, tiles_made: int) -> str:
    """Return the counts of a run in one line.

    Parameters
    ----------
    outcome : RunOutcome
        What `run_embed` returned.
    seconds : float
        Wall time.
    tiles_made : int
        Tiles that this run made.

    Returns
    -------
    str
        Inputs done, failed, ignored; tiles, those damaged and those without a result; regions of a hierarchy; seconds,
        tiles a second; path of the report.
    """
    found = counts(outcome)
    before = max(0, found["tiles"] - tiles_made)
    rate = f", {number(tiles_made / max(seconds, 1e-6))} tiles/s" if tiles_made else ""
    earlier = f" ({before:,} from an earlier run)" if before else ""
    lost = f" ({found['lost']:,} WITHOUT ONE GOOD TILE)" if found["lost"] else ""
    regions = f"; {found['regions']:,} region{'' if found['regions'] == 1 else 's'}" if found["regions"] else ""
    regions += f", {found['regions_failed']:,} without a vector" if found["regions_failed"] else ""
    unfit = f", {found['tiles_failed']:,} without a result" if found["tiles_failed"] else ""
    return (
        f"{found['done']:,} done{lost}, {found['failed']:,} failed, {found['ignored']:,} ignored; "
        f"{found['tiles']:,} tiles{earlier}, {found['tiles_damaged']:,} damaged{unfit}{regions}; "
        f"{duration(seconds)}{rate}; report: {outcome.report_html}"
    )
