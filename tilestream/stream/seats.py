"""Several runs on the same outputs: each takes a seat, and begins where the seats before it are far away.

Nobody hands out work: every process claims what it comes to. Starting at the same image they would all read and plan
it and stand in each other's way at its first super-tiles. So each takes the lowest number that no living run has, and
begins at a place of its own in the order of the images, and in that of an image's units: 0, 1/2, 1/4, 3/4, … of the
way. One run alone has number 0 and keeps the given order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from tilestream.codecs.place import Place
from tilestream.errors import OutputError
from tilestream.stream.leasefiles import lease_file
from tilestream.stream.leases import Lease, claim, clear_dead

MOST_SEATS = 1024
"""Runs beyond that begin at 0, which is slower and not wrong."""
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN")
"""Where SLURM says which member of an array job this is: seats are looked for from there, and found at once."""

T = TypeVar("T")


@contextmanager
def taken_seat(folder: Place) -> Iterator[float]:
    """Yield where to begin, as a share of the way, and keep the seat until the block ends.

    Parameters
    ----------
    folder : Place
        Folder that all runs on these outputs share; made when it is not there.

    Yields
    ------
    float
        From 0 to below 1; 0 for a run alone.

    Raises
    ------
    OutputError
        When the folder cannot be written.
    """
    folder.prepare()
    first = array_index(os.environ)
    for number in (*range(first, MOST_SEATS), *range(first)):
        lease = _claimed(folder, number)
        if lease is not None:
            with lease:
                yield seat_start(number)
            break
    else:
        yield 0.0
    with suppress(OSError, OutputError):  # those of runs that were killed; who takes their seats does it too
        for name in folder.names(".*.lease"):
            clear_dead(lease_file(folder, name))


def array_index(environment: Mapping[str, str]) -> int:
    """Return which member of an array job a process is, from 0; 0 where it is in none.

    Parameters
    ----------
    environment : Mapping
        Environment variables.

    Returns
    -------
    int
        Below `MOST_SEATS`.
    """
    values = [environment.get(name, "") for name in ARRAY]
    index, least = (int(value) if value.isdigit() else 0 for value in values)
    return max(0, index - least) % MOST_SEATS


def seat_start(number: int) -> float:
    """Return the place of a seat: the bits of its number in reverse, behind the point (van der Corput's sequence).

    Parameters
    ----------
    number : int
        From 0.

    Returns
    -------
    float
        0, 1/2, 1/4, 3/4, 1/8, 5/8, …
    """
    start, step = 0.0, 0.5
    while number:
        start += step * (number & 1)
        number, step = number >> 1, step / 2
    return start


def begun_at(items: Sequence[T], start: float) -> list[T]:
    """Return items in their order, begun at a place in the middle.

    Parameters
    ----------
    items : sequence
        In the given order.
    start : float
        Share of the way.

    Returns
    -------
    list
        All of them; after the last comes the first.
    """
    first = int(start * len(items))
    return [*items[first:], *items[:first]]


def _claimed(folder: Place, number: int) -> Lease | None:
    return claim(lease_file(folder, f".run-{number}.lease"))
