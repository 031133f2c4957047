"""Numbers of one grid as the bytes of one section: a range coder that changes models by table, not by number.

A call of the coder with one model for many numbers is five times as fast as one with a model for each. So the numbers
of a pass go in the order of their tables (`tables`), and among those of one table in the order of the grid.

The coder keeps an interval of 64 bits behind the words that it has put out. A section ends with the fewest bytes whose
continuation by zeros lies in it, where whole words would waste 3 bytes on the average; words are written with the
highest byte first for that. Zeros behind a section say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.tables import LOW, OFFSETS, TABLES, table_model
from tilestream.errors import DamagedError

_WORD_BYTES, _STATE_BYTES = 4, 8


class SectionWriter:
    """Numbers as they are added, as bytes."""

    def __init__(self) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()

    def add(self, symbols: npt.NDArray[np.int32], tables: npt.NDArray[np.uint16]) -> None:
        """Add numbers of a pass.

        Parameters
        ----------
        symbols : ndarray of int32
            `(n,)`, −128 to 127.
        tables : ndarray of uint16
            `(n,)`, 0 to 1,023: the model of each.
        """
        order = np.argsort(tables, kind="stable")
        sorted_symbols = symbols[order] - np.int32(LOW)
        for table, first, last in _runs(tables):
            self._coder.encode(sorted_symbols[first:last], table_model(table))

    def to_bytes(self) -> bytes:
        """Return all that was added."""
        done, (low, span) = self._coder.pos()
        size: int = _WORD_BYTES * done + _STATE_BYTES
        written: bytes = self._coder.get_compressed().astype(">u4").tobytes()[:size]
        point = int.from_bytes(written.ljust(size, b"\0"), "big")
        # what is written lies in the interval, of which only the last 64 bits are known: a carry may have run further
        start: int = point - ((point - low) & (1 << 8 * _STATE_BYTES) - 1)
        for free_bits in range(8 * _STATE_BYTES, -1, -8):
            shortest = -(-start >> free_bits) << free_bits
            if shortest < start + span:
                break
        return shortest.to_bytes(size, "big").rstrip(b"\0")


class SectionReader:
    """What a `SectionWriter` wrote, pass by pass.

    Parameters
    ----------
    data : bytes
        The section.
    """

    def __init__(self, data: bytes) -> None:
        import constriction

        words = np.frombuffer(data + bytes(-len(data) % _WORD_BYTES), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def take(self, tables: npt.NDArray[np.uint16]) -> npt.NDArray[np.int32]:
        """Return the numbers of the pass that comes next.

        Parameters
        ----------
        tables : ndarray of uint16
            `(n,)`, 0 to 1,023: the model of each.

        Returns
        -------
        ndarray of int32
            `(n,)`, −128 to 127.

        Raises
        ------
        DamagedError
            When no encoder writes such bits.
        """
        order = np.argsort(tables, kind="stable")
        sorted_symbols = np.empty(len(tables), np.int32)
        for table, first, last in _runs(tables):
            sorted_symbols[first:last] = self._decoded(table_model(table), last - first)
        symbols = np.empty(len(tables), np.int32)
        symbols[order] = sorted_symbols + np.int32(LOW)
        return symbols

    def _decoded(self, model: Any, count: int) -> Any:
        try:
            return self._coder.decode(model, count)
        except (AssertionError, ValueError) as error:  # what the coder raises of words that no encoder writes
            raise DamagedError(f"grid of a pyramid: no numbers in this order of bits ({error})") from error


def table_numbers(mu: npt.NDArray[np.int16], scale: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Return the numbers of the models for middles in 16ths and indices of scales, `(n,)` each."""
    found: npt.NDArray[np.uint16] = scale.astype(np.uint16) * np.uint16(OFFSETS) + (mu & OFFSETS - 1).astype(np.uint16)
    return found


def _runs(tables: npt.NDArray[np.uint16]) -> Iterator[tuple[int, int, int]]:
    """Yield each table that occurs, and where its numbers begin and end once they are in order."""
    counts = np.bincount(tables, minlength=TABLES)
    used = np.flatnonzero(counts)
    ends = np.cumsum(counts[used])
    yield from zip(used.tolist(), (ends - counts[used]).tolist(), ends.tolist(), strict=True)
