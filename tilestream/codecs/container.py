"""The container of everything that we encode by networks: one file or Zarr chunk, self-described and checked whole.

    8a 54 53, format         4 bytes; the format of this layout is 1
    [kind, version, header, lengths]      MessagePack; an empty header and lengths of no sections are left out
    sections                 one after another, of these lengths
    CRC-32C                  4 bytes, little-endian, of everything before

That is 14 bytes and the name of the kind around a file of one short section. Nothing in it is executed, and nothing is
allocated for a length before that is known to lie within the bytes at hand: a description has at most 64 KiB, and its
lists and maps at most 1,024 entries.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import msgpack

from tilestream.errors import ConfigError, DamagedError, SourceError

MAGIC = b"\x8aTS"
FORMAT = 1
MOST_DESCRIPTION_BYTES = 1 << 16
MOST_ENTRIES = 1024
"""Of each list and map of a description; what may be longer is a section."""
_CRC = struct.Struct("<I")
_FRONT_BYTES = len(MAGIC) + 1
_LARGEST_WHOLE = 2**53


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What a container holds."""

    kind: str
    """What it is, such as `hash`."""
    version: int
    """Of the kind; 1 or more."""
    header: Mapping[str, Any]
    """Numbers, texts, lists and maps by short names. What `whole` and its siblings return of it was checked."""
    sections: tuple[bytes, ...]
    """Payloads."""

    def whole(self, name: str, *, least: int, most: int, default: int | None = None) -> int:
        """Return a whole number of the header.

        Parameters
        ----------
        name : str
            Its name.
        least, most : int
            Its range, both ends included.
        default : int, optional
            What it is where it is left out; without one it must be there.

        Returns
        -------
        int
            The number.

        Raises
        ------
        DamagedError
            When it is missing, no whole number, or out of range.
        """
        value = self.header.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(name, value, f"a whole number of {least:,} to {most:,}")
        return value

    def number(self, name: str, *, least: float, most: float, default: float | None = None) -> float:
        """Return a finite number of the header; parameters, result and errors as of `whole`."""
        value = self.header.get(name, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self._wrong(name, value, f"a number of {least:g} to {most:g}")
        return float(value)

    def text(self, name: str, *, choices: Sequence[str], default: str | None = None) -> str:
        """Return a word of the header, one of `choices`; the rest as of `whole`."""
        value = self.header.get(name, default)
        if type(value) is not str or value not in choices:
            raise self._wrong(name, value, f"one of {', '.join(choices)}")
        return value

    def numbers(
        self,
        name: str,
        *,
        least: float = -math.inf,
        most: float = math.inf,
        count: int | None = None,
        default: Sequence[float] | None = None,
    ) -> tuple[float, ...]:
        """Return a list of finite numbers of the header.

        Parameters
        ----------
        name : str
            Its name.
        least, most : float
            Range of each, both ends included.
        count : int, optional
            How many there must be.
        default : sequence of float, optional
            What it is where it is left out; without one it must be there.

        Returns
        -------
        tuple of float
            Whole ones stay `int`.

        Raises
        ------
        DamagedError
            When it is missing, or anything in it is not such a number.
        """
        value = self.header.get(name, default)
        good = isinstance(value, list | tuple) and (count is None or len(value) == count)
        if not good or not all(
            type(one) in (int, float) and math.isfinite(one) and least <= one <= most for one in value
        ):
            much = "" if count is None else f"{count} "
            raise self._wrong(name, value, f"{much}numbers of {least:g} to {most:g}")
        return tuple(value)

    def section_bytes(self, count: int) -> tuple[bytes, ...]:
        """Return the payloads; raise `DamagedError` where they are not `count`."""
        if len(self.sections) != count:
            raise DamagedError(f"a container of kind `{self.kind}`: {len(self.sections)} sections, expected {count}")
        return self.sections

    def _wrong(self, name: str, value: object, expected: str) -> DamagedError:
        got = repr(value)
        got = got if len(got) <= 60 else f"{got[:60]}…"
        return DamagedError(f"a container of kind `{self.kind}`: `{name}` is {got}, expected {expected}")


def pack(kind: str, *, version: int, header: Mapping[str, Any] | None = None, sections: Sequence[bytes] = ()) -> bytes:
    """Return a container; equal content gives equal bytes.

    Parameters
    ----------
    kind : str
        What it is: 1 to 31 ASCII characters; a short one, since each file carries it.
    version : int
        Of the kind: 1 or more, one more whenever readers before cannot read what is written now.
    header : Mapping, optional
        What `msgpack` can express, names being short texts; NumPy's numbers must be made Python's.
    sections : sequence of bytes
        Payloads.

    Returns
    -------
    bytes
        The container.

    Raises
    ------
    ConfigError
        When the description does not fit.
    """
    header = dict(header or {})
    lengths = [len(section) for section in sections]
    description = [kind, version, header, lengths][: 4 if lengths else 3 if header else 2]
    text = msgpack.packb(description)
    wrong = _description_fault(description)
    if wrong or len(text) > MOST_DESCRIPTION_BYTES:
        raise ConfigError.of(
            f"a container of kind `{kind}`",
            got=wrong or f"{len(text):,} bytes of description",
            expected=f"short names and at most {MOST_DESCRIPTION_BYTES:,} bytes",
            do="Put what is long into a section.",
        )
    body = b"".join([MAGIC, bytes([FORMAT]), text, *sections])
    return body + _CRC.pack(google_crc32c.value(body))


def is_container(start: bytes) -> bool:
    """Return whether bytes begin like a container; 3 of them are enough."""
    return start[: len(MAGIC)] == MAGIC


def unpack(
    data: bytes | bytearray | memoryview, *, kinds: Mapping[str, int] | None = None, cut: bool = False
) -> Packed:
    """Return what a container holds, once all of it is known to be whole.

    Parameters
    ----------
    data : bytes
        The container, and nothing behind it.
    kinds : Mapping, optional
        Newest version that is understood of each kind; any when left out.
    cut : bool
        Also take the front of a container, of which the checksum, which stands at its end, says nothing.

    Returns
    -------
    Packed
        Kind, version, header and sections; of a cut container those that are there to their last byte.

    Raises
    ------
    DamagedError
        When bytes are missing, changed or too many, or lengths in them contradict each other.
    SourceError
        When it is whole, and of a format, kind or version that is not known here.
    """
    data = bytes(data)
    if not is_container(data):
        raise DamagedError(f"a container: it begins with {data[:3].hex(' ') or 'nothing'}, expected {MAGIC.hex(' ')}")
    body, is_whole = _body(data, cut=cut)
    if body[len(MAGIC)] != FORMAT:
        raise _unknown("a container", f"format {body[len(MAGIC)]}", f"format {FORMAT}")
    description, start = described(body)
    kind, version = description[0], description[1]
    header: dict[str, Any] = description[2] if len(description) > 2 else {}
    lengths: list[int] = description[3] if len(description) > 3 else []
    _require_lengths(kind, sum(lengths), there=len(body) - start, is_whole=is_whole)
    if kinds is not None:
        if kind not in kinds:
            raise _unknown("a container", f"kind `{kind}`", f"one of {', '.join(sorted(kinds))}")
        if version > kinds[kind]:
            raise _unknown(f"a container of kind `{kind}`", f"version {version}", f"at most {kinds[kind]}")
    ends = itertools.accumulate(lengths, initial=start)
    sections = tuple(body[first:last] for first, last in itertools.pairwise(ends) if last <= len(body))
    return Packed(kind=kind, version=version, header=header, sections=sections)


def _body(data: bytes, *, cut: bool) -> tuple[bytes, bool]:
    """Return what the checksum of a container is of, and whether it is; of a cut one all of it."""
    body = data[: -_CRC.size]
    if len(body) >= _FRONT_BYTES and _CRC.unpack(data[-_CRC.size :])[0] == google_crc32c.value(body):
        return body, True
    if not cut or len(data) < _FRONT_BYTES:
        raise _changed(len(data))
    return data, False


def _require_lengths(kind: str, total: int, *, there: int, is_whole: bool) -> None:
    if is_whole and total != there:
        raise DamagedError(f"a container of kind `{kind}`: sections of {total:,} bytes, where {there:,} are there")
    if not is_whole and total + _CRC.size <= there:  # not cut, so that the checksum was to be right
        raise _changed(there)


def _changed(size: int) -> DamagedError:
    return DamagedError(f"a container: the checksum of its {size:,} bytes is another than was written")


def described(body: bytes) -> tuple[list[Any], int]:
    """Return the description of a container, and where its sections begin; raise `DamagedError` where it has none."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=MOST_DESCRIPTION_BYTES, max_array_len=MOST_ENTRIES, max_map_len=MOST_ENTRIES
    )
    unpacker.feed(body[_FRONT_BYTES : _FRONT_BYTES + MOST_DESCRIPTION_BYTES])
    try:
        description = unpacker.unpack()
    except (msgpack.UnpackException, ValueError) as error:  # each thing that can be wrong has a class of its own
        raise DamagedError(f"a container: its description cannot be read ({type(error).__name__})") from error
    wrong = _description_fault(description)
    if wrong:
        raise DamagedError(f"a container: its description has {wrong}")
    return description, _FRONT_BYTES + unpacker.tell()


def _description_fault(description: object) -> str | None:
    """Return what is wrong about a description, None where nothing is."""
    if not isinstance(description, list) or not 2 <= len(description) <= 4:
        return "another form than kind, version, header and lengths"
    kind, version, *rest = description
    if not (isinstance(kind, str) and kind.isascii() and kind.isprintable() and 1 <= len(kind) <= 31):
        return f"the kind {str(kind)[:40]!r}"
    if type(version) is not int or not 1 <= version <= _LARGEST_WHOLE:
        return "no version of 1 or more"
    header = rest[0] if rest else {}
    if not isinstance(header, dict) or len(header) > MOST_ENTRIES or not all(type(name) is str for name in header):
        return "no header of names"
    lengths = rest[1] if len(rest) > 1 else []
    if not isinstance(lengths, list) or len(lengths) > MOST_ENTRIES:
        return f"lengths of more than {MOST_ENTRIES:,} sections"
    if not all(type(length) is int and 0 <= length <= _LARGEST_WHOLE for length in lengths):
        return "lengths that are none"
    return None


def _unknown(what: str, got: str, expected: str) -> SourceError:
    return SourceError.of(what, got=got, expected=expected, do="Read it with the version of tilestream that wrote it.")
