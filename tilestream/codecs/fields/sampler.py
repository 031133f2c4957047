"""Pixels of all levels of a picture in shuffled order: what a field is fitted to, step after step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.picture import Levels
from tilestream.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pixels for one step; those of one level stand together, the finest first, in the order of its memory."""

    coords_xy: npt.NDArray[np.float32]
    """`(n, 2)`: centres, 0 to 1 over `Picture.extent_px` along both axes."""
    level: npt.NDArray[np.float32]
    """`(n,)`: of the pyramid."""
    values: npt.NDArray[np.float32]
    """`(n, c)`: 0 to 1, see `Picture.to_unit`."""
    counts: tuple[int, ...]
    """How many of each level."""


class PixelSampler:
    """Valid pixels of all levels; each once before any of its level comes again.

    Parameters
    ----------
    levels : Levels
        Pixels.
    level_weights : mapping of int to float, optional
        How many pixels of a step are of which level, as shares of any sum; levels that it does not name get none. By
        default 2^-l: a level has a quarter of the pixels of the one below, each of which is then met twice as often.
    seed : int
        Two samplers of one seed draw the same.

    Attributes
    ----------
    levels : Levels
        What it draws from.
    shares : ndarray of float64
        `(levels,)`: of a step, that are of each level; their sum is 1.

    Raises
    ------
    ConfigError
        When weights are of no level of the picture, negative, or all zero, or nothing is valid.

    Notes
    -----
    Holds 4 bytes a valid pixel. Pixels of a step are handed out in the order of memory: picture and tables are then
    read along cache lines, and which pixels a step has matters to it, not in which order.
    """

    def __init__(self, levels: Levels, *, level_weights: Mapping[int, float] | None = None, seed: int = 0) -> None:
        self.levels = levels
        self._noise = np.random.default_rng(seed)
        self._order = [_valid_pixels(number, levels) for number in range(len(levels.pixels))]
        self._next = [len(order) for order in self._order]  # so that the first draw shuffles
        self.shares = _shares(level_weights, [len(order) for order in self._order])

    def draw(self, n: int) -> Samples:
        """Return the next pixels.

        Parameters
        ----------
        n : int
            How many, at least 1.

        Returns
        -------
        Samples
            Of each level its share, rounded up or down by chance where it is no whole number.
        """
        edges = np.floor(np.cumsum(self.shares) * n + self._noise.random()).astype(int)
        edges[-1] = n  # the sum of shares may not be 1 in its last bit
        counts = np.diff(np.minimum(edges, n), prepend=0)
        parts = [self._draw_level(level, int(count)) for level, count in enumerate(counts) if count]
        return Samples(
            coords_xy=np.concatenate([coords for coords, _ in parts]),
            level=np.repeat(np.arange(len(counts), dtype=np.float32), counts),
            values=np.concatenate([values for _, values in parts]),
            counts=tuple(counts.tolist()),
        )

    def _draw_level(self, level: int, n: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        pixels, picture = self.levels.pixels[level], self.levels.picture
        picked = np.sort(self._indices(level, n))
        y, x = np.divmod(picked, pixels.shape[2])
        coords = np.empty((n, 2), np.float32)
        step = 2.0**level / picture.extent_px
        coords[:, 0], coords[:, 1] = (x + 0.5) * step, (y + 0.5) * step
        return coords, picture.to_unit(pixels[:, y, x]).T

    def _indices(self, level: int, n: int) -> npt.NDArray[np.uint32]:
        """Return the next n of a level, which is shuffled whenever it is used up."""
        order, found = self._order[level], []
        while n:
            if self._next[level] == len(order):
                self._noise.shuffle(order)
                self._next[level] = 0
            first = self._next[level]
            found.append(order[first : first + n].copy())
            self._next[level] += len(found[-1])
            n -= len(found[-1])
        return np.concatenate(found)


def _valid_pixels(level: int, levels: Levels) -> npt.NDArray[np.uint32]:
    valid, shape = levels.valid[level], levels.pixels[level].shape
    if math.prod(shape[1:]) > np.iinfo(np.uint32).max:
        raise ConfigError.of(
            "`levels`", got=f"{shape} pixels", expected="at most 2^32", do="Fit a field to each tile of it."
        )
    if valid is None:
        return np.arange(math.prod(shape[1:]), dtype=np.uint32)
    return np.flatnonzero(valid).astype(np.uint32)


def _shares(weights: Mapping[int, float] | None, pixels: list[int]) -> npt.NDArray[np.float64]:
    given = {level: 2.0**-level for level in range(len(pixels))} if weights is None else weights
    known = set(given) <= set(range(len(pixels)))
    found: npt.NDArray[np.float64] = np.array(
        [float(given.get(level, 0)) if count else 0.0 for level, count in enumerate(pixels)]
    )
    if not known or not np.isfinite(found).all() or found.min() < 0 or found.sum() <= 0:
        raise ConfigError.of(
            "`level_weights`",
            got=f"{dict(given)}, with {pixels} valid pixels of the levels",
            expected=f"numbers of at least 0 for levels 0 to {len(pixels) - 1}, one of them above 0 and with pixels",
            do="Leave it out for all levels.",
        )
    shares: npt.NDArray[np.float64] = found / found.sum()
    return shares
