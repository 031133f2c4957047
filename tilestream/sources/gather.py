"""Many small byte ranges of files in few large reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from tilestream.errors import DamagedError
from tilestream.sources.files import File
from tilestream.types import Encoded

Range: TypeAlias = tuple[File, int, int]
"""File, offset and length in bytes."""

GAP_BYTES = 1 << 16
"""Ranges closer than this are read at once: on a disk and over a network the gap costs less than another request."""
MERGED_BYTES = 8 << 20
"""Largest read."""


@dataclass(kw_only=True)
class _Span:
    """A read that serves several ranges."""

    file: File
    start: int
    stop: int
    members: list[tuple[int, int, int]] = field(default_factory=list)
    """Place in the result, first and last byte in the span."""


def gather(ranges: Sequence[Range | None]) -> list[Encoded]:
    """Return the bytes of each range; None for None, the reason for one that cannot be read.

    Parameters
    ----------
    ranges : sequence of (File, int, int) or None
        File, offset and length. Those that lie close together are read at once.

    Returns
    -------
    list of bytes, DamagedError or None
        One a range, in order.

    Raises
    ------
    SourceError
        When the file system fails.
    """
    found: list[Encoded] = [None] * len(ranges)
    by_file: dict[str, list[_Span]] = {}
    for span in _spans(ranges, found):
        by_file.setdefault(span.file.url, []).append(span)
    for spans in by_file.values():
        for span, data in zip(spans, _read(spans), strict=True):
            for place, start, stop in span.members:
                found[place] = data if isinstance(data, DamagedError) else data[start:stop]
    return found


def _spans(ranges: Sequence[Range | None], found: list[Encoded]) -> list[_Span]:
    # places differ, so that files are never compared
    wanted = [(one[0].url, one[1], one[2], place, one[0]) for place, one in enumerate(ranges) if one is not None]
    spans: list[_Span] = []
    for url, offset, nbytes, place, file in sorted(wanted):
        if offset < 0 or nbytes < 0 or offset + nbytes > file.size:
            found[place] = DamagedError(f"bytes {offset}..{offset + nbytes} lie outside the file of {file.size} bytes")
            continue
        last = spans[-1] if spans else None
        if (
            last is None
            or last.file.url != url
            or offset > last.stop + GAP_BYTES
            or offset + nbytes - last.start > MERGED_BYTES
        ):
            last = _Span(file=file, start=offset, stop=offset + nbytes)
            spans.append(last)
        last.stop = max(last.stop, offset + nbytes)
        last.members.append((place, offset - last.start, offset - last.start + nbytes))
    return spans


def _read(spans: Sequence[_Span]) -> list[bytes | DamagedError]:
    """Return the bytes of spans of one file."""
    file = spans[0].file
    if not file.is_local:
        return list(file.read_ranges([(span.start, span.stop - span.start) for span in spans]))
    found: list[bytes | DamagedError] = []
    for span in spans:
        try:
            found.append(file.read(span.start, span.stop - span.start))
        except DamagedError as error:  # the file became shorter
            found.append(error)
    return found
