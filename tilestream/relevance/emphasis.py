"""How much an error counts at each pixel, of how much each part of an image matters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types import Box, ScoreMap

MOST_DB = 60.0
"""Beyond that nothing of the lesser parts would be left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Emphasis:
    """Weights of squared errors: 1 where a map is 1, less by some decibels where it is 0, and between in proportion.

    An encoder that weighs a distortion D by w and bits by λ spends bits until a bit more saves λ of w·D, so that at
    high rates errors go with 1/w: where the map is 0 they are `db` larger than where it is 1. What matters most is
    coded as it would be without a map, and bytes only fall.
    """

    scores: ScoreMap
    """In 0 to 1, absolute; what is not valid there counts as 0."""
    db: float
    """Decibels between what matters most and what matters least."""

    def __post_init__(self) -> None:
        require_db(self.db)
        if not self.scores.absolute:
            raise ConfigError.of(
                f"score map `{self.scores.name}`",
                got="values in a unit of its own",
                expected="values of 0 to 1",
                do="Make a `Relevance` of it, which normalises.",
            )

    @cached_property
    def _decibels(self) -> npt.NDArray[np.float64]:
        """Return how far below what matters most each cell lies."""
        values = np.where(self.scores.valid, self.scores.values, 0).clip(0, 1)
        return self.db * (values.astype(np.float64) - 1)

    def weights(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the weight of the squared error of each pixel of a box.

        Parameters
        ----------
        box : Box
            Of any level, stored or not: its pixels are 2^level of level 0.

        Returns
        -------
        ndarray of float32
            `(y, x)` in (0, 1]; decibels are interpolated between the centres of cells, so that tiles show no steps.
        """
        rows, columns = (
            _between(first, count, cell_px=cell, cells=cells, scale=2.0**box.level)
            for first, count, cell, cells in (
                (box.y, box.height, self.scores.cell_yx[0], self._decibels.shape[0]),
                (box.x, box.width, self.scores.cell_yx[1], self._decibels.shape[1]),
            )
        )
        low, high, share = rows
        lines = self._decibels[low] * (1 - share)[:, None] + self._decibels[high] * share[:, None]
        low, high, share = columns
        decibels = lines[:, low] * (1 - share) + lines[:, high] * share
        weights: npt.NDArray[np.float32] = (10 ** (decibels / 10)).astype(np.float32)
        return weights


def require_db(db: float) -> None:
    """Raise `ConfigError` unless some decibels can lie between what matters most and what matters least."""
    if not 0 < db <= MOST_DB:
        expected = f"decibels above 0, at most {MOST_DB:g}"
        raise ConfigError.of("`emphasis` (`--emphasis`)", got=db, expected=expected, do="Choose others; 12 is usual.")


def _between(
    first: int, count: int, *, cell_px: float, cells: int, scale: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return the two cells around the centre of each pixel of a line, and the share of the second."""
    centres = np.clip((first + np.arange(count) + 0.5) * scale / cell_px - 0.5, 0, cells - 1)
    low = centres.astype(np.intp)
    share: npt.NDArray[np.float64] = centres - low
    return low, np.minimum(low + 1, cells - 1), share
