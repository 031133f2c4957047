"""What foretells the pixels of a channel of a residual: weights of a few dozen neighbours, fitted to each tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import LARGEST_CODE
from tilestream.codecs.entropy import CodeReader, CodeWriter
from tilestream.codecs.pyramid.residuallattice import REACH, TURNS, Features, Seen, error_features, pixel_features
from tilestream.codecs.pyramid.residualtables import INDICES, SHAPES
from tilestream.kernels.lattice_taps import lattice_taps

MODELS = 2 * len(TURNS)
"""Of a channel: one a turn for step 1, one a turn for all others."""
WEIGHT_BITS = 14
"""Of the fraction of a weight of pixels."""
ERROR_BITS = 8
"""Of the fraction of a weight of errors."""
BIAS_BITS = 6
"""Of the fraction of a bias, in units of a pixel."""
MIDDLE_BITS = 4
"""Of the fraction of a middle and of an error."""
BIAS_MOST = 1 << 24
_MOST_SHIFT = 12


@dataclass(frozen=True, kw_only=True)
class TurnModel:
    """Middle and width of the pixels of a turn."""

    weights: npt.NDArray[np.int32]
    """`(features,)` of pixels, in 2^-14; at most 2^17."""
    bias: int
    """Of the middle, in 1/64 of a pixel's unit."""
    spreads: npt.NDArray[np.int32]
    """`(features,)` of errors, in 2^-8; at most 2^15."""
    spread_bias: int
    """Of the width, in 1/64 of a pixel's unit."""
    spread_least: int
    """Smallest width, in 1/64 of a pixel's unit."""
    shape: int
    """Of the models of its steps."""

    def middles(self, seen: Seen, number: int, features: Features) -> npt.NDArray[np.int64]:
        """Return the middles of the pixels of a turn in 1/16 of a pixel's unit, not yet within their range."""
        bias = self.bias << WEIGHT_BITS - BIAS_BITS
        sums = _sums(seen.pixels, self.weights, features, bias, seen.size_of(number % len(TURNS)), number)
        half = 1 << WEIGHT_BITS - MIDDLE_BITS - 1
        found: npt.NDArray[np.int64] = (sums + half) >> WEIGHT_BITS - MIDDLE_BITS
        return found

    def widths(self, seen: Seen, number: int, features: Features) -> npt.NDArray[np.int64]:
        """Return the mean magnitudes that are expected of errors, in 2^-12 of a pixel's unit."""
        bias = self.spread_bias << ERROR_BITS + MIDDLE_BITS - BIAS_BITS
        sums = _sums(seen.errors, self.spreads, features, bias, seen.size_of(number % len(TURNS)), number)
        return np.maximum(sums, self.spread_least << ERROR_BITS + MIDDLE_BITS - BIAS_BITS)


@dataclass(frozen=True, kw_only=True)
class ChannelModel:
    """All that foretells a channel."""

    first: int
    """Index of the model of the pixels that come first."""
    turns: tuple[TurnModel, ...]
    """Six, see `turn_number`."""

    def write(self, writer: CodeWriter) -> None:
        """Add it to what is written."""
        writer.whole(self.first)
        shifts = [_shift_of(turn.weights) for turn in self.turns]
        for turn, shift in zip(self.turns, shifts, strict=True):
            for value in (shift, _folded(turn.bias), _folded(turn.spread_bias), turn.spread_least, turn.shape):
                writer.whole(value)
        _add(writer, [turn.weights >> shift for turn, shift in zip(self.turns, shifts, strict=True)])
        _add(writer, [turn.spreads for turn in self.turns])

    @classmethod
    def read(cls, reader: CodeReader, *, before: int, is_tied: bool) -> ChannelModel:
        """Return what `write` wrote.

        Parameters
        ----------
        reader : CodeReader
            Where from.
        before : int
            How many channels before it sees.
        is_tied : bool
            See `pixel_features`.

        Returns
        -------
        ChannelModel
            Of whole numbers that no sum of 64 bits exceeds.

        Raises
        ------
        DamagedError
            When they are not whole.
        """
        first = reader.whole(least=0, most=INDICES - 1)
        fronts = []
        for _ in range(MODELS):
            shift = reader.whole(least=0, most=_MOST_SHIFT)
            biases = [_unfolded(reader.whole(least=0, most=2 * BIAS_MOST)) for _ in range(2)]
            least = reader.whole(least=0, most=BIAS_MOST)
            fronts.append((shift, *biases, least, reader.whole(least=0, most=SHAPES - 1)))
        weights = _take(reader, [len(pixel_features(number, before, is_tied)) for number in range(MODELS)])
        spreads = _take(reader, [len(error_features(number, before)) for number in range(MODELS)])
        return cls(
            first=first,
            turns=tuple(
                TurnModel(
                    weights=many << shift,
                    bias=bias,
                    spreads=few,
                    spread_bias=spread_bias,
                    spread_least=least,
                    shape=shape,
                )
                for (shift, bias, spread_bias, least, shape), many, few in zip(fronts, weights, spreads, strict=True)
            ),
        )


def _sums(
    planes: npt.NDArray[np.int32],
    weights: npt.NDArray[np.int32],
    features: Features,
    bias: int,
    shape_yx: tuple[int, int],
    number: int,
) -> npt.NDArray[np.int64]:
    row, column = (REACH + odd for odd in TURNS[number % len(TURNS)])
    taps = np.array(
        [
            (plane, row + down, column + right, weight)
            for weight, feature in zip(weights.tolist(), features, strict=True)
            if weight
            for plane, down, right in feature
        ],
        np.int32,
    ).reshape(-1, 4)
    found: npt.NDArray[np.int64] = lattice_taps(planes, taps, bias, shape_yx=shape_yx, threads=1)
    return found


def _shift_of(weights: npt.NDArray[np.int32]) -> int:
    """Return how many lower bits no weight needs."""
    together = int(np.bitwise_or.reduce(weights)) or 1 << _MOST_SHIFT
    return min(_MOST_SHIFT, (together & -together).bit_length() - 1)


def _add(writer: CodeWriter, parts: list[npt.NDArray[np.int32]]) -> None:
    starts = np.cumsum([0, *map(len, parts)])[:-1]
    writer.add(np.concatenate(parts), tuple(starts.tolist()))


def _take(reader: CodeReader, counts: list[int]) -> list[npt.NDArray[np.int32]]:
    ends = np.cumsum(counts)
    starts = tuple((ends - counts).tolist())
    found = reader.take(starts, count=int(ends[-1]), most=LARGEST_CODE).astype(np.int32)
    return np.split(found, ends[:-1])


def _folded(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _unfolded(value: int) -> int:
    return value // 2 if value % 2 == 0 else -(value + 1) // 2
