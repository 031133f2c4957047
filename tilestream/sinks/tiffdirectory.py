"""TIFF directories as bytes: tags, tile positions, children; classic or BigTIFF, little-endian.

Written for this project since a pyramid made in one pass has tiles of all levels in turn, and a cloud-optimised GeoTIFF
has its directories before any tile; `tifffile.TiffWriter` writes level after level and directories after their tiles.

References
----------
TIFF 6.0, Adobe 1992, section 2; BigTIFF, https://www.awaresystems.be/imaging/tiff/bigtiff.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 12, 16
_SIZES = {BYTE: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, DOUBLE: 8, LONG8: 8}
_OFFSETS, _COUNTS, _CHILDREN = 324, 325, 330
CLASSIC_BYTES = 1 << 32
"""A file of this size or more needs BigTIFF."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """The values of one tag."""

    kind: int
    """Type number of the format."""
    data: bytes
    """Values as stored."""

    @property
    def count(self) -> int:
        """Return the number of values."""
        return len(self.data) // _SIZES[self.kind]


def short(*numbers: int) -> Value:
    """Return whole numbers of 16 bits."""
    return Value(kind=SHORT, data=np.array(numbers, "<u2").tobytes())


def long(*numbers: int) -> Value:
    """Return whole numbers of 32 bits."""
    return Value(kind=LONG, data=np.array(numbers, "<u4").tobytes())


def double(numbers: Iterable[float]) -> Value:
    """Return floats of 64 bits."""
    return Value(kind=DOUBLE, data=np.array(list(numbers), "<f8").tobytes())


def rational(number: float) -> Value:
    """Return the fraction of 32-bit numbers that is nearest to a number above 0 and below 2^32."""
    near = Fraction(number).limit_denominator(max(1, min((1 << 32) - 1, int(((1 << 32) - 1) / max(number, 1)))))
    return Value(kind=RATIONAL, data=np.array([near.numerator, near.denominator], "<u4").tobytes())


def text(words: str) -> Value:
    """Return a text, in UTF-8 with its closing zero."""
    return Value(kind=ASCII, data=words.encode() + b"\0")


def undefined(data: bytes) -> Value:
    """Return bytes that only their tag gives a meaning."""
    return Value(kind=UNDEFINED, data=data)


@dataclass(frozen=True, kw_only=True, eq=False)
class Directory:
    """One stored image: its tags and where its tiles lie."""

    tags: Mapping[int, Value]
    """Values by code, those of tile positions left out."""
    offsets: npt.NDArray[np.uint64]
    """Position of each tile, row by row; 0 where none is stored."""
    counts: npt.NDArray[np.uint32]
    """Bytes of each tile; 0 where none is stored."""
    children: Sequence[Directory] = field(default=())
    """Directories reached through tag 330 (SubIFDs) instead of the chain."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What differs between classic TIFF and BigTIFF."""

    is_big: bool

    @property
    def word(self) -> int:
        return 8 if self.is_big else 4

    def pack(self, number: int) -> bytes:
        return struct.pack("<Q" if self.is_big else "<I", number)

    def positions(self, numbers: npt.NDArray[np.uint64]) -> Value:
        return Value(
            kind=LONG8 if self.is_big else LONG, data=numbers.astype("<u8" if self.is_big else "<u4").tobytes()
        )

    def table_bytes(self, entries: int) -> int:
        return 8 + 20 * entries + 8 if self.is_big else 2 + 12 * entries + 4

    def entry(self, code: int, value: Value, place: bytes) -> bytes:
        head = struct.pack("<HHQ" if self.is_big else "<HHI", code, value.kind, value.count)
        return head + place.ljust(self.word, b"\0")


def header(first: int, *, is_big: bool) -> bytes:
    """Return the first bytes of a file.

    Parameters
    ----------
    first : int
        Position of the first directory.
    is_big : bool
        BigTIFF.

    Returns
    -------
    bytes
        8, or 16 of BigTIFF.
    """
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if is_big else struct.pack("<2sHI", b"II", 42, first)


def encode_directories(chain: Sequence[Directory], *, at: int, is_big: bool) -> bytes:
    """Return directories, their values, and last of all their tile positions, as they follow one another in a file.

    Parameters
    ----------
    chain : sequence of Directory
        The main chain; children come right behind their parent.
    at : int
        Position in the file where the bytes will lie; even.
    is_big : bool
        BigTIFF.

    Returns
    -------
    bytes
        Their number depends on the tags and on how many tiles there are, not on where those lie.
    """
    form = _Form(is_big=is_big)
    flat = [each for parent in chain for each in (parent, *parent.children)]
    starts, late_at = {}, at
    for each in flat:
        starts[id(each)] = late_at
        late_at += sum(_sizes(each, form))
    following = {id(a): starts[id(b)] for a, b in pairwise(chain)}
    early, late = [], bytearray()
    for each in flat:
        place = _Place(at=starts[id(each)], late_at=late_at + len(late), next=following.get(id(each), 0))
        near, far = _encode(each, [starts[id(child)] for child in each.children], place, form)
        early.append(near)
        late += far
    return b"".join(early) + bytes(late)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where the parts of one directory go."""

    at: int
    late_at: int
    next: int


def _values(directory: Directory, children: Sequence[int], form: _Form) -> dict[int, Value]:
    values = {
        **directory.tags,
        _OFFSETS: form.positions(directory.offsets),
        _COUNTS: Value(kind=LONG, data=directory.counts.astype("<u4").tobytes()),
    }
    if directory.children:
        values[_CHILDREN] = form.positions(np.array(children, np.uint64))
    return dict(sorted(values.items()))


def _sizes(directory: Directory, form: _Form) -> tuple[int, int]:
    """Return the bytes of the table of a directory and of the values right behind it."""
    values = _values(directory, [0] * len(directory.children), form)
    near = sum(_even(len(v.data)) for code, v in values.items() if len(v.data) > form.word and not _is_late(code))
    return _even(form.table_bytes(len(values))), near


def _encode(directory: Directory, children: Sequence[int], place: _Place, form: _Form) -> tuple[bytes, bytes]:
    """Return a directory with its values, and its tile positions."""
    values = _values(directory, children, form)
    table = bytearray(struct.pack("<Q" if form.is_big else "<H", len(values)))
    near_at, near, far = place.at + _even(form.table_bytes(len(values))), bytearray(), bytearray()
    for code, value in values.items():
        if len(value.data) <= form.word:
            table += form.entry(code, value, value.data)
            continue
        target, start = (far, place.late_at) if _is_late(code) else (near, near_at)
        table += form.entry(code, value, form.pack(start + len(target)))
        target += value.data.ljust(_even(len(value.data)), b"\0")
    table += form.pack(place.next)
    return bytes(table).ljust(_even(len(table)), b"\0") + bytes(near), bytes(far)


def _is_late(code: int) -> bool:
    return code in (_OFFSETS, _COUNTS)


def _even(nbytes: Any) -> int:
    return int(nbytes) + int(nbytes) % 2
