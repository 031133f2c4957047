"""What a run shows while it goes on: a few calm lines on a terminal, plain lines now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tilestream.cli.lines import print_line, without_subject
from tilestream.cli.liveview import summary, time_line, view
from tilestream.cli.words import counted
from tilestream.pipelines.course import Course
from tilestream.pipelines.figures import Figures

if TYPE_CHECKING:
    from tilestream.pipelines.report_advice import Setting
    from tilestream.stream.engine import Event

PLAIN_EVERY_S = 10.0
"""Shortest time between two plain lines about the run as a whole,"""
PLAIN_SHARE = 0.1
"""growing with the run to this share of its time,"""
PLAIN_MOST_S = 300.0
"""and at most this: a log of a night has some hundred lines."""
TELL_FROM_S = 5.0
"""Nobody wants to know where the time of a shorter run went."""
REFRESH_PER_S = 2
FRESH_S = 1.0
"""How long figures are shown before they are told anew; numbers that change more often cannot be read."""


class Progress:
    """Shows a run on standard error while it goes on, and knows what was done when it is cut short.

    Parameters
    ----------
    console : Console, optional
        Where to show; standard error by default. A live display when it is a terminal that can move its cursor.
    noun : str
        What receipts count.
    """

    def __init__(self, console: Console | None = None, *, noun: str = "tile") -> None:
        self.course = Course(images=0, noun=noun)
        self.console = console or Console(stderr=True, highlight=False)
        """Where everything about the run is printed: a second one would print across the live display."""
        self.said: Callable[[], str] = str
        """What a command tells of its run beside the figures that all runs have; empty where it has nothing to tell."""
        self._hear: Callable[[Event], None] = self.course.hear

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
        course = self.course = Course(images=images, noun=self.course.noun)
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            self._hear = PlainProgress(self.console, course, said=self.said).hear
            try:
                yield
            finally:
                course.stop()
            return
        self._hear = self._hear_beside_view
        fresh = Fresh(course)
        live = Live(
            console=self.console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
            get_renderable=lambda: view(fresh.figures(), width=self.console.width, said=self.said()),
        )
        try:
            with live:
                yield
        finally:
            course.stop()

    def hear(self, event: Event) -> None:
        """Take in one event; to be given to the pipeline.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        self._hear(event)

    @property
    def tiles(self) -> int:
        """Return how many tiles this run has made."""
        return self.course.figures().tiles

    def tell_time(self, setting: Setting) -> None:
        """Say where the time of the run went and what would help, unless it was over in a moment.

        Parameters
        ----------
        setting : Setting
            What of the run decides which knob there is.
        """
        figures = self.course.figures()
        line = time_line(figures, setting)
        if line is not None and figures.wall_s >= TELL_FROM_S:
            print_line(self.console, ("time ", "dim"), line)

    def kept(self) -> str:
        """Return what an interrupted run has done so far."""
        figures = self.course.figures()
        if not figures.images:
            return "nothing was begun"
        tiles = counted(figures.tiles + figures.reused, figures.noun)
        return f"{figures.ended:,} of {counted(figures.images, 'input')} and {tiles} are done and kept"

    def _hear_beside_view(self, event: Event) -> None:
        self.course.hear(event)
        if event.kind == "failed" and (line := ending(event)) is not None:
            print_line(self.console, line)


class Fresh:
    """Figures that stand still for a second, so that they can be read.

    Parameters
    ----------
    course : Course
        Whose figures.
    clock : callable
        Seconds from any point.
    """

    def __init__(self, course: Course, clock: Callable[[], float] = time.monotonic) -> None:
        self._course = course
        self._clock = clock
        self._told: tuple[float, Figures] | None = None

    def figures(self) -> Figures:
        """Return what was told less than a second ago, or what can be told now."""
        now = self._clock()
        if self._told is None or now - self._told[0] >= FRESH_S:
            self._told = now, self._course.figures()
        return self._told[1]


class PlainProgress:
    """Prints one line an image, and now and then one about the whole run.

    Parameters
    ----------
    console : Console
        Where to print.
    course : Course
        What was heard, which this object keeps up to date.
    clock : callable
        Seconds from any point.
    said : callable
        What there is to tell beside the figures.
    """

    def __init__(
        self,
        console: Console,
        course: Course,
        clock: Callable[[], float] = time.monotonic,
        said: Callable[[], str] = str,
    ) -> None:
        self._console = console
        self._course = course
        self._clock = clock
        self._said = said
        self._started = self._last = clock()

    def hear(self, event: Event) -> None:
        """Take in one event and print what it calls for.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        noun, tiles = self._course.noun, self._course.tiles_of(event.job.key)
        self._course.hear(event)
        if tiles is not None and isinstance(event.result, Mapping):  # a budget may not have been used up
            tiles = event.result.get("tiles", tiles)
        if (line := ending(event)) is not None:
            if tiles is not None:
                line.append(f" ({counted(tiles, noun)})")
            print_line(self._console, line)
            return
        now = self._clock()
        every_s = min(PLAIN_MOST_S, max(PLAIN_EVERY_S, PLAIN_SHARE * (now - self._started)))
        if now - self._last >= every_s:
            print_line(self._console, Text(summary(self._course.figures(), said=self._said())))
            self._last = now


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


def _marks(result: Any) -> str:
    """Return what a user should not have to look for in the report: tiles without values, or no tile at all."""
    if not isinstance(result, Mapping):
        return ""
    tiles, damaged, failed = (result.get(name) or 0 for name in ("tiles", "tiles_damaged", "tiles_failed"))
    if damaged + failed and damaged + failed + (result.get("tiles_empty") or 0) >= tiles:
        return ": NOT ONE of its tiles has values"
    marks = [f"{damaged:,} of its tiles are damaged"] if damaged else []
    marks += [f"{failed:,} have no result"] if failed else []
    if marks:
        return f": {', '.join(marks)}"
    return ": nothing was selected" if result.get("tiles") == 0 else ""
