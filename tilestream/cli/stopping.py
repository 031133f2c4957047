"""How a command ends when something is wrong or somebody stops it: the line, the exit code, and what to do next."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import typer

from tilestream.errors import TilestreamError

USAGE = 2
"""Options or inputs that cannot be met."""
SOME_FAILED = 3
"""Finished, but some inputs failed."""
INTERRUPTED = 130
"""Stopped by SIGINT or SIGTERM; can be gone on with."""

T = TypeVar("T")

AGAIN = "To go on from here, run the same command again"


class Stop:
    """Remembers that a signal has come: an exception raised inside a callback or an import can get lost."""

    def __init__(self) -> None:
        self.is_wanted = False

    def checked(self, hear: Callable[[T], None]) -> Callable[[T], None]:
        """Return a listener that ends the run when a signal has come, and hands on events otherwise.

        Parameters
        ----------
        hear : callable
            Takes an event.

        Returns
        -------
        callable
            Takes an event; raises KeyboardInterrupt.
        """

        def heard(event: T) -> None:
            if self.is_wanted:
                raise KeyboardInterrupt
            hear(event)

        return heard


@contextmanager
def guarded(*, as_json: bool, stopped: Callable[[], str] = lambda: "Nothing was written.") -> Iterator[Stop]:
    """Turn errors that a user can cause into one line and exit code 2, and an interrupt into a line and 130.

    Parameters
    ----------
    as_json : bool
        Whether standard output must hold one JSON document whatever happens.
    stopped : callable
        Returns the sentence for an interrupt: what is kept and how to go on.

    Yields
    ------
    Stop
        To be asked now and then whether a signal has come. Any other exception passes through with its traceback.

    Raises
    ------
    typer.Exit
        With the exit code.
    """
    stop = Stop()
    try:
        with _stop_on_signals(stop):
            yield stop
    except TilestreamError as error:
        _end("error", str(error), as_json=as_json)
        raise typer.Exit(USAGE) from None
    except KeyboardInterrupt:
        # CPython dies of SIGINT at its exit, whatever the exit code, when an interrupt has passed through source text
        # that was being executed, as in the making of a named tuple during an import; the next text clears that mark.
        exec("pass")
        _end("interrupted", stopped(), as_json=as_json)
        raise typer.Exit(INTERRUPTED) from None


def same_command() -> str:
    """Return the command line of this process, ready to be pasted into a shell."""
    return shlex.join(["tilestream", *sys.argv[1:]])


@contextmanager
def _stop_on_signals(stop: Stop) -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: schedulers send it before they kill."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.is_wanted = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop_now)
        raise KeyboardInterrupt

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever owns that decides
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_now(_number: int, _frame: FrameType | None) -> None:
    """End at once at the second signal: receipts make that as harmless as a slow end."""
    os.write(2, f"interrupted: stopped at once. {AGAIN}.\n".encode())
    os._exit(INTERRUPTED)


def _end(status: str, message: str, *, as_json: bool) -> None:
    typer.echo(f"{status}: {message}", err=True)
    if as_json:
        print_json({"status": status, "message": message})


def print_json(document: Any) -> None:
    """Print one JSON document on standard output.

    Parameters
    ----------
    document : object
        JSON values.
    """
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
