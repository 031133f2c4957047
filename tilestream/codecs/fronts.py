"""Fronts of a container that carry checksums of their own, so that a range read of one is as sure as the whole.

The entry `k` of the header is a list of pairs: a number of sections, and the CRC-32C of the description without this
entry, packed anew, followed by so many sections. What a front tells of size and samples is thereby checked like its
payloads. A file pays some seven bytes for each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import msgpack

from tilestream.codecs.container import FORMAT, MAGIC, Packed, described, is_container, unpack
from tilestream.errors import DamagedError

_FRONTS = "k"
_CRC_BYTES = 4
_MOST_CRC = (1 << 32) - 1


@dataclass(frozen=True, kw_only=True)
class Front:
    """The beginning of a container that is checked by itself."""

    sections: int
    """Those in it."""
    nbytes: int
    """From the first byte of the container."""
    crc: int
    """As it was written."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Where the parts of a container lie, by what its description says; not checked yet."""

    kind: str
    """What it is."""
    nbytes: int
    """Of all of it."""
    fronts: tuple[Front, ...]
    """The shortest first; none where it has no such checksums."""


def with_fronts(
    kind: str, *, version: int, header: Mapping[str, Any], sections: Sequence[bytes], counts: Sequence[int]
) -> dict[str, Any]:
    """Return the header of a container with checksums of fronts.

    Parameters
    ----------
    kind, version, header, sections
        What will be given to `pack`.
    counts : sequence of int
        Sections in each front, ascending.

    Returns
    -------
    dict
        To be given to `pack` as the header.
    """
    told = [kind, version, dict(header), [len(section) for section in sections]]
    return {**header, _FRONTS: [number for count in counts for number in (count, _crc(told, sections[:count]))]}


def outline_of(start: bytes) -> Outline | None:
    """Return where the parts of a container lie.

    Parameters
    ----------
    start : bytes
        Its first bytes.

    Returns
    -------
    Outline or None
        None where these are too few to tell, or begin no container of this format: who reads all of it is told why.
    """
    if not is_container(start) or start[len(MAGIC) : len(MAGIC) + 1] != bytes([FORMAT]):
        return None
    try:
        description, begin = described(start)
    except DamagedError:
        return None
    lengths = description[3] if len(description) > 3 else []
    ends = list(itertools.accumulate(lengths, initial=begin))
    return Outline(kind=description[0], nbytes=ends[-1] + _CRC_BYTES, fronts=_fronts_of(description, ends))


def unpack_front(data: bytes, *, kinds: Mapping[str, int] | None = None) -> Packed:
    """Return what the beginning of a container holds, as far as a checksum covers it.

    Parameters
    ----------
    data : bytes
        All of a container, or a beginning with one of its fronts at least.
    kinds : Mapping, optional
        As for `unpack`.

    Returns
    -------
    Packed
        With the sections of the longest front that is there, or all.

    Raises
    ------
    DamagedError
        When bytes are changed, or no front is there that can be checked.
    SourceError
        When it is of a format, kind or version that is not known here.
    """
    outline = outline_of(data)
    there = () if outline is None else [front for front in outline.fronts if front.nbytes <= len(data)]
    if outline is None or len(data) >= outline.nbytes or not there:
        return unpack(data, kinds=kinds)
    front = there[-1]
    description, begin = described(data)
    told = [description[0], description[1], _without_fronts(description[2]), description[3]]
    if _crc(told, [data[begin : front.nbytes]]) != front.crc:
        raise DamagedError(f"a container: the checksum of its first {front.nbytes:,} bytes is another than was written")
    packed = unpack(data[: front.nbytes], kinds=kinds, cut=True)
    return Packed(
        kind=packed.kind, version=packed.version, header=packed.header, sections=packed.sections[: front.sections]
    )


def _without_fronts(header: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in header.items() if name != _FRONTS}


def _crc(told: list[Any], sections: Sequence[bytes]) -> int:
    found: int = google_crc32c.value(msgpack.packb(told))
    for section in sections:
        found = google_crc32c.extend(found, section)
    return found


def _fronts_of(description: list[Any], ends: Sequence[int]) -> tuple[Front, ...]:
    """Return the fronts that a description names, none where it names what cannot be."""
    told = description[2].get(_FRONTS, []) if len(description) > 3 else []
    if not isinstance(told, list) or len(told) % 2 or not all(type(number) is int for number in told):
        return ()
    counts, crcs = told[::2], told[1::2]
    rises = all(before < after for before, after in itertools.pairwise([0, *counts, len(ends)]))
    if not rises or not all(0 <= crc <= _MOST_CRC for crc in crcs):
        return ()
    return tuple(Front(sections=count, nbytes=ends[count], crc=crc) for count, crc in zip(counts, crcs, strict=True))
