"""Means of a coarse grid, linearly interpolated, over the pixels of any level: what a pixel sees of the grid.

    value(u) = Σ_j max(0, 1 − |u − j|) · grid[j],  u = position / stride − ½,  ends repeated outwards
    mean over a pixel [a, b) = Σ_j (G(u(b) − j) − G(u(a) − j)) / (u(b) − u(a)) · grid[j],  G = ∫ max(0, 1 − |t|) dt

Exact for every footprint, so that a coarse or a fractional level is the mean of what level 0 interpolates, at a cost
that falls with its pixels. Both axes are independent. Products and sums are made one by one in a fixed order in
float32: a box gives the bits of the same pixels in any other box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """What a run of pixels sees of a run of cells."""

    cells: npt.NDArray[np.int64]
    """`(pixels, taps)` indices."""
    weights: Floats
    """`(pixels, taps)`; each row sums to 1."""

    def matrix(self, count: int) -> Floats:
        """Return the same as a matrix.

        Parameters
        ----------
        count : int
            Cells of the grid.

        Returns
        -------
        ndarray of float32
            `(pixels, count)`.
        """
        found = np.zeros((len(self.cells), count), np.float32)
        np.add.at(found, (np.arange(len(self.cells))[:, None], self.cells), self.weights)
        return found


def taps_of(first: int, count: int, *, level: float, size_px: int, stride_px: int, cells: int) -> Taps:
    """Return what pixels of a level see of the cells along one axis.

    Parameters
    ----------
    first, count : int
        Pixels of the level, within it.
    level : float
        At least 0; a pixel covers 2^level pixels of level 0, the last one what there is of them.
    size_px : int
        Level-0 pixels of the image along the axis.
    stride_px : int
        Level-0 pixels of a cell; the first cell covers the first of them.
    cells : int
        How many there are.

    Returns
    -------
    Taps
        As many for each pixel as the widest footprint needs.
    """
    scale = 2.0**level
    edges = np.minimum((first + np.arange(count + 1)) * scale, size_px) / stride_px - 0.5
    low, high = edges[:-1], edges[1:]
    start = np.floor(low).astype(np.int64)
    reach = int((np.floor(high) - start).max()) + 2
    nodes = start[:, None] + np.arange(reach)
    weights = (_risen(high[:, None] - nodes) - _risen(low[:, None] - nodes)) / (high - low)[:, None]
    return Taps(cells=np.clip(nodes, 0, cells - 1), weights=weights.astype(np.float32))


def _risen(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the integral of a hat of height 1 up to t."""
    t = np.clip(t, -1.0, 1.0)
    risen: npt.NDArray[np.float64] = np.where(t < 0, 0.5 * (1 + t) ** 2, 1 - 0.5 * (1 - t) ** 2)
    return risen


def seen(grid: Floats, y: Taps, x: Taps) -> Floats:
    """Return the means of a grid over pixels.

    Parameters
    ----------
    grid : ndarray of float32
        `(cells_y, cells_x, features)`.
    y, x : Taps
        Of the pixels along both axes.

    Returns
    -------
    ndarray of float32
        `(pixels_y, pixels_x, features)`.
    """
    rows = _along(grid, y)
    return _along(rows.transpose(1, 0, 2), x).transpose(1, 0, 2)


def _along(grid: Floats, taps: Taps) -> Floats:
    """Return sums over the first axis, one tap after the other."""
    found = np.zeros((len(taps.cells), *grid.shape[1:]), np.float32)
    for tap in range(taps.cells.shape[1]):
        found += taps.weights[:, tap, None, None] * grid[taps.cells[:, tap]]
    return found
