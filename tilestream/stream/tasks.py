"""What travels to a worker with each call, and what becomes of it."""

from __future__ import annotations

import asyncio
import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as Fetch
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Future, KilledWorker

from tilestream.errors import TilestreamError
from tilestream.life import LIFE
from tilestream.metrics import collect
from tilestream.stream.faults import WorkerLost
from tilestream.stream.halt import Halted
from tilestream.stream.watch import report_life
from tilestream.stream.work import Busy, Failure

TASK_S = 0.5
"""A task takes no further unit after this long: about nine messages go round for each, which cost as much as decoding
a hundred tiles, and short ones share them."""
RESULT_S = 2.0
"""How long the result of a finished task, a receipt, may take to travel."""

_FETCHES: WeakKeyDictionary[Future[Any], Fetch[Any]] = WeakKeyDictionary()
"""Results that are on their way here; one that did not come in time is asked for again."""


@dataclass(frozen=True)
class Lost:
    """A task whose worker died or lost its device, perhaps through a fault of a neighbour's."""

    reason: str
    """How it was lost."""
    worker: str = ""
    """Address of the worker, where it is known."""


@dataclass(frozen=True)
class Turn:
    """What one task has done."""

    results: tuple[Any, ...]
    """Of its first units, in order; those after them were not begun."""
    seconds: float
    """How long that took."""


def in_turn(work: Callable[..., Any], units: Sequence[Any]) -> Turn:
    """Return what became of some units of an image, each claimed and done by itself, until `TASK_S` have passed.

    Parameters
    ----------
    work : callable
        Does a unit.
    units : sequence of Unit
        One after the other; the first is done in any case.

    Returns
    -------
    Turn
        Its last result is a failure where there was one: nothing of the image is begun after it.
    """
    results: list[Any] = []
    started = time.perf_counter()
    for unit in units:
        results.append(guarded(work, unit))
        if isinstance(results[-1], Failure) or time.perf_counter() - started > TASK_S:
            break
    return Turn(tuple(results), time.perf_counter() - started)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the function returns, or a `Failure`: an exception in a task would be printed by the worker.

    Parameters
    ----------
    function : callable
        What to do.
    *arguments : object
        What it takes.

    Returns
    -------
    object
        Its result.
    """
    report_life()
    try:
        with LIFE.task(), collect():  # so that each step that ends, also one that nobody measures, is a sign of life
            return function(*arguments)
    except WorkerLost:  # an exception travels by itself; a result would have to be fetched from the process that leaves
        raise
    except Halted:  # its worker is being closed, while the run may go on with others
        return Busy(key="")
    except TilestreamError as error:
        return Failure(reason=str(error))
    except MemoryError as error:
        return Failure(reason=f"out of memory: {error}")
    except Exception as error:  # noqa: BLE001 - one image must not end the run, whatever its stages raise
        return Failure(reason=f"{type(error).__name__}: {error}", expected=False, trace=traceback.format_exc())


def result_of(future: Future[Any]) -> tuple[Any] | None:
    """Return what became of a task in a tuple, None when its worker died after the end, and with it the result.

    Parameters
    ----------
    future : Future
        One that has come to its end.

    Returns
    -------
    tuple or None
        The result, a `Failure`, or `Lost`.
    """
    if future.status in ("finished", "lost", "pending"):
        try:
            return (_fetched(future, RESULT_S),)  # would wait for ever where no worker is left
        except TimeoutError:
            return None
        except KilledWorker as killed:
            return (_killed(killed),)
        except (CancelledError, OSError):
            return (Lost("the result was lost"),)
    error = future.exception() if future.status == "error" else None
    if error is None:
        return (Lost("the task was cancelled"),)
    if isinstance(error, KilledWorker):
        return (_killed(error),)
    if isinstance(error, WorkerLost):
        return (Lost(str(error)),)
    return (Failure(reason=f"{type(error).__name__}: {error}", expected=False),)


def _fetched(future: Future[Any], timeout_s: float) -> Any:
    """Return the result of a future; raise TimeoutError when it is not here in time, and fetch it on.

    `future.result(timeout)` would cancel what it waits for. Where Dask had joined results to be fetched with others',
    and a slow machine has not begun with it, each later one of the client then waits for what was cancelled.
    """
    fetch = _FETCHES.get(future)
    if fetch is None:
        client = future.client
        fetch = asyncio.run_coroutine_threadsafe(client.gather(future, asynchronous=True), client.loop.asyncio_loop)
        _FETCHES[future] = fetch
    try:
        return fetch.result(timeout_s)
    finally:
        if fetch.done():
            _FETCHES.pop(future, None)


def _killed(error: KilledWorker) -> Lost:
    return Lost("the process died", worker=str(error.last_worker.address))


def pickled_bytes(value: object) -> int:
    """Return the size of a pickled object; arrays are counted without being copied."""
    buffers: list[int] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=lambda buffer: buffers.append(buffer.raw().nbytes))
    return len(text) + sum(buffers)
