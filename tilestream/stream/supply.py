"""Batches of a unit for its stages: decoded by the thread that computes, or by others ahead of it.

Ahead of a stage a ring of buffers goes round: a thread decodes into a free one, the stage takes it, and gives it back
when its result is there. With one thread there are three: one is being decoded, one waits or is on its way to the
device, one is computed on. Which thread decodes what, and when, never changes what is in a batch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from tilestream.metrics import Meter, collect, merge, timed
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.batches import Outcome, Slots, UnitReader, plain_memory
from tilestream.stream.helpthreads import HELP
from tilestream.types import Batch, DeviceStage, SuperTile

MOST_THREADS = 8
"""Decode threads of one task: a unit has few batches, and every thread more is a batch more in memory."""
RESERVE = 2
"""Buffers besides those that are being decoded into: one that is full, and one that a stage has."""


def decode_threads(*, cores: int, tasks: int, on_device: bool) -> int:
    """Return how many threads decode ahead for each task; 0 for none but the task's own.

    Parameters
    ----------
    cores : int
        Cores that this machine's tasks may use.
    tasks : int
        Tasks that run on them at once.
    on_device : bool
        Whether a stage computes on a device: the task's own thread then waits most of the time.

    Returns
    -------
    int
        Together with the tasks themselves no more than there are cores, where these compute too.
    """
    if on_device:
        return max(1, min(MOST_THREADS, cores // max(1, tasks)))
    return max(0, min(MOST_THREADS, (cores - tasks) // max(1, tasks)))


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Supply(Protocol):
    """Where the batches of one unit come from."""

    def take(self) -> Batch | None:
        """Return the next batch, None after the last."""

    def give_back(self, batch: Batch) -> None:
        """Allow the memory of a batch to be used again; in any order."""


@contextmanager
def supplied(
    pyramid: Pyramid,
    unit: SuperTile,
    outcome: Outcome,
    *,
    batch: int,
    threads: int = 0,
    device: DeviceStage | None = None,
) -> Iterator[Supply]:
    """Yield the supply of a unit; when the block ends nobody reads any more.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    unit : SuperTile
        Which tiles.
    outcome : Outcome
        Filled on the way; complete after the last batch.
    batch : int
        Most tiles in a batch.
    threads : int
        Threads that decode ahead; with 0 only one batch can be out at a time.
    device : DeviceStage, optional
        Says in which memory batches are wanted.

    Yields
    ------
    Supply
        For the thread that asks.
    """
    reader: _Here | _Ahead
    threads = min(threads, -(-len(unit.tile_yx) // batch))
    ring = _ring(threads + RESERVE if threads else 1, device)
    if threads:
        reader = _Ahead(pyramid, unit, outcome, batch=batch, threads=threads, ring=ring)
    else:
        reader = _Here(pyramid, unit, outcome, batch, ring[0])
    try:
        yield reader
    finally:
        reader.close()


class _Rings(threading.local):
    """The buffers of one task's thread, kept for its next units."""

    def __init__(self) -> None:
        self.by_device: dict[str, list[Slots]] = {}


_rings = _Rings()


def _ring(size: int, device: DeviceStage | None) -> list[Slots]:
    where, allocate = ("cpu", plain_memory) if device is None else (device.device, device.allocate)
    ring = _rings.by_device.setdefault(where, [])
    ring.extend(Slots(allocate) for _ in range(size - len(ring)))
    return ring[:size]


class _Here:
    """Decodes a batch when it is asked for."""

    def __init__(self, pyramid: Pyramid, unit: SuperTile, outcome: Outcome, batch: int, slots: Slots) -> None:
        self._reader = UnitReader(pyramid, unit, outcome)
        self._parts = iter(_parts(range(len(unit.tile_yx)), batch))
        self._slots = slots

    def take(self) -> Batch | None:
        for part in self._parts:
            with timed("supply"):
                found = self._reader.read(part.start, part.stop, self._slots)
            if found is not None:
                return found
        return None

    def give_back(self, batch: Batch) -> None:
        """Nothing is to be done: the next `take` overwrites it."""

    def close(self) -> None:
        self._reader.close()


@dataclass(frozen=True)
class _Ended:
    """A decode thread has nothing left to do."""

    meter: Meter
    error: BaseException | None


class _Ahead:
    """Has its batches decoded by other threads, each of which takes one stretch of the unit."""

    def __init__(
        self, pyramid: Pyramid, unit: SuperTile, outcome: Outcome, *, batch: int, threads: int, ring: list[Slots]
    ) -> None:
        self._free: SimpleQueue[Slots | None] = SimpleQueue()
        self._full: SimpleQueue[tuple[Batch, Slots] | _Ended] = SimpleQueue()
        self._out: dict[int, Slots] = {}
        self._is_over = False
        for slots in ring:
            self._free.put(slots)
        parts = _parts(range(len(unit.tile_yx)), batch)
        stretches = [parts[len(parts) * k // threads : len(parts) * (k + 1) // threads] for k in range(threads)]
        self._working = 0
        try:
            for stretch in filter(None, stretches):
                whole = range(stretch[0].start, stretch[-1].stop)
                HELP.run(partial(self._decode, partial(UnitReader, pyramid, unit, outcome, whole), stretch))
                self._working += 1
        except BaseException:  # no more threads may be started: those that were do not go on
            self.close()
            raise

    def take(self) -> Batch | None:
        while self._working:
            with timed("wait"):
                found = self._full.get()
            if isinstance(found, _Ended):
                self._end(found)
                if found.error is not None:
                    raise found.error
                continue
            batch, slots = found
            self._out[id(batch)] = slots
            return batch
        return None

    def give_back(self, batch: Batch) -> None:
        self._free.put(self._out.pop(id(batch)))

    def close(self) -> None:
        """Stop the threads and wait for them: their buffers belong to the next unit."""
        self._is_over = True
        for _ in range(self._working):
            self._free.put(None)  # wakes who waits for a buffer
        while self._working:
            found = self._full.get()
            if isinstance(found, _Ended):
                self._end(found)

    def _end(self, ended: _Ended) -> None:
        self._working -= 1
        merge(ended.meter)

    def _decode(self, new_reader: partial[UnitReader], parts: list[range]) -> None:
        error: BaseException | None = None
        with collect() as meter:
            try:
                self._decode_parts(new_reader, parts)
            except BaseException as raised:  # noqa: BLE001 - it is the task's, and raised there
                error = raised
        self._full.put(_Ended(meter, error))

    def _decode_parts(self, new_reader: partial[UnitReader], parts: list[range]) -> None:
        with timed("supply"):
            reader = new_reader()
        try:
            slots: Slots | None = None
            for part in parts:
                slots = slots or self._free.get()
                if slots is None or self._is_over:  # nobody wants the rest
                    return
                with timed("supply"):
                    found = reader.read(part.start, part.stop, slots)
                if found is not None:
                    self._full.put((found, slots))
                    slots = None
            if slots is not None:
                self._free.put(slots)
        finally:
            reader.close()


def _parts(rows: range, batch: int) -> list[range]:
    return [rows[first : first + batch] for first in range(0, len(rows), batch)]


__all__ = ["RESERVE", "Supply", "decode_threads", "supplied", "usable_cores"]
