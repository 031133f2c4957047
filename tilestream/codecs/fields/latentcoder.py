"""A grid of whole numbers as few bytes, under a prior that many pictures share: predicted from decoded neighbours.

    f = neighbours left, up, up-left and up-right of all channels, and the channels before at the same cell
    prediction = (W · f + 128) >> 8        spread = s + U · |f|        class = number of `EDGES` that spread reaches

What is coded is the difference to the prediction, by the model of its class. Everything is whole-number arithmetic
(spreads and weights in 1/256), so that every machine reads what another wrote. Cells with equal x + 2y depend on none
of each other and are taken at once: w + 2h steps for a grid of w × h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.codemodels import CodeModel, Histogram, Reading, best_model
from tilestream.errors import DamagedError

Codes = npt.NDArray[np.int64]
LARGEST = 31
"""Magnitude of a code."""
LARGEST_GAP = 2 * LARGEST + 1
"""Of a code from its prediction, which is clipped to one more than a code."""
ONE = 256
"""Unit of weights and spreads."""
EDGES = np.array([26, 48, 77, 115, 166, 230, 320, 450, 640, 960, 1536], np.int64)
"""Spreads from which on the next class begins, in 1/256."""
CLASSES = len(EDGES) + 1
NEIGHBOURS_YX = ((0, -1), (-1, 0), (-1, -1), (-1, 1))
FREE_CODES, CODES_A_BYTE = 1 << 16, 512
"""A file of n bytes holds at most the one plus n times the other: what it may cost a reader goes with its size."""
_SEEN = 64
"""Weight of a code that was counted against one that was not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentPrior:
    """What is known of a grid before it is read."""

    means: npt.NDArray[np.int16]
    """`(channels, 5 · channels)` W; those of channels that come later are 0."""
    spreads: npt.NDArray[np.int16]
    """`(channels, 5 · channels)` U, not negative."""
    least: npt.NDArray[np.int16]
    """`(channels,)` s."""
    models: tuple[CodeModel, ...]
    """One a class, from -`LARGEST_GAP` to `LARGEST_GAP`."""

    @property
    def channels(self) -> int:
        """Return how many numbers a cell has."""
        return len(self.least)

    def gaps(self, codes: Codes) -> tuple[Codes, Codes]:
        """Return how far codes are from their predictions, and the class of each.

        Parameters
        ----------
        codes : ndarray of int64
            `(channels, y, x)` within ±`LARGEST`.

        Returns
        -------
        tuple of ndarray of int64
            Both of that shape.
        """
        channels, height, width = codes.shape
        framed = _framed(codes)
        y, x = (part.reshape(-1) for part in np.mgrid[:height, :width])
        found = np.empty((2, channels, height * width), np.int64)
        around = _around(framed, y, x)
        for channel in range(channels):
            expected, group = self._expected(around, channel)
            found[0, channel] = codes[channel].reshape(-1) - expected
            found[1, channel] = group
        gaps, groups = found.reshape(2, channels, height, width)
        return gaps, groups

    def encode(self, codes: Codes) -> bytes:
        """Return codes as bytes; parameters as of `gaps`."""
        import constriction

        gaps, groups = self.gaps(codes)
        channels, height, width = codes.shape
        channel, y, x = (part.reshape(-1) for part in np.mgrid[:channels, :height, :width])
        wave = x + 2 * y
        flat_gaps, flat_groups = gaps.reshape(-1), groups.reshape(-1)
        order = np.lexsort((y, flat_groups, channel, wave))
        keys = np.stack([wave, channel, flat_groups])[:, order]
        starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=1) != 0).any(axis=0)])
        coder, models = constriction.stream.queue.RangeEncoder(), [model.for_coder() for model in self.models]
        ends = np.r_[starts[1:], len(order)]
        for first, last in zip(starts.tolist(), ends.tolist(), strict=True):
            symbols = (flat_gaps[order[first:last]] + LARGEST_GAP).astype(np.int32)
            coder.encode(symbols, models[int(keys[2, first])])
        written: bytes = coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")
        needed = -(-max(0, codes.size - FREE_CODES) // CODES_A_BYTE)
        return written + bytes(max(0, needed - len(written), not written))

    def decode(self, data: bytes, *, height: int, width: int) -> Codes:
        """Return the codes that bytes hold.

        Parameters
        ----------
        data : bytes
            Result of `encode`.
        height, width : int
            Of the grid; whoever asks has bounded them.

        Returns
        -------
        ndarray of int64
            `(channels, height, width)`.

        Raises
        ------
        DamagedError
            When they are no codes of such a grid.
        """
        import constriction

        count = self.channels * height * width
        if not data or count > FREE_CODES + CODES_A_BYTE * len(data):
            raise DamagedError(f"latents of a picture: {count:,} of them cannot be in {len(data):,} bytes")
        words = np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)
        models = [model.for_coder() for model in self.models]
        framed = _framed(np.zeros((self.channels, height, width), np.int64))
        try:
            coder = constriction.stream.queue.RangeDecoder(words)
            for y, x in _waves(height, width):
                around = _around(framed, y, x)
                for channel in range(self.channels):
                    expected, groups = self._expected(around, channel)
                    gaps = np.empty(len(y), np.int64)
                    for group in np.flatnonzero(np.bincount(groups)).tolist():
                        mine = groups == group
                        gaps[mine] = coder.decode(models[group], int(mine.sum()))
                    values = expected + gaps - LARGEST_GAP
                    if np.abs(values).max() > LARGEST:
                        raise DamagedError(f"latents of a picture: a code beyond ±{LARGEST}")
                    around[:, 4 * self.channels + channel] = values
                    framed[channel, y + 1, x + 1] = values
        except (AssertionError, ValueError) as error:  # what the coder raises of words that no encoder writes
            raise DamagedError(f"latents of a picture: no codes in this order of bits ({error})") from error
        return framed[:, 1:, 1:-1]

    def _expected(self, around: Codes, channel: int) -> tuple[Codes, Codes]:
        """Return prediction and class of one channel at some cells."""
        known = 4 * self.channels + channel  # what comes later is not read, whatever stands there
        means, spreads = (part[channel, :known].astype(np.int64) for part in (self.means, self.spreads))
        expected = (around[:, :known] @ means + ONE // 2) >> 8
        spread = np.abs(around[:, :known]) @ spreads + int(self.least[channel])
        return np.clip(expected, -LARGEST - 1, LARGEST + 1), np.searchsorted(EDGES, spread, side="right")

    def with_models(self, pictures: Sequence[Codes]) -> LatentPrior:
        """Return the same with models that fit the codes of some pictures.

        Parameters
        ----------
        pictures : sequence of ndarray of int64
            `(channels, y, x)` each.

        Returns
        -------
        LatentPrior
            A model a class; of a class that was not met, that of all codes.
        """
        found = [self.gaps(codes) for codes in pictures]
        gaps, groups = (np.concatenate([one[part].reshape(-1) for one in found]) for part in (0, 1))
        whole = _model_of(gaps)
        models = [_model_of(gaps[groups == group]) if (groups == group).any() else whole for group in range(CLASSES)]
        return LatentPrior(means=self.means, spreads=self.spreads, least=self.least, models=tuple(models))

    def to_bytes(self) -> bytes:
        """Return weights and models; whoever reads them must know the channels."""
        numbers = b"".join(part.astype("<i2").tobytes() for part in (self.means, self.spreads, self.least))
        return numbers + b"".join(model.to_bytes() for model in self.models)

    @classmethod
    def from_bytes(cls, data: bytes, *, channels: int) -> LatentPrior:
        """Return the prior that bytes hold; raise `DamagedError` where they are not whole.

        Parameters
        ----------
        data : bytes
            Result of `to_bytes`.
        channels : int
            Numbers of a cell.

        Returns
        -------
        LatentPrior
            Equal to what was written.
        """
        reading, sides = Reading(data), 5 * channels * channels
        numbers = np.frombuffer(reading.take(2 * (2 * sides + channels)), "<i2").astype(np.int16)
        means, spreads = numbers[: 2 * sides].reshape(2, channels, 5 * channels)
        least = numbers[2 * sides :]
        models = tuple(CodeModel.read(reading, most=LARGEST_GAP) for _ in range(CLASSES))
        wide = all(model.low == -LARGEST_GAP and model.size == 2 * LARGEST_GAP + 1 for model in models)
        if not wide or min(int(spreads.min()), int(least.min())) < 0 or reading.rest():
            raise DamagedError("prior of latents: models of other codes, negative spreads, or bytes left over")
        return cls(means=means, spreads=spreads, least=least, models=models)


def _framed(codes: Codes) -> Codes:
    """Return codes with a row of zeros above and a column on both sides."""
    return np.pad(codes, ((0, 0), (1, 0), (1, 1)))


def _around(framed: Codes, y: Codes, x: Codes) -> Codes:
    """Return `(cells, 5 · channels)`: what stands around cells, then at them."""
    parts = [framed[:, y + 1 + dy, x + 1 + dx] for dy, dx in (*NEIGHBOURS_YX, (0, 0))]
    return np.concatenate(parts).T.copy()


def _waves(height: int, width: int) -> Iterator[tuple[Codes, Codes]]:
    """Yield the cells of equal x + 2y, from the top."""
    for wave in range(width + 2 * (height - 1)):
        y = np.arange(max(0, (wave - width + 2) // 2), min(height - 1, wave // 2) + 1)
        if y.size:  # a grid of one column has every other wave
            yield y, wave - 2 * y


def _model_of(gaps: Codes) -> CodeModel:
    """Return the cheapest model over all gaps that there can be, which leaves none of them out."""
    counts = np.bincount(gaps + LARGEST_GAP, minlength=2 * LARGEST_GAP + 1) * _SEEN + 1
    return best_model(Histogram(low=-LARGEST_GAP, counts=counts))
