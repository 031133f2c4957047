"""A channel of a residual, told turn by turn: the same walk in whole numbers for who writes it and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.residuallattice import (
    FIRST_STEP,
    HALVES,
    TURNS,
    Frame,
    Whole,
    error_features,
    pixel_features,
    turn_number,
)
from tilestream.codecs.pyramid.residualmodel import MIDDLE_BITS, ChannelModel
from tilestream.codecs.pyramid.residualtables import index_bounds
from tilestream.types import Array

_HALF = 1 << MIDDLE_BITS - 1
Take = Callable[[int, int | None, npt.NDArray[np.int64], npt.NDArray[np.uint8], int], Whole]
"""Steps from h, turn (None for what comes first), middles, indices of widths, and the shape of the models."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """How finely pixels are told: cells of whole values around what is foretold."""

    max_error: int
    """Largest difference between a pixel and what is told of it."""
    low: int
    """Smallest value of the type of the pixels."""
    high: int
    """Largest value."""
    is_tied: bool
    """See `pixel_features`."""

    @property
    def width(self) -> int:
        """Return how many values a cell has."""
        return 2 * self.max_error + 1

    def steps(self, middles: npt.NDArray[np.int64], pixels: Array, valid: npt.NDArray[np.bool_]) -> Whole:
        """Return how many cells each pixel lies from that of its middle; 0 where it is not valid."""
        cells = (pixels - _nearest(middles) + self.max_error) // self.width
        found: Whole = (cells * valid).astype(np.int32)
        return found

    def told(self, middles: npt.NDArray[np.int64], steps: Whole) -> npt.NDArray[np.int64]:
        """Return the middle values of the cells that steps lead to: within `max_error` of the pixels."""
        found: npt.NDArray[np.int64] = np.clip(
            _nearest(middles) + steps.astype(np.int64) * self.width, self.low, self.high
        )
        return found

    def lean(self, middles: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """Return where middles lie in their cells: −4 to 4 eighths."""
        off = middles - (_nearest(middles) << MIDDLE_BITS)
        eighths = (np.abs(off) + self.width) // (2 * self.width)
        found: npt.NDArray[np.int8] = (np.sign(off) * eighths).astype(np.int8)
        return found

    def clipped(self, middles: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return middles within the range of pixels."""
        found: npt.NDArray[np.int64] = np.clip(middles, self.low << MIDDLE_BITS, self.high << MIDDLE_BITS)
        return found

    def nearest(self, base: Whole, pixels: Whole, valid: npt.NDArray[np.bool_]) -> Any:
        """Return pixels as they would be told from a base alone."""
        middles = base.astype(np.int64) << MIDDLE_BITS
        return self.told(middles, self.steps(middles, pixels, valid))


def tell_channel(frame: Frame, place: int, model: ChannelModel, cells: Cells, take: Take) -> None:
    """Fill in a channel of a frame.

    Parameters
    ----------
    frame : Frame
        Channels before this one are told; overwritten.
    place : int
        Of the channel in the order.
    model : ChannelModel
        What foretells it.
    cells : Cells
        How finely pixels are told.
    take : callable
        Gives the steps of each turn.
    """
    frame.restart(place)
    channel, before = frame.order[place], len(frame.before(place))
    middles = frame.view(frame.base[channel], FIRST_STEP, None).astype(np.int64) << MIDDLE_BITS
    index = np.full(middles.shape, model.first, np.uint8)
    _settle(frame, channel, cells, (FIRST_STEP, None, middles), take(FIRST_STEP, None, middles, index, 0))
    bounds = index_bounds(cells.width)
    for half in HALVES:
        seen = frame.seen(place, half)
        for turn in range(len(TURNS)):
            if 0 in seen.size_of(turn):
                continue
            number = turn_number(half, turn)
            one = model.turns[number]
            middles = cells.clipped(one.middles(seen, number, pixel_features(number, before, cells.is_tied)))
            widths = one.widths(seen, number, error_features(number, before))
            index = np.searchsorted(bounds, widths, side="right").astype(np.uint8)
            _settle(frame, channel, cells, (half, turn, middles), take(half, turn, middles, index, one.shape))
            frame.refresh(seen, place, half)


def _settle(
    frame: Frame, channel: int, cells: Cells, at: tuple[int, int | None, npt.NDArray[np.int64]], steps: Whole
) -> None:
    """Write what steps say into a frame."""
    half, turn, middles = at
    told = cells.told(middles, steps)
    frame.view(frame.found[channel], half, turn)[...] = told
    frame.view(frame.errors[channel], half, turn)[...] = np.abs((told << MIDDLE_BITS) - middles)


def _nearest(middles: Array) -> Any:
    return (middles + _HALF) >> MIDDLE_BITS
