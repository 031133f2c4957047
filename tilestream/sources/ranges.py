"""Byte ranges that lie close together as few requests: over a network a gap costs less than another round trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

GAP_BYTES = 1 << 20
"""Ranges at most this far apart are asked for at once: 10 ms at 100 MB/s, which is less than most answers wait."""
REQUEST_BYTES = 16 << 20
"""Largest request made of several ranges; one range that is larger stays whole."""
REQUESTS = 8
"""Most requests at once of one call; reading threads come on top."""


@dataclass(kw_only=True)
class Span:
    """A request that serves several ranges."""

    start: int
    """First byte."""
    stop: int
    """Byte behind the last."""
    members: list[int] = field(default_factory=list)
    """Numbers of the ranges in it."""


def spans_of(ranges: Sequence[tuple[int, int]], *, gap: int = GAP_BYTES, most: int = REQUEST_BYTES) -> list[Span]:
    """Return the requests that serve some ranges, in the order of the file; empty ranges need none.

    Parameters
    ----------
    ranges : sequence of (int, int)
        Offset and length in bytes, in any order; they may overlap.
    gap : int
        Most bytes between two ranges of one request that nobody asked for.
    most : int
        Most bytes of a request that serves more than one range.

    Returns
    -------
    list of Span
        They do not overlap, unless ranges do that are longer than `most` together.
    """
    spans: list[Span] = []
    for offset, nbytes, number in sorted((offset, nbytes, number) for number, (offset, nbytes) in enumerate(ranges)):
        if not nbytes:
            continue
        stop = offset + nbytes
        last = spans[-1] if spans else None
        if last is None or offset > last.stop + gap or max(stop, last.stop) - last.start > most:
            last = Span(start=offset, stop=stop)
            spans.append(last)
        last.stop = max(last.stop, stop)
        last.members.append(number)
    return spans
