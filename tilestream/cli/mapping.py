"""What `tilestream map` prints before a map is written, and of the files that are made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

from tilestream.cli.exporting import print_row
from tilestream.cli.lines import print_line
from tilestream.cli.words import counted, size

if TYPE_CHECKING:
    from tilestream.pipelines.export import ExportRow
    from tilestream.stream.engine import Event

TOLD = 0.02
"""Share of what is computed more than once from which on it is told."""


class ToldOfMaps:
    """Tells what a map will take, before the first of it is written, and what files were made, after the run.

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
        self.files: list[ExportRow] = []
        """What became of each file, to be filled by the run."""

    def hear(self, event: Event) -> None:
        """Take in one event; to be given to the pipeline.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        if event.kind == "prepared" and event.prepared is not None and not event.reused:
            facts = event.prepared.facts
            halo, borders = facts["overhead"]
            more = f" ({halo:.0%} halo, {max(0, borders):.0%} on borders twice)" if max(halo, borders) >= TOLD else ""
            line = f"{event.job.key}: {counted(facts['tiles'], 'tile')}{more}; about {size(facts['store_bytes'])}"
            print_line(self._console, ("begin ", "dim"), line)
        self._hear(event)

    def print_files(self) -> None:
        """Print a line a file: its name and how large it is, or why there is none."""
        for row in self.files:
            print_row(self._console, row)
