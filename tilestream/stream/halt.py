"""Work that is under way when its run is told to stop: it ends at its next batch, not at the end of its super-tile.

A scheduler that wants its node back sends SIGTERM and kills half a minute later, or sooner. A super-tile under a large
model takes longer than that, and what is left of it would be a lease that others must wait for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tilestream.errors import TilestreamError

_halted: set[str] = set()
_everything = threading.Event()
_thread = threading.local()


class Halted(TilestreamError):
    """Raised in work that was under way when its run was told to stop; nothing of it is kept."""


def halt(*places: str) -> None:
    """Let the work on some images end, in this process, at its next look.

    Parameters
    ----------
    *places : str
        Where the images' receipts are.
    """
    _halted.update(places)


def halt_everything() -> None:
    """Let all work end, in a process that is about to end itself."""
    _everything.set()


def go_on(place: str) -> None:
    """Let work on an image run again: another run begins with it.

    Parameters
    ----------
    place : str
        Where its receipts are.
    """
    _halted.discard(place)


@contextmanager
def working_on(place: str) -> Iterator[None]:
    """Remember what this thread works on until the block ends, so that `look` knows it.

    Parameters
    ----------
    place : str
        Where the image's receipts are.

    Yields
    ------
    None
        Nothing.
    """
    _thread.place = place
    try:
        yield
    finally:
        _thread.place = None


def look() -> None:
    """End the work of this thread when its run was told to stop.

    Raises
    ------
    Halted
        After `halt`.
    """
    if _everything.is_set() or getattr(_thread, "place", None) in _halted:
        raise Halted("the run was told to stop")
