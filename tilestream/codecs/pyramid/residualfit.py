"""The fit of what foretells a channel of a residual: by turns, what pixels are told from and how wide errors are.

Pixels count by the width that is expected of their errors, as the likelihood of a bell asks. The first round looks at
pixels as they would be told from the base alone, the next at what a reader will have.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import LARGEST_CODE
from tilestream.codecs.pyramid.residuallattice import (
    FIRST_STEP,
    HALVES,
    REACH,
    TURNS,
    Features,
    Frame,
    Seen,
    Whole,
    error_features,
    pixel_features,
    turn_number,
)
from tilestream.codecs.pyramid.residualmodel import (
    BIAS_BITS,
    BIAS_MOST,
    ERROR_BITS,
    MIDDLE_BITS,
    MODELS,
    WEIGHT_BITS,
    ChannelModel,
    TurnModel,
)
from tilestream.codecs.pyramid.residualsquares import Floats, Spread, information, spread_of, weights_of
from tilestream.codecs.pyramid.residualtables import (
    INDEX_OF_ONE,
    INDICES,
    INDICES_AN_OCTAVE,
    SHAPES,
    STEP_MOST,
    coarsened,
    step_bits,
)
from tilestream.codecs.pyramid.residualwalk import Cells, tell_channel

ROUNDS = 2
MOST_SAMPLES = 1 << 16
"""Of a turn that are looked at; of larger tiles only every so-manieth row. That is an odd number: pixels that were JPEG
before repeat in blocks, and every second row of them is told by other weights than the rest."""
_LEAST_FAR = 0.1
_OCTAVES = range(-8, 2)
_PARTS = range(-3, 4)
"""Gains of widths that are tried: octaves, then quarters of one beside the best."""


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """What is known of the pixels that one model tells, or of every so-manieth row of them."""

    around: Floats
    """`(n, features)`: what weights multiply."""
    pixels: npt.NDArray[np.int64]
    """`(n,)`."""
    middles: npt.NDArray[np.int64]
    """`(n,)`, in 1/16."""
    valid: npt.NDArray[np.bool_]
    """`(n,)`."""

    @property
    def far(self) -> Floats:
        """Return how far pixels are from their middles; those that are not valid lie on them."""
        found: Floats = np.abs(self.pixels - self.middles / 2**MIDDLE_BITS) * self.valid
        return found


class ChannelFit:
    """The fit of one channel; those before it in the order must be told already.

    Parameters
    ----------
    frame : Frame
        The picture as a reader will know it.
    place : int
        Of the channel in the order.
    pixels : ndarray of int32
        `(c, y, x)`.
    valid : ndarray of bool
        `(y, x)`; what is not valid counts for nothing.
    cells : Cells
        How finely pixels are told.
    """

    def __init__(self, frame: Frame, place: int, pixels: Whole, valid: npt.NDArray[np.bool_], cells: Cells) -> None:
        self._frame, self._place, self._cells, self._valid = frame, place, cells, valid
        self._channel, self._before = frame.order[place], len(frame.before(place))
        self._pixels = pixels[self._channel]
        self._middles = np.zeros_like(self._pixels)

    def run(self) -> ChannelModel:
        """Return the model; the channel in the frame must be told afresh with it."""
        frame, base = self._frame, self._frame.base[self._channel]
        frame.found[self._channel] = self._cells.nearest(base, self._pixels, self._valid)
        seen = self._seen()
        spreads: Sequence[Spread | None] = [None] * MODELS
        for _ in range(ROUNDS):
            turns = [self._pixel_model(seen, number, spreads[number]) for number in range(MODELS)]
            model = ChannelModel(first=self._first(base), turns=tuple(turns))
            tell_channel(frame, self._place, model, self._cells, self._steps)
            seen = self._seen()
            errors = [self._errors(seen, number) for number in range(MODELS)]
            spreads = fitted = [spread_of(one.around, one.far) for one in errors]
        chosen = map(self._with_spread, errors, model.turns, fitted)
        return replace(model, turns=tuple(chosen))

    def _seen(self) -> dict[int, Seen]:
        return {half: self._frame.seen(self._place, half) for half in HALVES}

    def _steps(self, half: int, turn: int | None, middles: npt.NDArray[np.int64], *_: Any) -> Whole:
        """Return the steps of a turn, and keep the middles."""
        self._frame.view(self._middles, half, turn)[...] = middles
        pixels, valid = (self._frame.view(plane, half, turn) for plane in (self._pixels, self._valid))
        return self._cells.steps(middles, pixels, valid)

    def _first(self, base: Whole) -> int:
        """Return the index of the width of what comes first."""
        pixels, known, valid = (
            self._frame.view(plane, FIRST_STEP, None) for plane in (self._pixels, base, self._valid)
        )
        mean = max(float((np.abs(pixels - known) * valid).mean()), _LEAST_FAR)
        return int(_indices(np.array([mean / self._cells.width]))[0])

    def _gathered(self, seen: dict[int, Seen], number: int, features: Features, which: str) -> _Turn:
        """Return what features of a kind of planes are where a model is used."""
        turn = number % len(TURNS)
        found = []
        for half in HALVES:
            size = seen[half].size_of(turn)
            if turn_number(half, turn) != number or 0 in size:
                continue
            every = -(-size[0] * size[1] // MOST_SAMPLES) | 1
            views = [
                self._frame.view(plane, half, turn)[::every].reshape(-1)
                for plane in (self._pixels, self._middles, self._valid)
            ]
            found.append((_columns(getattr(seen[half], which), features, size, turn=turn, every=every), *views))
        if not found:
            found = [(np.zeros((0, len(features))), *(np.zeros(0, kind) for kind in (np.int32, np.int32, np.bool_)))]
        around, pixels, middles, valid = (np.concatenate(part) for part in zip(*found, strict=True))
        return _Turn(around=around, pixels=pixels.astype(np.int64), middles=middles.astype(np.int64), valid=valid)

    def _errors(self, seen: dict[int, Seen], number: int) -> _Turn:
        found = self._gathered(seen, number, error_features(number, self._before), "errors")
        return replace(found, around=found.around / 2**MIDDLE_BITS)

    def _pixel_model(self, seen: dict[int, Seen], number: int, spread: Spread | None) -> TurnModel:
        """Return a model whose widths are not known yet."""
        found = self._gathered(seen, number, pixel_features(number, self._before, self._cells.is_tied), "pixels")
        counts = found.valid.astype(np.float64)
        if spread is not None:
            counts *= information(found.far, spread.widths(self._errors(seen, number).around))
        pixels = found.pixels.astype(np.float64)
        weights, bias = weights_of(found.around, pixels, counts, has_scale=spread is not None)
        return TurnModel(
            weights=np.rint(weights * 2**WEIGHT_BITS).astype(np.int32),
            bias=_bias(bias),
            spreads=np.zeros(len(error_features(number, self._before)), np.int32),
            spread_bias=0,
            spread_least=0,
            shape=0,
        )

    def _with_spread(self, found: _Turn, turn: TurnModel, spread: Spread) -> TurnModel:
        """Return a model with the gain of its widths and the shape of bells that cost the fewest bits."""
        widths = spread.widths(found.around) / self._cells.width
        steps, lean = (
            self._cells.steps(found.middles, found.pixels, found.valid),
            self._cells.lean(found.middles),
        )

        def cost(gain: float, shape: int) -> float:
            return _cost(steps, lean, widths * gain, shape)

        octaves = [2.0**octave for octave in _OCTAVES]
        _, gain, shape = min((cost(*one), *one) for one in itertools.product(octaves, range(SHAPES)))
        parts = [gain * 2.0 ** (part / 4) for part in _PARTS]
        _, gain, shape = min((cost(*one), *one) for one in itertools.product(parts, range(SHAPES)))
        weights = np.clip(np.rint(spread.weights * gain * 2**ERROR_BITS), -LARGEST_CODE, LARGEST_CODE)
        bias, least = _bias(spread.bias * gain), _bias(spread.least * gain)
        return replace(
            turn, spreads=weights.astype(np.int32), spread_bias=bias, spread_least=max(1, least), shape=shape
        )


def _bias(value: float) -> int:
    return int(np.clip(round(value * 2**BIAS_BITS), -BIAS_MOST, BIAS_MOST))


def _columns(planes: Whole, features: Features, size: tuple[int, int], *, turn: int, every: int) -> Floats:
    """Return the sums of neighbours of each feature, `(n, features)`, of every so-manieth row."""
    row, column = (REACH + odd for odd in TURNS[turn])
    rows, columns = size
    found = np.empty((-(-rows // every) * columns, len(features)))
    for k, feature in enumerate(features):
        total: Any = 0
        for plane, down, right in feature:
            first, left = row + down, column + right
            total = total + planes[plane, first : first + 2 * rows - 1 : 2 * every, left : left + 2 * columns - 1 : 2]
        found[:, k] = total.reshape(-1)
    return found


def _indices(widths: Floats) -> npt.NDArray[np.uint8]:
    """Return the indices of widths in cells."""
    index = np.floor(INDICES_AN_OCTAVE * np.log2(widths) + INDEX_OF_ONE + 0.5)
    return np.clip(index, 0, INDICES - 1).astype(np.uint8)


def _cost(steps: Whole, lean: npt.NDArray[np.int8], widths: Floats, shape: int) -> float:
    """Return the bits of steps of bells of some widths in cells."""
    if not steps.size:
        return 0.0
    table, bits = coarsened(_indices(widths))
    signed = np.where(lean < 0, -steps, steps)
    symbols = np.clip((signed + (1 << bits.astype(np.int32) >> 1)) >> bits, -STEP_MOST, STEP_MOST)
    return float(step_bits(shape)[table, np.abs(lean), symbols + STEP_MOST].sum() + bits.sum(dtype=np.int64))
