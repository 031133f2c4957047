"""Vectors of regions and slides from the vectors of their tiles: mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

CHUNK_ROWS = 4096
"""Rows held as float64 at a time."""

STATISTICS = ("mean", "std")
"""What a pool returns, the main one first."""


class Pool:
    """Sums up vectors as they come, in bounded memory.

    Parameters
    ----------
    dim : int
        Length of the vectors.

    Notes
    -----
    Float64, row after row in the order in which they are added, about the first row so that nothing cancels: how the
    rows are cut into calls of `add` does not change a bit of the result.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.n = 0
        """Rows seen."""
        self.n_ok = 0
        """Rows that counted."""
        self._origin = np.zeros(dim, np.float64)
        self._sums = np.zeros((2, dim), np.float64)
        self._weight = 0.0

    def add(
        self,
        vectors: npt.NDArray[np.float32],
        ok: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Take the rows that count.

        Parameters
        ----------
        vectors : ndarray of float32
            `(n, d)` in plan order.
        ok : ndarray of bool
            `(n,)`; a row that is False is counted and left out.
        weights : ndarray of float64, optional
            `(n,)`, not negative: how often each row counts, 1 by default. One of 0 is left out.
        """
        self.n += len(vectors)
        ok = ok if weights is None else ok & (weights > 0)
        for start in range(0, len(vectors), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            rows = vectors[part][ok[part]].astype(np.float64)
            if not len(rows):
                continue
            if self.n_ok == 0:
                self._origin = rows[0].copy()
            self.n_ok += len(rows)
            rows -= self._origin
            each = np.ones(len(rows)) if weights is None else weights[part][ok[part]]
            # accumulate adds one row after the other, sum would pair them up by their number
            self._weight = float(np.add.accumulate(np.concatenate([[self._weight], each]))[-1])
            for k, values in enumerate((rows * each[:, None], rows * rows * each[:, None])):
                self._sums[k] = np.add.accumulate(np.concatenate([self._sums[k][None], values]), axis=0)[-1]

    def result(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return one vector a statistic.

        Returns
        -------
        Mapping
            `mean` and `std` (of the population), both weighted, `(d,)` float32 each; NaN where no row counted.
        """
        if self.n_ok == 0:
            return {name: np.full(self.dim, np.nan, np.float32) for name in STATISTICS}
        shift, square = self._sums / self._weight
        std = np.sqrt(np.maximum(square - shift * shift, 0.0))
        return {"mean": (self._origin + shift).astype(np.float32), "std": std.astype(np.float32)}
