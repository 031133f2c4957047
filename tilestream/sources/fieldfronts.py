"""As much of a tile as one of its levels needs: its front, by ranges of bytes, where that can be checked by itself.

How long a front is stands in its first bytes. An eighth more is asked for than the longest front of that level has had
so far, so that a second request is the exception. A tile may be written again between two requests: what they give
together is then no front whose checksum is right, so that whoever unpacks it notices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tilestream.codecs.tilefront import bytes_for
from tilestream.sources.chunkread import Span

FIRST_BYTES = 1 << 12
"""Asked for of the first tile: enough for networks of its own and the coarsest grids."""
_ALL = 1 << 62


@dataclass(kw_only=True)
class FrontReader:
    """Reads fronts of the tiles of one array; threads may share it."""

    longest: dict[int, int] = field(default_factory=dict)
    """Bytes of the longest front of each level so far; of all of a tile, where it has no fronts."""

    def read(self, stored: Callable[[Span], bytes | None], level: int, *, front: bytes = b"") -> bytes | None:
        """Return the bytes of a tile that a level needs.

        Parameters
        ----------
        stored : callable
            Returns a span of the tile, less where the tile ends before it does, None where none is stored.
        level : int
            Of the tile; 1 or more, unless a front is given.
        front : bytes
            Its beginning, where that was read and checked before.

        Returns
        -------
        bytes or None
            Its beginning or all of it, not checked; None where none is stored.
        """
        found: bytes | None = front
        if not front:
            longest = self.longest.get(level)
            guess = FIRST_BYTES if longest is None else longest + longest // 8
            found = stored((0, guess))
            if found is None or len(found) < guess:  # that is all of it
                return found
        start = found or b""
        needed = bytes_for(start, level)
        if needed is None:  # no tile that is known here, or a long description
            return stored((0, _ALL))
        if not front:
            self.longest[level] = max(self.longest.get(level, 0), needed)
        if needed <= len(start):
            return start
        return start + (stored((len(start), needed - len(start))) or b"")
