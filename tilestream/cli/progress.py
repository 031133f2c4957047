"""What a run shows while it goes on: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tilestream.cli.counts import Counts
from tilestream.cli.lines import print_line, without_subject
from tilestream.cli.words import counted, duration, number, shortened

if TYPE_CHECKING:
    from tilestream.stream.engine import Event

PLAIN_EVERY_S = 10.0
"""Shortest time between two plain lines about the run as a whole."""
REFRESH_PER_S = 4
MOST_IMAGES = 4
"""Images with a line of their own; more would push what has failed out of sight."""


class Progress:
    """Shows a run on standard error while it goes on, and knows what was done when it is cut short.

    Parameters
    ----------
    console : Console, optional
        Where to show; standard error by default. Bars when it is a terminal.
    noun : str
        What receipts count.
    """

    def __init__(self, console: Console | None = None, *, noun: str = "tile") -> None:
        self.counts = Counts(images=0, noun=noun)
        self._console = console or Console(stderr=True, highlight=False)
        self._hear: Callable[[Event], None] = self.counts.hear

    @contextmanager
    def shown(self, images: int) -> Iterator[None]:
        """Show what is heard inside the block.

        Parameters
        ----------
        images : int
            Inputs of the run.

        Yields
        ------
        None
            Nothing.
        """
        counts = self.counts = Counts(images=images, noun=self.counts.noun)
        if not self._console.is_terminal:
            self._hear = PlainProgress(self._console, counts).hear
            yield
            return
        self._hear = self._hear_beside_bars
        with Live(
            console=self._console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
            get_renderable=lambda: view(counts),
        ):
            yield

    def hear(self, event: Event) -> None:
        """Take in one event; to be given to the pipeline.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        self._hear(event)

    def kept(self) -> str:
        """Return what an interrupted run has done so far."""
        counts = self.counts
        if not counts.images:
            return "nothing was begun"
        tiles = counted(counts.tiles + counts.reused, counts.noun)
        return f"{counts.ended:,} of {counted(counts.images, 'input')} and {tiles} are done and kept"

    def _hear_beside_bars(self, event: Event) -> None:
        self.counts.hear(event)
        if event.kind == "failed" and (line := ending(event)) is not None:
            print_line(self._console, line)


class PlainProgress:
    """Prints one line an image, and one about the whole run at most every ten seconds.

    Parameters
    ----------
    console : Console
        Where to print.
    counts : Counts
        Figures, which this object keeps up to date.
    clock : callable
        Seconds from any point.
    """

    def __init__(self, console: Console, counts: Counts, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._counts = counts
        self._clock = clock
        self._last = clock()

    def hear(self, event: Event) -> None:
        """Take in one event and print what it calls for.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        image = self._counts.current.get(event.job.key)
        self._counts.hear(event)
        if (line := ending(event)) is not None:
            if image is not None:
                line.append(f" ({counted(image.tiles, self._counts.noun)})")
            self._print(line)
        elif self._clock() - self._last >= PLAIN_EVERY_S:
            self._print(Text(summary(self._counts)))
            self._last = self._clock()

    def _print(self, line: Text) -> None:
        print_line(self._console, line)


def ending(event: Event) -> Text | None:
    """Return the line about an input that has ended, None for other events.

    Parameters
    ----------
    event : Event
        What happened to an input.

    Returns
    -------
    Text or None
        `done`, `already done` or `failed` with the reason.
    """
    if event.kind == "failed":
        reason = event.failure.reason if event.failure is not None else "unknown reason"
        return Text.assemble(("failed", "bold red"), f" {event.job.key}: {without_subject(reason, event.job.key)}")
    if event.kind == "finished":
        return Text.assemble(("done", "green"), f" {event.job.key}{_marks(event.result)}")
    if event.kind == "skipped":
        return Text.assemble(("already done", "green"), f" {event.job.key}{_marks(event.result)}")
    return None


def _marks(summary: Any) -> str:
    """Return what a user should not have to look for in the report: damaged tiles, or none at all."""
    if not isinstance(summary, Mapping):
        return ""
    if summary.get("tiles_damaged"):
        return f": {summary['tiles_damaged']:,} of its tiles are damaged"
    return ": nothing was selected" if summary.get("tiles") == 0 else ""


def summary(counts: Counts) -> str:
    """Return the figures of a run in one line.

    Parameters
    ----------
    counts : Counts
        The figures.

    Returns
    -------
    str
        Images, tiles, rate, time left, and what is damaged or failed, if anything.
    """
    parts = [f"{counts.ended:,}/{counts.images:,} images", counted(counts.tiles + counts.reused, counts.noun)]
    parts += [f"{number(counts.rate)} {counts.noun}s/s", f"{duration(counts.eta_s)} left"]
    parts += [f"{counts.damaged:,} damaged"] if counts.damaged else []
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    return ", ".join(parts)


def view(counts: Counts) -> Group:
    """Return what the terminal shows: one bar for the run, one for each image that is being worked on.

    Parameters
    ----------
    counts : Counts
        The figures.

    Returns
    -------
    Group
        Fits any width.
    """
    bars = Table.grid(padding=(0, 1), expand=True)
    bars.add_column(no_wrap=True, ratio=2, overflow="ellipsis")
    bars.add_column(ratio=3)
    bars.add_column(no_wrap=True, justify="right", min_width=16)
    images = list(counts.current.items())
    bars.add_row(
        Text("all images", "bold"),
        ProgressBar(total=1.0, completed=counts.share),
        Text(f"{counts.ended:,}/{counts.images:,} images"),
    )
    for key, image in images[:MOST_IMAGES]:
        name = Text("  " + shortened(key, 34))
        bar = ProgressBar(total=max(1, image.tiles), completed=image.done)
        bars.add_row(name, bar, Text(f"{image.done:,}/{image.tiles:,} {counts.noun}s"))
    if len(images) > MOST_IMAGES:
        bars.add_row(Text(f"  and {len(images) - MOST_IMAGES} more", "dim"), "", "")
    line = Text(summary(counts).partition(", ")[2])
    line.highlight_regex(r"[\d,]+ (damaged|failed)", "red")
    return Group(bars, line)
