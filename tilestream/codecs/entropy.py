"""Whole numbers as few bytes: a range coder with a static model a group, whichever costs the fewest bytes.

A group is what shares a model, such as a level of a table; neighbours are joined where one model is cheaper than two.
Models are written before the codes, for each run of groups: its form, parameters, and how many groups it spans.

    constant   one value, no bits a code
    shape      weight ∝ r^|k| · q^(|k|(|k|−1)/2) around a centre: geometric at q = 1, Gaussian at r = √q, or between
    counts     a weight for each value, as one byte of 3 bits of mantissa and 5 of exponent
    signed     weight ∝ r^|k| of both signs, with a byte for r: of few codes a shape takes more than it saves

All tables are made of whole numbers by whole-number arithmetic (`codemodels`), and sum to what the coder's 24-bit
probabilities leave, so that no float is rounded on the way: what one machine writes every other reads. With a value's
cumulated weights c_k = Σ_{j<k} (w_j + 1), and words of 32 bits, little-endian in the file, the decoder is

    low, span, point = 0, 2^64 − 1, the first two words
    value k with  c_k ≤ (point − low) / (span >> 24) < c_{k+1}
    low += (span >> 24) · c_k,  span = (span >> 24) · (c_{k+1} − c_k);   below 2^32 all three shift by the next word

A code costs a reader memory though it may cost a file nothing. So a file of n bytes may hold no more than
2^20 + 512·n codes; where good luck would break that, zeros are appended.

Source: Martin, "Range encoding", 1979; the coder is that of `constriction` (Bamler, arXiv:2201.01741).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import LARGEST_CODE, CodeModel, Histogram, Reading, best_model, write_whole
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

FREE_CODES = 1 << 20
CODES_A_BYTE = 512
"""Of those beyond `FREE_CODES`."""


class CodeWriter:
    """Codes as they are added, with parameters between them, as bytes: how many, the parameters, the coder's words."""

    def __init__(self) -> None:
        import constriction

        self._front = bytearray()
        self._coder = constriction.stream.queue.RangeEncoder()
        self._count = 0

    def whole(self, value: int) -> None:
        """Add a whole number of 0 to 2^35 − 1 that is no code, such as a threshold."""
        write_whole(self._front, value)

    def add(self, codes: Array, starts: Sequence[int] = (0,)) -> None:
        """Add codes; parameters and errors as of `encode_codes`."""
        starts = require_starts(starts, count=len(codes))
        largest = max(int(codes.max()), -int(codes.min())) if codes.size and codes.dtype.kind in "iu" else 0
        if codes.ndim != 1 or codes.dtype.kind not in "iu" or largest > LARGEST_CODE:
            raise ConfigError.of(
                "`codes`",
                got=f"{codes.shape} {codes.dtype}, as large as {largest:,}",
                expected=f"whole numbers (n,) within ±{LARGEST_CODE:,}",
                do="Quantise them to 16 bits or less.",
            )
        self._count += len(codes)
        ends = [*starts[1:], len(codes)]
        for groups, model in _runs([codes[first:last] for first, last in zip(starts, ends, strict=True)]):
            self._front += model.to_bytes()
            write_whole(self._front, groups.stop - groups.start)
            part = codes[starts[groups.start] : ends[groups.stop - 1]]
            if part.size and model.size > 1:
                self._coder.encode((part.astype(np.int32) - model.low), model.for_coder())

    def to_bytes(self) -> bytes:
        """Return all that was added."""
        found = bytearray()
        write_whole(found, len(self._front))
        found += self._front + self._coder.get_compressed().astype("<u4").tobytes()
        needed = -(-max(0, self._count - FREE_CODES) // CODES_A_BYTE)
        return bytes(found) + bytes(max(0, needed - len(found)))


class CodeReader:
    """What a `CodeWriter` wrote, in the same order.

    Parameters
    ----------
    data : bytes
        All of it.
    """

    def __init__(self, data: bytes) -> None:
        import constriction

        whole = Reading(data)
        self._front = Reading(whole.take(whole.whole(least=0, most=len(data))))
        words = whole.rest()
        words += bytes(-len(words) % 4)
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))
        self._left = FREE_CODES + CODES_A_BYTE * len(data)

    def whole(self, *, least: int, most: int) -> int:
        """Return the whole number that comes next; raise `DamagedError` where it is out of range."""
        return self._front.whole(least=least, most=most)

    def reserve(self, count: int) -> None:
        """Raise `DamagedError` unless the bytes can hold so many codes more."""
        if count > self._left:
            raise DamagedError(f"entropy-coded numbers: {count:,} of them cannot be in so few bytes")

    def take(
        self, starts: Sequence[int] = (0,), *, count: int, most: int = LARGEST_CODE
    ) -> npt.NDArray[np.int16]:  # fmt: skip
        """Return the codes that come next; parameters and errors as of `decode_codes`."""
        self.reserve(count)
        self._left -= count
        starts = require_starts(starts, count=count)
        codes = np.empty(count, np.int16)
        ends = [*starts[1:], count]
        groups = first = 0
        while groups < len(starts):
            model = CodeModel.read(self._front, most=most)
            groups += self._front.whole(least=1, most=len(starts) - groups)
            last = ends[groups - 1]
            codes[first:last] = self._decoded(model, last - first)
            first = last
        return codes

    def _decoded(self, model: CodeModel, count: int) -> Any:
        if model.size == 1 or not count:
            return model.low
        try:
            return self._coder.decode(model.for_coder(), count) + np.int32(model.low)
        except (AssertionError, ValueError) as error:  # what the coder raises of words that no encoder writes
            raise DamagedError(f"entropy-coded numbers: no codes in this order of bits ({error})") from error


