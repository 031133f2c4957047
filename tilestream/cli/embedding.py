"""What `tilestream embed` prints at its end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tilestream.cli.lines import print_ignored, print_line
from tilestream.cli.stopping import print_json
from tilestream.cli.words import duration, number

if TYPE_CHECKING:
    from tilestream.cli.progress import Progress
    from tilestream.cli.stopping import Stop
    from tilestream.pipelines.cohort import Cohort
    from tilestream.pipelines.embed import EmbedConfig, RunOutcome
    from tilestream.pipelines.report_rows import InputRow

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


def embed_shown(
    cohort: Cohort, config: EmbedConfig, *, progress: Progress, stop: Stop, started: float, as_json: bool
) -> int:
    """Return the exit code of a run that is shown while it goes on, and whose outcome is printed.

    Parameters
    ----------
    cohort : Cohort
        The inputs.
    config : EmbedConfig
        What to make of them.
    progress : Progress
        Shows it.
    stop : Stop
        Ends it when it is asked to.
    started : float
        When the command began, on the monotonic clock.
    as_json : bool
        Whether one JSON document is printed, and nothing else.

    Returns
    -------
    int
        See `RunOutcome.exit_code`.
    """
    from tilestream.pipelines.embed import run_embed

    with progress.shown(len(cohort.entries)):
        outcome = run_embed(cohort, config, on_event=stop.checked(progress.hear))
    progress.tell_time(outcome.facts.setting)
    if as_json:
        print_json(embed_document(outcome, strict=config.strict))
    else:
        print_embed(outcome, cohort, seconds=time.monotonic() - started, tiles_made=progress.tiles)
    return outcome.exit_code(strict=config.strict)


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
        Inputs done, failed, ignored; tiles, those damaged and those without a result; regions of a hierarchy; with a
        budget the shares of pixels and of bytes read; seconds, tiles a second; path of the report.
    """
    found = counts(outcome)
    before = max(0, found["tiles"] - tiles_made)
    rate = f", {number(tiles_made / max(seconds, 1e-6))} tiles/s" if tiles_made else ""
    earlier = f" ({before:,} from an earlier run)" if before else ""
    lost = f" ({found['lost']:,} WITHOUT ONE GOOD TILE)" if found["lost"] else ""
    regions = f"; {found['regions']:,} region{'' if found['regions'] == 1 else 's'}" if found["regions"] else ""
    regions += f", {found['regions_failed']:,} without a vector" if found["regions_failed"] else ""
    unfit = f", {found['tiles_failed']:,} without a result" if found["tiles_failed"] else ""
    read = read_words([row for row in outcome.rows if row.tokens])
    return (
        f"{found['done']:,} done{lost}, {found['failed']:,} failed, {found['ignored']:,} ignored; "
        f"{found['tiles']:,} tiles{earlier}, {found['tiles_damaged']:,} damaged{unfit}{regions}{read}; "
        f"{duration(seconds)}{rate}; report: {outcome.report_html}"
    )


def read_words(rows: Sequence[InputRow]) -> str:
    """Return what part of some images was read, in words behind a semicolon; nothing where that is not known.

    Parameters
    ----------
    rows : sequence of InputRow
        Images of which a budget has decided what is read.

    Returns
    -------
    str
        Such as `; decoded 9.8 % of the pixels, read 11 % of the bytes`.
    """
    from tilestream.pipelines.report_words import format_share

    parts = []
    pixels = [(sum(row.pixels_decoded.values()), row.image_px) for row in rows if row.pixel_share is not None]
    if pixels:
        parts.append(f"decoded {format_share(sum(a for a, _ in pixels) / sum(b for _, b in pixels))} of the pixels")
    nbytes = [(row.bytes_read, row.image_bytes) for row in rows if row.image_bytes]
    if nbytes:
        parts.append(f"read {format_share(sum(a for a, _ in nbytes) / sum(b for _, b in nbytes))} of the bytes")
    return f"; {', '.join(parts)}" if parts else ""
