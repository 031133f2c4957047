"""What becomes of memory that a box is read into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What became of a box that was read into memory."""

    damage: tuple[str, ...] = ()
    """Reason of each damaged block."""
    is_whole: bool = True
    """Whether every pixel is known to be valid; False says that `valid` has to be looked at."""


WHOLE = Filled()
"""The usual case, made once."""
