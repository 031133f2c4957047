"""Parameters as whole numbers times a scale a group: levels of a table, rows of a matrix.

    code = clip(round(v / s), −m, m),  m = 2^(bits−1) − 1,  v' = code · s

s of a group is that of least squared error among scales that clip between none and 70 % of its range, found by two
passes of a search, and has the 8 bits of mantissa of bfloat16, so that a file holds it in 2 bytes. Rounding is half to
even. Products are float32: they are the same on every machine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.entropy import CodeReader, CodeWriter, require_starts
from tilestream.codecs.latticecodes import read_lattice_if_shorter, write_lattice_if_shorter
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array

MIN_BITS, MAX_BITS = 2, 16
_LEAST_CLIP = 0.3
_TRIED = 16
_LOOKED_AT = 1 << 17
"""Values of a group, evenly spread, that its scale is judged by."""
_MOST_VALUE = 1e6
"""Parameters that are larger come of a fit that has failed, or of no fit."""
_MOST_SCALE = 2 * _MOST_VALUE
_BITS = struct.Struct("B")
Lattice = tuple[int, int] | None
"""Rows and columns of the first codes of a group; None where they lie in no order."""


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """Whole numbers with a scale a group."""

    codes: npt.NDArray[np.int16]
    """`(n,)`, within ±(2^(bits−1) − 1)."""
    scales: npt.NDArray[np.float32]
    """`(groups,)`, positive, of 8 bits of mantissa."""
    starts: tuple[int, ...]
    """First index of each group; the last one ends with the codes."""
    bits: int
    """Of a code, 2 to 16."""

    def values(self) -> npt.NDArray[np.float32]:
        """Return `(n,)` of code times scale."""
        counts = np.diff([*self.starts, len(self.codes)])
        return self.codes.astype(np.float32) * np.repeat(self.scales, counts)

    def to_bytes(self, lattices: Sequence[Lattice] | None = None) -> bytes:
        """Return bits, scales and entropy-coded codes; whoever reads them must know how many there are of each.

        Parameters
        ----------
        lattices : sequence of (tuple of int or None), optional
            Of each group: rows and columns where its first codes are a lattice whose neighbours are alike.

        Returns
        -------
        bytes
            For `from_bytes`.
        """
        writer = CodeWriter()
        ends = [*self.starts[1:], len(self.codes)]
        plain: list[npt.NDArray[np.int16]] = []
        for first, last, lattice in zip(self.starts, ends, lattices or [None] * len(ends), strict=True):
            size = 0 if lattice is None else lattice[0] * lattice[1]
            if lattice is not None:
                write_lattice_if_shorter(writer, self.codes[first : first + size].reshape(lattice))
            plain.append(self.codes[first + size : last])
        writer.add(np.concatenate(plain), _starts_of([len(part) for part in plain]))
        return _BITS.pack(self.bits) + _to_bfloat16(self.scales) + writer.to_bytes()

    @classmethod
    def from_bytes(
        cls, data: bytes, *, starts: Sequence[int], count: int, lattices: Sequence[Lattice] | None = None
    ) -> Quantised:
        """Return what `to_bytes` wrote.

        Parameters
        ----------
        data : bytes
            Its result, whole.
        starts : sequence of int
            First index of each group.
        count : int
            How many codes.
        lattices : sequence of (tuple of int or None), optional
            As when they were written.

        Returns
        -------
        Quantised
            Equal to what was written.

        Raises
        ------
        DamagedError
            When the bytes cannot hold so many codes, a scale is out of range, or a code has too many bits.
        """
        first = _BITS.size + 2 * len(starts)
        if len(data) < first or not MIN_BITS <= data[0] <= MAX_BITS:
            raise DamagedError(f"{len(data):,} bytes of quantised numbers: too few, or not of 2 to 16 bits")
        scales = _from_bfloat16(data[_BITS.size : first])
        if not ((scales > 0).all() and (scales <= _MOST_SCALE).all()):  # NaN is neither
            raise DamagedError(f"quantised numbers: a scale is not within 0 to {_MOST_SCALE:g}")
        reader, most = CodeReader(data[first:]), largest_code(data[0])
        reader.reserve(count)
        codes, ends = np.empty(count, np.int16), [*starts[1:], count]
        sizes = []
        for begin, end, lattice in zip(starts, ends, lattices or [None] * len(ends), strict=True):
            size = 0 if lattice is None else lattice[0] * lattice[1]
            if lattice is not None:
                codes[begin : begin + size] = read_lattice_if_shorter(reader, lattice, most=most).reshape(-1)
            sizes.append((begin + size, end))
        plain = _starts_of([end - begin for begin, end in sizes])
        rest = reader.take(plain, count=sum(end - begin for begin, end in sizes), most=most)
        for (begin, end), at in zip(sizes, plain, strict=True):
            codes[begin:end] = rest[at : at + end - begin]
        return cls(codes=codes, scales=scales, starts=tuple(starts), bits=data[0])


def _starts_of(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return where each of some runs begins."""
    return tuple(int(end) - size for end, size in zip(np.cumsum(sizes), sizes, strict=True))


