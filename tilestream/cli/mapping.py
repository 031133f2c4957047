"""What `tilestream map` prints before a map is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console

from tilestream.cli.lines import print_line
from tilestream.cli.words import counted, size

if TYPE_CHECKING:
    from tilestream.stream.engine import Event

TOLD = 0.02
"""Share of what is computed more than once from which on it is told."""


def announced_maps(hear: Callable[[Event], None], console: Console) -> Callable[[Event], None]:
    """Return a listener that tells what a map will take, before the first of it is written.

    Parameters
    ----------
    hear : callable
        Hears every event after that.
    console : Console
        Where to print; the one of the progress, across which another would print.

    Returns
    -------
    callable
        Takes the events of a run.
    """

    def heard(event: Event) -> None:
        if event.kind == "prepared" and event.prepared is not None and not event.reused:
            facts = event.prepared.facts
            halo, borders = facts["overhead"]
            more = f" ({halo:.0%} halo, {max(0, borders):.0%} on borders twice)" if max(halo, borders) >= TOLD else ""
            line = f"{event.job.key}: {counted(facts['tiles'], 'tile')}{more}; about {size(facts['store_bytes'])}"
            print_line(console, ("begin ", "dim"), line)
        hear(event)

    return heard
