"""How a command ends when something is wrong or somebody stops it: the line, the exit code, and what to do next."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from types import FrameType
from typing import Any, NoReturn, TypeVar

import typer

from tilestream.errors import ConfigError, TilestreamError

USAGE = 2
"""Options or inputs that cannot be met."""
SOME_FAILED = 3
"""Finished, but some inputs failed."""
INTERRUPTED = 130
"""Stopped by SIGINT or SIGTERM; can be gone on with."""
EXTRAS = {"torch": "torch", "safetensors": "torch"}
"""Libraries that commands import when they need them, and the extra that brings each."""

T = TypeVar("T")

GRACE_S = 10.0
"""How long what is under way may take to end. SLURM and Kubernetes kill 30 s after they have asked; dask gives worker
processes 4 s."""

AGAIN = "To go on from here, run the same command again"


class Stop:
    """Remembers that a signal has come: an exception raised inside a callback or an import can get lost."""

    def __init__(self) -> None:
        self.is_wanted = False
        self._last_word = Lock()

    def has_last_word(self) -> bool:
        """Return whether the caller is the first to ask, and so the one who tells the user how the run ended."""
        return self._last_word.acquire(blocking=False)

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

    def overdue() -> None:
        if stop.has_last_word():
            _end("interrupted", stopped(), as_json=as_json)
            _leave()

    try:
        with _stop_on_signals(stop, overdue):
            yield stop
    except TilestreamError as error:
        _end("error", str(error), as_json=as_json)
        raise typer.Exit(USAGE) from None
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        missing = ConfigError.of(
            f"library `{error.name}`",
            got="not installed",
            expected="what this command computes with",
            do=f"pip install -e '.[{EXTRAS[error.name]}]'.",
        )
        _end("error", str(missing), as_json=as_json)
        raise typer.Exit(USAGE) from None
    except KeyboardInterrupt:
        # CPython dies of SIGINT at its exit, whatever the exit code, when an interrupt has passed through source text
        # that was being executed, as in the making of a named tuple during an import; the next text clears that mark.
        exec("pass")
        if not stop.has_last_word():
            threading.Event().wait()  # somebody else is just ending this process
        _end("interrupted", stopped(), as_json=as_json)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        stop.has_last_word()  # nothing is overdue any more


def same_command() -> str:
    """Return the command line of this process, ready to be pasted into a shell."""
    return shlex.join(["tilestream", *sys.argv[1:]])


@contextmanager
def _stop_on_signals(stop: Stop, overdue: Callable[[], None]) -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does: schedulers send it before they kill. What takes longer is cut off."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.is_wanted = True
        timer = threading.Timer(GRACE_S, overdue)
        timer.daemon = True
        timer.start()
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
    _leave()


def _leave() -> NoReturn:
    """End the process without waiting for anything, and let others have what it was working on."""
    if (leases := sys.modules.get("tilestream.stream.leases")) is not None:  # else it holds none
        leases.abandon()
    with suppress(OSError, ValueError):  # a pipe that nobody reads any more
        sys.stdout.flush()
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