def encode_codes(codes: Array, starts: Sequence[int] = (0,)) -> bytes:
    """Return whole numbers as bytes.

    Parameters
    ----------
    codes : ndarray of integers
        `(n,)`, within ±32,767.
    starts : sequence of int
        First index of each group, ascending from 0; groups may be empty.

    Returns
    -------
    bytes
        Models and codes; how many groups and codes there are must be known from elsewhere.

    Raises
    ------
    ConfigError
        When codes or starts are none.
    """
    writer = CodeWriter()
    writer.add(codes, starts)
    return writer.to_bytes()


def decode_codes(
    data: bytes, starts: Sequence[int] = (0,), *, count: int, most: int = LARGEST_CODE
) -> npt.NDArray[np.int16]:
    """Return the whole numbers that bytes hold.

    Parameters
    ----------
    data : bytes
        Result of `encode_codes`.
    starts : sequence of int
        First index of each group, as when they were written.
    count : int
        How many codes.
    most : int
        Largest magnitude of a code that the caller takes.

    Returns
    -------
    ndarray of int16
        `(count,)`.

    Raises
    ------
    DamagedError
        When `data` is too short for `count`, models do not span the groups, or a code is larger than `most`.
    """
    return CodeReader(data).take(starts, count=count, most=most)


def require_starts(starts: Sequence[int], *, count: int) -> tuple[int, ...]:
    """Return first indices of groups as a tuple, once they are known to be such.

    Parameters
    ----------
    starts : sequence of int
        Ascending from 0 to at most `count`.
    count : int
        How many numbers there are.

    Returns
    -------
    tuple of int
        The same.

    Raises
    ------
    ConfigError
        When they are none.
    """
    found = tuple(int(start) for start in starts)
    if not found or found[0] != 0 or any(a > b for a, b in zip(found, (*found[1:], count), strict=True)):
        raise ConfigError.of(
            "`starts` of groups",
            got=f"{len(found)} of them for {count:,} numbers",
            expected="first indices, ascending from 0, none behind the last number",
            do="Give the first index of each group.",
        )
    return found


def _runs(groups: Sequence[Array]) -> list[tuple[range, CodeModel]]:
    """Return runs of groups with the model of each, neighbours joined where that is cheaper."""
    runs: list[tuple[range, CodeModel]] = []
    seen = Histogram.of(groups[0])
    for number, group in enumerate(groups):
        own = Histogram.of(group)
        model = best_model(own)
        if runs:
            before, shared = runs[-1]
            together = seen + own
            joined = best_model(together)
            if joined.cost_bits(together) <= shared.cost_bits(seen) + model.cost_bits(own):
                runs[-1], seen = (range(before.start, number + 1), joined), together
                continue
        runs.append((range(number, number + 1), model))
        seen = own
    return runs
