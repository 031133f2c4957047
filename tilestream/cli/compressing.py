"""What `tilestream compress` prints: a forecast of each image, how close its tiles are so far, and one last line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from tilestream.cli.embedding import MOST_NOTES
from tilestream.cli.lines import print_ignored, print_line
from tilestream.cli.words import counted, duration, size

if TYPE_CHECKING:
    from tilestream.pipelines.cohort import Cohort
    from tilestream.pipelines.compress_measure import Sums
    from tilestream.pipelines.embed import RunOutcome
    from tilestream.pipelines.report_rows import InputRow
    from tilestream.stream.engine import Event


class ToldOfFields:
    """Tells what a store will take before the first of it is written, and how close its tiles are while they are made.

    Parameters
    ----------
    hear : callable
        Hears every event after that.
    console : Console
        Where to print; the one of the progress, across which another would print.
    """

    def __init__(self, hear: Callable[[Event], None], console: Console) -> None:
        self._hear = hear
        self._console = console
        self._sums: dict[str, Sums] = {}
        self._kinds: dict[str, tuple[np.dtype[Any], int]] = {}

    def hear(self, event: Event) -> None:
        """Take in one event; to be given to the pipeline.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        from tilestream.pipelines.compress_measure import Sums

        key = event.job.key
        if event.kind == "prepared" and event.prepared is not None:
            facts = event.prepared.facts
            print_line(self._console, ("begin ", "dim"), f"{key}: {forecast_words(facts)}")
            self._sums[key] = Sums.of(event.reused)
            self._kinds[key] = np.dtype(facts["dtype"]), facts["channels"]
        elif event.receipt is not None and key in self._sums:
            self._sums[key].add(event.receipt.measures)
        self._hear(event)

    def said(self) -> str:
        """Return how close the tiles of level 0 of the image at work are so far, and what they cost."""
        if not self._sums:
            return ""
        key, sums = next(reversed(self._sums.items()))
        dtype, channels = self._kinds[key]
        psnr, error = sums.psnr(0, dtype), sums.errors.get(0)
        if psnr is None or error is None:
            return ""
        bits = 8 * sums.nbytes.get(0, 0) * channels / error.samples
        closeness = "exact" if math.isinf(psnr) else f"at {psnr:.2f} dB"
        return f"level 0 {closeness} and {bits:.3g} bits/px so far"


def forecast_words(facts: Any) -> str:
    """Return a forecast in words.

    Parameters
    ----------
    facts : Mapping
        Of a prepared image.

    Returns
    -------
    str
        Tiles, time, and bytes that the store will hardly reach, beside those of the image.
    """
    forecast = facts["forecast"]
    more = "" if forecast.tiles == facts["tiles"] else f", {forecast.tiles:,} left"
    threads = f"{forecast.threads} thread{'' if forecast.threads == 1 else 's'}"
    timed = f"about {duration(forecast.wall_s)} on {threads} ({forecast.tile_s:.2g} s a tile)"
    image = "" if facts["image_bytes"] is None else f"; the image has {size(facts['image_bytes'])}"
    return f"{counted(facts['tiles'], 'tile')}{more}; {timed}; likely below {size(forecast.store_bytes)}{image}"


def print_compress(
    outcome: RunOutcome, cohort: Cohort, *, seconds: float, tiles_made: int, console: Console | None = None
) -> None:
    """Print what each image became, what was ignored or matches nothing, and one last line that counts.

    Parameters
    ----------
    outcome : RunOutcome
        What `run_compress` returned.
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
    for row in outcome.rows:
        if row.status == "done" and row.coded:
            words = coded_words(row.coded, image_bytes=row.image_bytes, damaged=row.tiles_damaged, tiles=row.tiles)
            print_line(console, ("stored ", "green"), f"{row.outputs[0]}: {words}")
    print_ignored(console, outcome_ignored(outcome.rows), rest=str(outcome.report_json))
    for note in dict.fromkeys([*cohort.notes, *(note for row in outcome.rows for note in row.notes)][:MOST_NOTES]):
        print_line(console, ("note ", "yellow"), note)
    for name in cohort.unmatched:
        print_line(console, ("failed ", "bold red"), name)
    print_line(console, last_line(outcome, seconds=seconds, tiles_made=tiles_made))


def outcome_ignored(rows: Sequence[InputRow]) -> list[tuple[str, str]]:
    """Return path and reason of the files that are no input."""
    return [(row.path, row.reason) for row in rows if row.status == "ignored"]


def coded_words(coded: Mapping[str, Any], *, image_bytes: int | None, damaged: int, tiles: int) -> str:
    """Return what a store costs and how close it is, in a few words.

    Parameters
    ----------
    coded : Mapping
        As `compress_measure.Sums.record`, of an image that is done.
    image_bytes : int, optional
        Of the image's files, where that is known.
    damaged, tiles : int
        Tiles that are damaged, and all of them.

    Returns
    -------
    str
        Bytes, their share of the image's files, bits per pixel, dB by level, and damage.
    """
    from tilestream.pipelines.report_words import psnr_words

    decoder = coded.get("decoder_bytes", 0)
    whole = coded["bytes"] + decoder
    share = f" ({whole / image_bytes:.0%} of the image's files)".replace("%", " %") if image_bytes else ""
    beside = f" and {size(decoder)} of their decoder" if decoder else ""
    levels = ", ".join(psnr_words(coded, level) for level in range(len(coded.get("psnr", ()))))
    lost = f"; {damaged:,} of {counted(tiles, 'tile')} damaged" if damaged else ""
    costs = f"{size(coded['bytes'])} in tiles{beside}{share}, {coded['bpp']:.3g} bits/px"
    bound = f", no sample off by more than {coded['max_error']:,}" if coded.get("max_error") else ""
    weighed = f", {coded['psnr_weighed']:.2f} where it matters" if "psnr_weighed" in coded else ""
    return f"{costs}, PSNR in dB by level {levels}{bound}{weighed}{lost}"


def last_line(outcome: RunOutcome, *, seconds: float, tiles_made: int) -> str:
    """Return the counts of a run in one line.

    Parameters
    ----------
    outcome : RunOutcome
        What `run_compress` returned.
    seconds : float
        Wall time.
    tiles_made : int
        Tiles that this run made.

    Returns
    -------
    str
        Inputs done, failed, ignored; tiles and damaged ones; bytes; seconds; path of the report.
    """
    kinds = [row.status for row in outcome.rows]
    tiles = sum(row.tiles for row in outcome.rows)
    before = max(0, tiles - tiles_made)
    earlier = f" ({before:,} from an earlier run)" if before else ""
    stored = sum(row.coded.get("bytes", 0) for row in outcome.rows)
    return (
        f"{kinds.count('done'):,} done, {kinds.count('failed'):,} failed, {kinds.count('ignored'):,} ignored; "
        f"{counted(tiles, 'tile')}{earlier}, {sum(row.tiles_damaged for row in outcome.rows):,} damaged; "
        f"{size(stored)} stored; {duration(seconds)}; report: {outcome.report_html}"
    )
