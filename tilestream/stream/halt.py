"""Work that is under way when its run is told to stop: it ends at its next batch, not at the end of its super-tile.

A scheduler that wants its node back sends SIGTERM and kills half a minute later, or sooner. A super-tile under a large
model takes longer than that, and what is left of it would be a lease that others must wait for.
"""

from __future__ import annotations

from threading import Event

from tilestream.errors import TilestreamError

_halted = Event()


class Halted(TilestreamError):
    """Raised in work that was under way when its run was told to stop; nothing of it is kept."""


def halt() -> None:
    """Let all work of this process end at its next look."""
    _halted.set()


def go_on() -> None:
    """Let work run again: another run begins in this process."""
    _halted.clear()


def look() -> None:
    """End the work that asks when its run was told to stop.

    Raises
    ------
    Halted
        After `halt`.
    """
    if _halted.is_set():
        raise Halted("the run was told to stop")
