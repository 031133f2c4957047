"""The directories of a TIFF file, read by ranges and checked against the file's size before anything is allocated.

Written for this project instead of taken from a library so that offset tables go from disk to NumPy without a Python
object for each tile, and so that no number in a hostile header is believed before it is compared with the file.

References
----------
TIFF 6.0, Adobe 1992, section 2; BigTIFF, https://www.awaresystems.be/imaging/tiff/bigtiff.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File

PAGE_BYTES = 1 << 16
"""Headers are read in aligned pieces of this size, so that a remote file costs few requests."""
MAX_IFDS = 1 << 17
"""Directories in one file; the longest real chains are time series of some 10,000 planes."""
MAX_CHILDREN = 64
"""Directories below one; a pyramid that halves needs 31 at most."""
HEADER_PIECES = 256
"""Pieces kept while a file is parsed: directories can lie behind each plane of a long series."""
MAX_TEXT_BYTES = 1 << 26
"""Longest text that is read: OME-XML of large plates reaches tens of MB."""

_TYPES = {
    1: "u1", 2: "S1", 3: "u2", 4: "u4", 5: "u4", 6: "i1", 7: "u1", 8: "i2", 9: "i4", 10: "i4", 11: "f4", 12: "f8",
    13: "u4", 16: "u8", 17: "i8", 18: "u8",
}  # fmt: skip
_RATIONAL = (5, 10)


def refuse(file: File, *, got: object, expected: str, do: str = "Check that the file was copied whole.") -> SourceError:
    """Return the error for a file that cannot be opened as TIFF."""
    return SourceError.of(f"`{file.url}`", got=got, expected=expected, do=do)


@dataclass(frozen=True, kw_only=True)
class HeaderBytes:
    """Reads small ranges of one file through a store of aligned pieces; lives only while a file is parsed."""

    file: File
    """The file."""
    pieces: dict[int, bytes] = field(default_factory=dict)
    """Pieces read last, by number."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """Return `nbytes` bytes from `offset`; raise `SourceError` when they lie outside the file."""
        if offset < 0 or offset + nbytes > self.file.size:
            raise refuse(
                self.file,
                got=f"a header that points at bytes {offset}..{offset + nbytes} of {self.file.size}",
                expected="positions inside the file",
            )
        try:
            if nbytes > PAGE_BYTES:
                return self.file.read(offset, nbytes)
            first, last = offset // PAGE_BYTES, (offset + max(nbytes, 1) - 1) // PAGE_BYTES
            data = b"".join(self._piece(number) for number in range(first, last + 1))
        except DamagedError as error:  # the file became shorter while it was read
            raise refuse(self.file, got=str(error), expected="a file of constant size") from error
        start = offset - first * PAGE_BYTES
        return data[start : start + nbytes]

    def _piece(self, number: int) -> bytes:
        if number not in self.pieces:
            start = number * PAGE_BYTES
            while len(self.pieces) >= HEADER_PIECES:
                self.pieces.pop(next(iter(self.pieces)), None)
            piece = self.pieces[number] = self.file.read(start, min(PAGE_BYTES, self.file.size - start))
            return piece
        return self.pieces[number]


@dataclass(frozen=True, kw_only=True)
class Tag:
    """Where the values of one tag lie."""

    kind: int
    """Type number of the format."""
    count: int
    """Number of values."""
    offset: int
    """Position of the first value in the file."""


@dataclass(frozen=True, kw_only=True)
class Ifd:
    """One directory: the tags of one stored image."""

    header: HeaderBytes
    """Where values are read from."""
    order: str
    """Byte order, `<` or `>`."""
    tags: Mapping[int, Tag]
    """Tags by code; of a repeated tag the first counts."""
    offset: int
    """Position in the file."""

    def __contains__(self, code: int) -> bool:
        return code in self.tags

    def array(self, code: int, *, limit: int = 1 << 16) -> npt.NDArray[Any]:
        """Return the values of a tag, `(count,)`, rationals `(count, 2)`; empty when the tag is absent.

        Parameters
        ----------
        code : int
            Tag.
        limit : int
            Most values that make sense; more is refused before they are read.

        Returns
        -------
        numpy.ndarray
            Values in the file's byte order.

        Raises
        ------
        SourceError
            When the values lie outside the file or are more than `limit`.
        """
        tag = self.tags.get(code)
        if tag is None:
            return np.empty(0, "u8")
        width = 2 if tag.kind in _RATIONAL else 1
        dtype = np.dtype(self.order + _TYPES[tag.kind])
        if tag.count > limit:
            raise refuse(
                self.header.file, got=f"tag {code} with {tag.count} values", expected=f"at most {limit} of them"
            )
        values = np.frombuffer(self.header.read(tag.offset, tag.count * width * dtype.itemsize), dtype)
        return values.reshape(-1, 2) if width == 2 else values

    def ints(self, code: int) -> tuple[int, ...]:
        """Return the values of a tag as integers, empty when absent; raise `SourceError` for another type."""
        values = self.array(code)
        if values.size and (values.dtype.kind not in "ui" or values.ndim > 1):
            raise refuse(self.header.file, got=f"tag {code} of type {values.dtype}", expected="whole numbers")
        return tuple(int(value) for value in values)

    def one(self, code: int, default: int) -> int:
        """Return the first value of a tag as an integer, or `default` when it is absent or empty."""
        values = self.ints(code)
        return values[0] if values else default

    def floats(self, code: int) -> tuple[float, ...]:
        """Return the values of a tag as floats, rationals divided (0 for a denominator of 0)."""
        values = self.array(code)
        if values.ndim == 2:
            return tuple(float(n) / float(d) if d else 0.0 for n, d in values)
        return tuple(float(value) for value in values) if values.dtype.kind in "uif" else ()

    def data(self, code: int) -> bytes:
        """Return the bytes of a tag, empty when absent."""
        return self.array(code, limit=MAX_TEXT_BYTES).tobytes()

    def text(self, code: int) -> str:
        """Return the text of a tag up to its NUL, empty when absent; not UTF-8 is read as Latin-1."""
        data = self.data(code).split(b"\0")[0]
        try:
            return data.decode("utf-8").strip()
        except UnicodeDecodeError:
            return data.decode("latin-1").strip()

    def children(self) -> list[Ifd]:
        """Return the directories that tag SubIFDs points at; raise `SourceError` when they repeat or are too many."""
        offsets = self.ints(330)
        if len(offsets) > MAX_CHILDREN or len(set(offsets)) < len(offsets):
            raise refuse(
                self.header.file,
                got=f"{len(offsets)} SubIFDs at {len(set(offsets))} places",
                expected=f"at most {MAX_CHILDREN}, none twice",
            )
        return [_parse(self.header, offset, self.order, self._is_big)[0] for offset in offsets]

    @property
    def _is_big(self) -> bool:
        return self.header.read(2, 2) in (b"\x2b\x00", b"\x00\x2b")


def iter_ifds(file: File) -> Iterator[Ifd]:
    """Yield the directories of the main chain of a TIFF or BigTIFF file.

    Parameters
    ----------
    file : File
        The file.

    Yields
    ------
    Ifd
        One directory after the other.

    Raises
    ------
    SourceError
        When the file is no TIFF, or a directory lies outside it, repeats or is empty.
    """
    header = HeaderBytes(file=file)
    order, is_big, offset = _start(header)
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= MAX_IFDS:
            raise refuse(file, got="a chain of directories that returns to itself", expected="one that ends")
        seen.add(offset)
        ifd, offset = _parse(header, offset, order, is_big)
        yield ifd
    if not seen:
        raise refuse(file, got="a TIFF header without any directory", expected="at least one image")


def _start(header: HeaderBytes) -> tuple[str, bool, int]:
    file = header.file
    if file.size < 8:
        raise refuse(file, got=f"a file of {file.size} bytes", expected="a TIFF header of 8 bytes or more")
    magic = header.read(0, 8)
    order = {b"II": "<", b"MM": ">"}.get(magic[:2])
    version = int.from_bytes(magic[2:4], "little" if order == "<" else "big")
    if order is None or version not in (42, 43):
        raise refuse(
            file,
            got=f"a file that starts with {magic[:4]!r}",
            expected="a TIFF header (II or MM, then 42 or 43)",
            do="Check that it is an image of the kind its name says.",
        )
    kind = "little" if order == "<" else "big"
    if version == 42:
        return order, False, int.from_bytes(magic[4:8], kind)  # type: ignore[arg-type]
    return order, True, int.from_bytes(header.read(8, 8), kind)  # type: ignore[arg-type]


def _parse(header: HeaderBytes, offset: int, order: str, is_big: bool) -> tuple[Ifd, int]:
    count_bytes, next_bytes = (8, 8) if is_big else (2, 4)
    size, inline = ("u8", 8) if is_big else ("u4", 4)
    fields = [("code", "u2"), ("kind", "u2"), ("count", size), ("value", size)]
    entry = np.dtype([(name, order + kind) for name, kind in fields])
    count = int(np.frombuffer(header.read(offset, count_bytes), f"{order}u{count_bytes}")[0])
    if not 0 < count <= 4096:  # real directories have some dozens
        raise refuse(header.file, got=f"a directory of {count} tags at byte {offset}", expected="1 to 4,096 tags")
    start = offset + count_bytes
    block = header.read(start, count * entry.itemsize + next_bytes)
    entries = np.frombuffer(block, entry, count)
    tags: dict[int, Tag] = {}
    for index, (code, kind, values, where) in enumerate(entries.tolist()):
        if kind not in _TYPES or code in tags:  # the standard says to skip types that are not known
            continue
        nbytes = values * np.dtype(_TYPES[kind]).itemsize * (2 if kind in _RATIONAL else 1)
        place = start + (index + 1) * entry.itemsize - inline if nbytes <= inline else where
        tags[code] = Tag(kind=kind, count=values, offset=place)
    following = int(np.frombuffer(block[-next_bytes:], f"{order}u{next_bytes}")[0])
    return Ifd(header=header, order=order, tags=tags, offset=offset), following