def largest_code(bits: int) -> int:
    """Return m = 2^(bits−1) − 1."""
    return (1 << bits - 1) - 1


def quantise(
    values: npt.NDArray[np.float32],
    starts: Sequence[int] = (0,),
    bits: int = 8,
    *,
    scales: npt.NDArray[np.float32] | None = None,
) -> Quantised:
    """Return numbers as whole numbers times scales.

    Parameters
    ----------
    values : ndarray of float32
        `(n,)`, finite.
    starts : sequence of int
        First index of each group, ascending from 0; groups may be empty.
    bits : int
        Of a code, sign included: 2 to 16.
    scales : ndarray of float32, optional
        `(groups,)`: those of a training that knew of them; they are rounded to bfloat16. Searched when left out.

    Returns
    -------
    Quantised
        Codes and scales; a group of zeros has scale 1.

    Raises
    ------
    ConfigError
        When bits, starts or scales are none, or a value is not finite.
    """
    starts = require_starts(starts, count=len(values))
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError.of(
            "`bits` of a quantised field", got=bits, expected=f"{MIN_BITS} to {MAX_BITS}", do="Choose another."
        )
    if not (np.abs(values) <= _MOST_VALUE).all():  # NaN is no number of at most anything
        raise ConfigError.of(
            "`values` to be quantised",
            got="NaN, or one too large",
            expected=f"numbers within ±{_MOST_VALUE:g}",
            do="Fit again, with a smaller learning rate or from the start.",
        )
    most = largest_code(bits)
    ends = [*starts[1:], len(values)]
    if scales is None:
        scales = best_scales(values, starts, bits)
    elif scales.shape != (len(starts),) or not ((scales > 0).all() and (scales <= _MOST_SCALE).all()):
        raise ConfigError.of(
            "`scales` of a quantised field",
            got=f"{scales.shape}, or one that is out of range",
            expected=f"{len(starts)} numbers within 0 to {_MOST_SCALE:g}",
            do="Give one a group, or none to have them searched.",
        )
    scales = _from_bfloat16(_to_bfloat16(scales))
    codes = np.empty(len(values), np.int16)
    for first, last, scale in zip(starts, ends, scales, strict=True):
        codes[first:last] = _codes(values[first:last], scale, most)
    return Quantised(codes=codes, scales=scales, starts=starts, bits=bits)


def best_scales(values: npt.NDArray[np.float32], starts: Sequence[int], bits: int) -> npt.NDArray[np.float32]:
    """Return the scale of least squared error of each group, of 8 bits of mantissa.

    Parameters
    ----------
    values : ndarray of float32
        `(n,)`, finite.
    starts : sequence of int
        First index of each group.
    bits : int
        Of a code.

    Returns
    -------
    ndarray of float32
        `(groups,)`; 1 where all is zero.
    """
    most, ends = largest_code(bits), [*starts[1:], len(values)]
    groups = [values[first:last] for first, last in zip(starts, ends, strict=True)]
    return np.array([_best_scale(group, most) for group in groups], np.float32)


def _codes(values: Array, scale: np.float32, most: int) -> Array:
    found: Array = np.clip(np.rint(values / scale), -most, most)
    return found


def _best_scale(values: npt.NDArray[np.float32], most: int) -> float:
    """Return the scale of least squared error of one group."""
    peak = float(np.abs(values).max()) if values.size else 0.0
    if peak <= 2.0**-100:  # what is no number to float32 once it is divided
        return 1.0
    sample = values[:: 1 + len(values) // _LOOKED_AT].astype(np.float64)
    low, high = _LEAST_CLIP * peak / most, peak / most * (1 + 2.0**-7)  # rounded to 8 bits it still clips nothing
    for _ in range(2):
        tried = _from_bfloat16(_to_bfloat16(np.linspace(low, high, _TRIED).astype(np.float32)))
        errors = [float(np.square(_codes(sample, scale, most) * float(scale) - sample).sum()) for scale in tried]
        best = len(errors) - 1 - int(np.argmin(errors[::-1]))  # the widest of equals
        step = (high - low) / (_TRIED - 1)
        low, high = max(low, float(tried[best]) - step), min(high, float(tried[best]) + step)
    return float(tried[best])


def _to_bfloat16(values: npt.NDArray[np.float32]) -> bytes:
    """Return the upper halves of float32, nearest."""
    words = np.ascontiguousarray(values, "<f4").view("<u4")
    return ((words + np.uint32(0x8000)) >> np.uint32(16)).astype("<u2").tobytes()


def _from_bfloat16(data: bytes) -> npt.NDArray[np.float32]:
    words: Array = np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)
    return words.view(np.float32)
