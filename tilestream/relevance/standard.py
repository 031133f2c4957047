"""Vectors whose values have units of their own, brought to one scale by the tiles of an image.

    v'_k = (v_k - mean_k) / std_k        over the tiles of the image of which something is known

A cosine sees only the largest values of a vector. Those of a trained encoder are alike; those of `handcrafted` are
shares, densities and standardised moments, and all that tissue and glass have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Standard:
    """Mean and deviation of each value over the tiles of an image."""

    mean: Vectors
    """`(d,)`."""
    std: Vectors
    """`(d,)`, 1 for a value that never changes."""

    @classmethod
    def of(cls, vectors: npt.NDArray[Any]) -> Self:
        """Return that of the vectors `(n, d)` of all tiles; of none it changes nothing."""
        found = np.asarray(vectors, np.float64)
        if not len(found):
            return cls(mean=np.zeros(found.shape[1], np.float32), std=np.ones(found.shape[1], np.float32))
        mean, std = found.mean(axis=0), found.std(axis=0)
        changes = std > 1e-6 * np.abs(mean) + 1e-12
        return cls(mean=mean.astype(np.float32), std=np.where(changes, std, 1.0).astype(np.float32))

    def __call__(self, vectors: npt.NDArray[Any], *, what: str = "vectors of a query") -> Vectors:
        """Return vectors `(n, d)` in deviations from the mean, each from its own values alone.

        Parameters
        ----------
        vectors : ndarray
            `(n, d)` or `(d,)`.
        what : str
            Whose they are, for messages.

        Returns
        -------
        ndarray of float32
            `(n, d)`.

        Raises
        ------
        ConfigError
            When they have another length.
        """
        found = np.atleast_2d(np.asarray(vectors, np.float32))
        if found.ndim != 2 or found.shape[1] != len(self.mean):
            raise ConfigError.of(
                what,
                got=f"shape {np.shape(vectors)}",
                expected=f"{len(self.mean)} values each, as many as the encoder gives for a tile",
                do="Make them with the same encoder.",
            )
        return np.asarray((found - self.mean) / self.std, np.float32)

    def of_example(self, vectors: npt.NDArray[Any], *, what: str) -> Vectors:
        """Return vectors of an example; `ConfigError` too where one is the mean, and so resembles nothing."""
        found = self(vectors, what=what)
        if not found.any(axis=1).all():
            raise ConfigError.of(
                what,
                got="the very mean of all tiles",
                expected="something that differs from the rest of the image",
                do="Choose another place, or an image of more than one tile.",
            )
        return found
