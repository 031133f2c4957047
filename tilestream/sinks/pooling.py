"""Vectors of regions and slides from the vectors of their tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.sinks.facts import PlanFacts
from tilestream.types import Array


class Pooler(Protocol):
    """Sums up vectors as they come; made anew for each region and slide."""

    def add(
        self,
        vectors: npt.NDArray[np.float32],
        ok: npt.NDArray[np.bool_],
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Take the rows of `(n, d)` where `ok` holds, each as often as its weight says, once by default."""

    def result(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """Return one `(d,)` vector a statistic, the main one first; NaN where no row was ok."""


NewPooler: TypeAlias = Callable[[int], Pooler]
"""Makes a pooler for vectors of a length; a class or function that can be pickled."""


def iter_regions(
    plan: PlanFacts, tile_yx: npt.NDArray[np.int64]
) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.int64]]]:
    """Yield the regions that the tiles of one super-tile lie in, row by row.

    Parameters
    ----------
    plan : PlanFacts
        Knows the grid.
    tile_yx : ndarray of int64
        Corners of cores, `(n, 2)` plan pixels.

    Yields
    ------
    region : tuple of int
        Row and column in the grid of regions.
    members : ndarray of int64
        Indices of its tiles.
    """
    found = plan.cells(tile_yx) // (plan.region_px // plan.grid.step_px)
    regions, member_of = np.unique(found, axis=0, return_inverse=True)
    for number, (iy, ix) in enumerate(regions):
        yield (int(iy), int(ix)), np.flatnonzero(member_of.ravel() == number)


def pool(new_pooler: NewPooler, vectors: Array, ok: npt.NDArray[np.bool_]) -> Mapping[str, npt.NDArray[np.float32]]:
    """Return the statistics of some vectors at once.

    Parameters
    ----------
    new_pooler : callable
        Makes the pooler.
    vectors : ndarray of float32
        `(n, d)`.
    ok : ndarray of bool
        `(n,)` rows that count.

    Returns
    -------
    Mapping
        `(d,)` vectors by name.
    """
    pooler = new_pooler(vectors.shape[1])
    pooler.add(vectors, ok)
    return pooler.result()
