"""Small planes of numbers at many sizes: reduced by what is valid, filled where nothing is, enlarged again.

reduced   mean of the valid pixels under each
filled    what is not valid takes the value of the plane of half the size, and so on up: the far surroundings of a
          hole flow into it, and its edge is none
enlarged  linear between the middles of pixels, constant beyond the outermost
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.relevance.look import cell_sums

Plane = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Sums over squares of pixels, from which those over larger squares follow."""

    total: Plane
    """`(y, x)`, of the valid pixels under each."""
    count: Plane
    """`(y, x)`, how many these are."""

    @classmethod
    def of(cls, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_], edge_px: int) -> Sums:
        """Return the sums over squares of an edge.

        Parameters
        ----------
        values : ndarray
            `(y, x)`, finite.
        valid : ndarray of bool
            `(y, x)`.
        edge_px : int
            Edge of a square.

        Returns
        -------
        Sums
            Squares at the far edges may be smaller.
        """
        known = values if valid.all() else np.where(valid, values, 0)
        return cls(total=cell_sums(known, edge_px), count=cell_sums(valid, edge_px))

    def reduced(self) -> Sums:
        """Return those over squares of twice the edge."""
        return Sums(total=cell_sums(self.total, 2), count=cell_sums(self.count, 2))

    @property
    def means(self) -> Plane:
        """Return the mean of the valid pixels under each square, 0 where there is none."""
        return self.total / np.maximum(self.count, 1)


def filled(finest: Sums, levels: int) -> list[Plane]:
    """Return a chain of planes, each half the size of the one before, without holes.

    Parameters
    ----------
    finest : Sums
        The first of them.
    levels : int
        How many to return.

    Returns
    -------
    list of ndarray of float64
        `(y, x)`; 0 where nothing is valid at all.
    """
    chain = [finest]
    while len(chain) < levels or chain[-1].count.size > 1:
        chain.append(chain[-1].reduced())
    planes: list[Plane] = []
    for sums in reversed(chain):
        plane = sums.means
        if planes and not sums.count.all():
            plane = np.where(sums.count > 0, plane, enlarged(planes[-1], plane.shape, 2.0))
        planes.append(plane)
    return planes[: -levels - 1 : -1]


def enlarged(plane: npt.NDArray[Any], shape: tuple[int, ...], factor: float | tuple[float, float]) -> Plane:
    """Return a plane with more pixels.

    Parameters
    ----------
    plane : ndarray
        `(y, x)`.
    shape : tuple of int
        Size of the result.
    factor : float or tuple of float
        Edge of a pixel of `plane` in pixels of the result, by axis.

    Returns
    -------
    ndarray of float64
        Linear between the middles of pixels.
    """
    factors = factor if isinstance(factor, tuple) else (factor, factor)
    found = np.asarray(plane, np.float64)
    for axis, (n, by) in enumerate(zip(shape, factors, strict=True)):
        have = found.shape[axis]
        at = ((np.arange(n) + 0.5) / by - 0.5).clip(0, have - 1)
        low = np.minimum(at.astype(np.int64), max(have - 2, 0))
        share = np.expand_dims(at - low, 1 - axis)
        # two rows at a time and no product of matrices: its bits would depend on the threads of the library
        found = (1 - share) * found.take(low, axis) + share * found.take(np.minimum(low + 1, have - 1), axis)
    return found
