"""How far tiles are from the pixels that they were made of, level by level, in sums that add up over an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.tilecodec import Tile


@dataclass(frozen=True, kw_only=True)
class LevelError:
    """Of one level of some tiles."""

    squares: float = 0.0
    """Sum of squared differences of samples."""
    samples: int = 0
    """How many are valid, all channels counted."""
    low: float = math.inf
    """Least of them."""
    high: float = -math.inf
    """Greatest of them."""

    def __add__(self, other: LevelError) -> LevelError:
        return LevelError(
            squares=self.squares + other.squares,
            samples=self.samples + other.samples,
            low=min(self.low, other.low),
            high=max(self.high, other.high),
        )

    def psnr(self, dtype: np.dtype[Any]) -> float | None:
        """Return the peak signal-to-noise ratio.

        Parameters
        ----------
        dtype : dtype
            Type of the samples.

        Returns
        -------
        float or None
            dB of the span of 8 bits, or for wider types of that of the samples; inf where all are exact, None where
            nothing is valid.
        """
        if not self.samples:
            return None
        if not self.squares:
            return math.inf
        span = 255.0 if dtype.itemsize == 1 else max(self.high - self.low, 1e-30)
        return 10 * math.log10(span * span * self.samples / self.squares)

    def to_json(self) -> list[float]:
        """Return it as JSON values, for a receipt; empty where nothing is valid."""
        return [self.squares, self.samples, self.low, self.high] if self.samples else []

    @classmethod
    def from_json(cls, values: list[float]) -> LevelError:
        """Return what `to_json` gave."""
        if not values:
            return cls()
        squares, samples, low, high = values
        return cls(squares=squares, samples=int(samples), low=low, high=high)


def level_errors(tile: Tile, levels: Levels) -> tuple[LevelError, ...]:
    """Return how far a tile is from its pixels.

    Parameters
    ----------
    tile : Tile
        Unpacked from the bytes that are stored.
    levels : Levels
        What it was made of.

    Returns
    -------
    tuple of LevelError
        One a level; what is not valid does not count.
    """
    found = []
    for number, (pixels, valid) in enumerate(zip(levels.pixels, levels.valid, strict=True)):
        seen = tile.decode(level=number)
        mine, theirs = (one.reshape(len(one), -1) if valid is None else one[:, valid] for one in (pixels, seen))
        if not mine.size:
            found.append(LevelError())
            continue
        difference = mine.astype(np.float64) - theirs
        found.append(
            LevelError(
                squares=float(np.vdot(difference, difference)),
                samples=mine.size,
                low=float(mine.min()),
                high=float(mine.max()),
            )
        )
    return tuple(found)


def weighed_error(tile: Tile, levels: Levels, weights: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return how far a tile is from its pixels where it matters.

    Parameters
    ----------
    tile : Tile
        Unpacked from the bytes that are stored.
    levels : Levels
        What it was made of.
    weights : ndarray of float32
        `(y, x)`, how much each pixel of level 0 counts.

    Returns
    -------
    squares : float
        Sum of the squared differences of valid samples, each times its weight.
    weight : float
        Sum of these weights.
    """
    pixels, valid = levels.pixels[0], levels.valid[0]
    counts = weights.astype(np.float64) if valid is None else np.where(valid, weights, 0.0)
    difference = np.where(counts > 0, pixels.astype(np.float64) - tile.decode(), 0)
    return float(np.vdot(difference**2, np.broadcast_to(counts, pixels.shape))), float(counts.sum() * len(pixels))


def add_errors(total: Mapping[int, LevelError], first: int, errors: tuple[LevelError, ...]) -> dict[int, LevelError]:
    """Return sums by level of the image with those of one more tile.

    Parameters
    ----------
    total : Mapping
        Sums so far.
    first : int
        Level of the array that the tile lies in.
    errors : tuple of LevelError
        Of the tile.

    Returns
    -------
    dict
        New sums.
    """
    return {
        **total,
        **{first + n: total.get(first + n, LevelError()) + error for n, error in enumerate(errors)},
    }
