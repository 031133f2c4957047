"""The steps of a residual as bytes: a range coder whose model changes with the width and middle told for each step.

Steps go in the order of their models, and among those of one model in the order of the lattice, so that the coder is
called once a model. Steps beyond ±256 are told by that symbol and 18 bits more, lower bits that a model leaves out as
they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.residualtables import OFFSETS, STEP_MOST, coarsened, step_model
from tilestream.errors import DamagedError

FARTHEST_BITS = 18
"""Of what lies beyond ±256: of any step of 16-bit pixels."""
_SMOOTH = 25
"""Index from which on the middle of a model is that of its cell: a bell of five cells."""
_WORD_BYTES = 4
Steps = npt.NDArray[np.int32]


class StepWriter:
    """Steps as they are added, as bytes."""

    def __init__(self) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()

    def add(self, steps: Steps, index: npt.NDArray[np.uint8], lean: npt.NDArray[np.int8], *, shape: int) -> None:
        """Add steps of one turn.

        Parameters
        ----------
        steps : ndarray of int32
            `(n,)`.
        index : ndarray of uint8
            `(n,)`, 0 to 76: how wide the model of each is.
        lean : ndarray of int8
            `(n,)`, −4 to 4: its middle in eighths of a cell.
        shape : int
            Of all models, 0 to 2.
        """
        for table, offset, bits, at in _groups(index, lean):
            part = np.where(lean[at] < 0, -steps[at], steps[at])
            high = (part + (1 << bits >> 1)) >> bits
            symbols = np.clip(high, -STEP_MOST, STEP_MOST)
            self._coder.encode(symbols + np.int32(STEP_MOST), step_model(shape, table, offset))
            is_far = np.abs(symbols) == STEP_MOST
            self._plain(np.abs(high[is_far]) - STEP_MOST, FARTHEST_BITS)
            self._plain((part + (1 << bits >> 1)) & (1 << bits) - 1, bits)

    def to_bytes(self) -> bytes:
        """Return all that was added; zeros at the end are left out, as a reader puts them there."""
        found: bytes = self._coder.get_compressed().astype(">u4").tobytes()
        return found.rstrip(b"\0")

    def _plain(self, values: Steps, bits: int) -> None:
        if bits and values.size:
            self._coder.encode(np.ascontiguousarray(values, np.int32), _uniform(bits))


class StepReader:
    """What a `StepWriter` wrote, turn by turn.

    Parameters
    ----------
    data : bytes
        All of it.
    """

    def __init__(self, data: bytes) -> None:
        import constriction

        words = np.frombuffer(data + bytes(-len(data) % _WORD_BYTES), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def take(self, index: npt.NDArray[np.uint8], lean: npt.NDArray[np.int8], *, shape: int) -> Steps:
        """Return the steps of the turn that comes next, `(n,)`; arguments as of `StepWriter.add`.

        Raises
        ------
        DamagedError
            When no encoder writes such bits.
        """
        steps = np.empty(len(index), np.int32)
        for table, offset, bits, at in _groups(index, lean):
            high = self._decoded(step_model(shape, table, offset), len(at)) - np.int32(STEP_MOST)
            is_far = np.abs(high) == STEP_MOST
            high[is_far] += np.sign(high[is_far]) * self._plain(int(is_far.sum()), FARTHEST_BITS)
            part = (high << bits) + self._plain(len(at), bits) - (1 << bits >> 1)
            steps[at] = np.where(lean[at] < 0, -part, part)
        return steps

    def _plain(self, count: int, bits: int) -> Any:
        return self._decoded(_uniform(bits), count) if bits and count else np.int32(0)

    def _decoded(self, model: Any, count: int) -> Any:
        try:
            return self._coder.decode(model, count)
        except (AssertionError, ValueError) as error:  # what the coder raises of words that no encoder writes
            raise DamagedError(f"residual of a pyramid: no steps in this order of bits ({error})") from error


def _uniform(bits: int) -> Any:
    import constriction

    return constriction.stream.model.Uniform(1 << bits)


def _groups(
    index: npt.NDArray[np.uint8], lean: npt.NDArray[np.int8]
) -> Iterator[tuple[int, int, int, npt.NDArray[np.intp]]]:
    """Yield model, middle, lower bits and places of the steps of each model that occurs."""
    offsets = np.where(index < _SMOOTH, np.abs(lean), 0)
    numbers = index.astype(np.uint16) * np.uint16(OFFSETS) + offsets.astype(np.uint16)
    order = np.argsort(numbers, kind="stable")
    counts = np.bincount(numbers)
    ends = np.cumsum(counts)
    for number in np.flatnonzero(counts).tolist():
        table, bits = coarsened(np.array([number // OFFSETS], np.uint8))
        yield int(table[0]), number % OFFSETS, int(bits[0]), order[ends[number] - counts[number] : ends[number]]
