"""The order in which the pixels of a residual are told, and what of the picture each is told from.

Of the pixels at steps of 2h along both axes, already known, the three turns of step h tell the centres, then the
middles of horizontal edges, then those of vertical ones (h = 16, 8, 4, 2, 1; the pixels at steps of 32 come first, from
the base alone). Channels go one after another, so that those before are known everywhere.

    known     turn 0      turn 1      turn 2
    a . a     a . a       a c a       a c a
    . . .     . b .       . b .       d b d
    a . a     a . a       a c a       a c a

A pixel's middle is a weighted sum of known pixels of its channel within 3h, of 45 pixels of each of the last three
channels before, and of the base; its width is one of the magnitudes of errors of predictions around it. Planes are
mirrored at their edges, which leaves each lattice where it is; what is not known yet is the base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.types import Array, Shape

TURNS = ((1, 1), (0, 1), (1, 0))
"""Row and column, in h, of what each turn tells."""
FIRST_STEP = 32
HALVES = (16, 8, 4, 2, 1)
"""The steps h in order."""
REACH = 3
MOST_BEFORE = 3
"""Channels before that are looked at: those told last."""
TIED_PIXELS = 1 << 14
"""Below so many pixels, weights at step 1 are alike for mirrored neighbours too: a small tile cannot pay for more."""
_OWN_FAR, _BEFORE_FAR, _ERRORS_FAR, _RING_FAR = 18, 13, 5, 2
"""Squared distances up to which pixels of the channel and of those before, errors, and the base are looked at."""
Offset = tuple[int, int, int]
"""Plane, and rows and columns in h, of a neighbour."""
Features = tuple[tuple[Offset, ...], ...]
"""Neighbours that share a weight, for each weight."""
Whole = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The planes around a channel at one step, padded by `REACH`."""

    shape: Shape
    """Of a plane, without what it is padded by."""
    pixels: Whole
    """`(2·b + 2, y, x)`: the channel, b before it, the base of the channel and of those."""
    errors: Whole
    """`(b + 1, y, x)`: 16 times the magnitudes of what predictions were off by."""

    def size_of(self, turn: int) -> tuple[int, int]:
        """Return rows and columns of what a turn tells."""
        return tuple((size + 1 - odd) // 2 for size, odd in zip(self.shape.yx, TURNS[turn], strict=True))  # type: ignore[return-value]


class Frame:
    """A picture that is told channel by channel.

    Parameters
    ----------
    base : ndarray of int32
        `(c, y, x)`.
    order : sequence of int
        Channels in the order in which they are told.
    """

    def __init__(self, base: Whole, order: tuple[int, ...]) -> None:
        self.base = base
        self.order = order
        self.found = base.copy()
        self.errors = np.zeros_like(base)

    def before(self, place: int) -> tuple[int, ...]:
        """Return the channels that the one at a place of the order is told from, the last first."""
        return self.order[max(0, place - MOST_BEFORE) : place][::-1]

    def restart(self, place: int) -> None:
        """Forget what is known of the channel at a place of the order."""
        channel = self.order[place]
        self.found[channel] = self.base[channel]
        self.errors[channel] = 0

    def seen(self, place: int, half: int) -> Seen:
        """Return the planes around the channel at a place of the order, at a step."""
        channels = (self.order[place], *self.before(place))
        parts = [(plane[channel], None) for plane in (self.found, self.base) for channel in channels]
        pixels = np.stack([_padded(plane[::half, ::half]) for plane, _ in parts])
        errors = np.stack([_padded(self.errors[channel, ::half, ::half]) for channel in channels])
        rows, columns = (-(-size // half) for size in self.base.shape[1:])
        return Seen(shape=Shape(y=rows, x=columns), pixels=pixels, errors=errors)

    def view(self, plane: Array, half: int, turn: int | None) -> Any:
        """Return the pixels of a plane `(y, x)` that a turn tells, as a view; None is what comes first."""
        if turn is None:
            return plane[::half, ::half]
        row, column = TURNS[turn]
        return plane[row * half :: 2 * half, column * half :: 2 * half]

    def refresh(self, seen: Seen, place: int, half: int) -> None:
        """Bring what was told of the channel into the planes around it."""
        channel = self.order[place]
        seen.pixels[0] = _padded(self.found[channel, ::half, ::half])
        seen.errors[0] = _padded(self.errors[channel, ::half, ::half])


def _padded(plane: Whole) -> Any:
    return np.pad(plane, REACH, mode="reflect")


def turn_number(half: int, turn: int) -> int:
    """Return which of six models serves a turn: those of step 1 are their own, all other steps share theirs."""
    return turn + len(TURNS) * (half == 1)


@lru_cache(maxsize=64)
def pixel_features(number: int, before: int, is_tied: bool) -> Features:
    """Return the neighbours that the middle is a weighted sum of.

    Parameters
    ----------
    number : int
        Of the model, 0 to 5.
    before : int
        How many channels before are seen.
    is_tied : bool
        Whether mirrored neighbours share a weight at step 1, as they do at others.

    Returns
    -------
    tuple
        Neighbours of each weight.
    """
    turn, is_tied = number % len(TURNS), is_tied or number < len(TURNS)
    found = [*_orbits(0, turn, _OWN_FAR, is_tied=is_tied)]
    for plane in range(1, before + 1):
        found += _orbits(plane, None, _BEFORE_FAR, is_tied=is_tied)
    found += _orbits(before + 1, None, _RING_FAR, is_tied=is_tied)
    found += [((plane, 0, 0),) for plane in range(before + 2, 2 * before + 2)]
    return tuple(found)


@lru_cache(maxsize=64)
def error_features(number: int, before: int) -> Features:
    """Return the neighbours whose errors the width is a weighted sum of; all else as of `pixel_features`."""
    found = [*_orbits(0, number % len(TURNS), _ERRORS_FAR, is_tied=True)]
    for plane in range(1, before + 1):
        centre, *ring = _orbits(plane, None, _RING_FAR, is_tied=True)
        found += [centre, tuple(offset for orbit in ring for offset in orbit)]
    return tuple(found)


def _orbits(plane: int, turn: int | None, far: int, *, is_tied: bool) -> Iterator[tuple[Offset, ...]]:
    """Yield neighbours by squared distance; of its own channel only what is known at a turn."""
    found: dict[tuple[int, ...], list[Offset]] = {}
    reach = range(-REACH, REACH + 1)
    for down, right in sorted(((y, x) for y in reach for x in reach), key=lambda at: (at[0] ** 2 + at[1] ** 2, at)):
        if down**2 + right**2 > far or (turn is not None and not _is_known(turn, down, right)):
            continue
        found.setdefault((abs(down), abs(right)) if is_tied else (down, right), []).append((plane, down, right))
    yield from map(tuple, found.values())


def _is_known(turn: int, down: int, right: int) -> bool:
    row, column = TURNS[turn]
    at = ((row + down) % 2, (column + right) % 2)
    return at == (0, 0) or at in TURNS[:turn]
