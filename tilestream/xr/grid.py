"""Evenly spaced pixel centres along one axis, as arithmetic: no coordinate is ever held in memory.

A grid is a run of cells of an endless lattice. Cutting it changes which cells, never the lattice, so that a pixel keeps
its coordinate to the bit however an image was sliced before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, lcm
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Method: TypeAlias = Literal["nearest", "pad", "ffill", "backfill", "bfill"]

ALIKE = 1e-6
"""Share of a step within which a label is a pixel centre: coordinates are computed, and rounding is no difference."""
ALIGNED = 1e-3
"""Share of a step within which pixels of two grids are the same pixels."""


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """The centres of some pixels along one axis."""

    corner: float
    """Coordinate of the edge at which cell 0 of the lattice begins."""
    pitch: float
    """Size of a cell, in units of the coordinate; negative where the coordinate falls."""
    cells: range
    """Which cells of the lattice, in order."""
    image: str = ""
    """Fingerprint of the image whose pixels these are; empty where none is known. Grids align whatever it is."""

    @property
    def size(self) -> int:
        """Return the number of pixels."""
        return len(self.cells)

    @property
    def step(self) -> float:
        """Return the difference from one pixel to the next."""
        return self.pitch * self.cells.step

    @property
    def start(self) -> float:
        """Return the first centre."""
        return float(self._centre(self.cells.start))

    @property
    def last(self) -> float:
        """Return the last centre; that before the first where there is no pixel."""
        return float(self._centre(self.cells.start + (self.size - 1) * self.cells.step))

    def values(self, positions: Any = None) -> Floats:
        """Return centres.

        Parameters
        ----------
        positions : ndarray of int, optional
            Positions in the grid, of any shape; all of them by default.

        Returns
        -------
        ndarray of float64
            As many.
        """
        at = np.arange(self.size) if positions is None else np.asarray(positions)
        return np.asarray(self._centre(self.cells.start + at * self.cells.step), np.float64)

    def cut(self, part: slice) -> PixelGrid:
        """Return the grid of a slice of positions."""
        return replace(self, cells=self.cells[part])

    def position(self, labels: Any) -> Floats:
        """Return where coordinates lie, in positions; halves are the edges of pixels, infinite ones stay so."""
        with np.errstate(over="ignore", invalid="ignore"):
            cell = (np.asarray(labels, np.float64) - self.corner) / self.pitch - 0.5
            return np.asarray((cell - self.cells.start) / self.cells.step, np.float64)

    def find(self, labels: Any, *, method: Method | None = None, tolerance: Any = None) -> Ints:
        """Return the positions of coordinates, by the rules of `pandas.Index.get_indexer`.

        Parameters
        ----------
        labels : array of float
            Coordinates.
        method : str, optional
            `nearest` (of two equally near the one behind), `pad` or `ffill` (the pixel before in the order of the
            axis), `backfill` or `bfill` (the one behind). Exact without it, up to `ALIKE`.
        tolerance : float or array, optional
            Largest distance in units of the coordinate; needs a method.

        Returns
        -------
        ndarray of int64
            -1 where there is none.
        """
        labels = np.asarray(labels, np.float64)
        at = self.position(labels)
        known = np.isfinite(at) if method is None else ~np.isnan(at)
        at = np.where(known, np.clip(at, -1.0, self.size), -1.0)  # beyond the ends all places are one, and fit an int
        if method is None:
            found = np.rint(at)
            known &= np.abs(at - found) <= ALIKE
        elif method == "nearest":
            found = np.clip(np.floor(at + 0.5), 0, self.size - 1)
        elif method in ("pad", "ffill"):
            found = np.minimum(np.floor(at + ALIKE), self.size - 1)
        else:
            found = np.maximum(np.ceil(at - ALIKE), 0)
        known &= (found >= 0) & (found < self.size)
        positions = np.where(known, found, -1).astype(np.int64)
        if tolerance is not None:
            positions = np.where(np.abs(self.values(positions) - labels) <= np.asarray(tolerance), positions, -1)
        return positions

    def span(self, first: float | None, last: float | None, step: int | None = None) -> slice:
        """Return the slice of positions between two coordinates, both of them included, as pandas has it.

        Parameters
        ----------
        first, last : float, optional
            Coordinates in the order of the grid (against it for a negative step); None = the end.
        step : int, optional
            Every so-manieth position.

        Returns
        -------
        slice
            Of positions; empty where the coordinates stand the wrong way round.
        """
        low, high = (last, first) if step is not None and step < 0 else (first, last)
        start = 0 if low is None else self._clipped(np.ceil(self.position(low) - ALIKE))
        stop = self.size if high is None else self._clipped(np.floor(self.position(high) + ALIKE) + 1)
        if step is None or step > 0:
            return slice(start, max(start, stop), step)
        return slice(stop - 1, start - 1 if start else None, step) if stop > start else slice(0, 0, step)

    def is_like(self, other: PixelGrid) -> bool:
        """Return whether another grid is the same pixels, up to `ALIGNED`."""
        if self.size != other.size:
            return False
        near = abs(self.step) * ALIGNED
        return not self.size or (abs(self.start - other.start) <= near and abs(self.last - other.last) <= near)

    def common(self, other: PixelGrid) -> PixelGrid:
        """Return the pixels that are in both grids, in this one's order.

        Parameters
        ----------
        other : PixelGrid
            Another grid whose pixels fall on this one's, or the other way round.

        Returns
        -------
        PixelGrid
            Maybe empty.

        Raises
        ------
        ConfigError
            When their pixels are of different size or lie between each other.
        """
        lattice, own, theirs = self._together(other)
        return replace(lattice, cells=_intersect(own, theirs))

    def union(self, other: PixelGrid) -> PixelGrid:
        """Return the pixels that are in any of two grids, in this one's order.

        Parameters
        ----------
        other : PixelGrid
            Another grid on the same lattice that overlaps or adjoins this one.

        Returns
        -------
        PixelGrid
            All of them.

        Raises
        ------
        ConfigError
            When their pixels are of different size, lie between each other, or together leave a gap.
        """
        lattice, own, theirs = self._together(other)
        shared = len(_intersect(own, theirs))
        if shared in (len(own), len(theirs)):
            return replace(lattice, cells=own if shared == len(theirs) else _directed(theirs, own.step))
        theirs, step = _directed(theirs, own.step), own.step
        first, last = (min, max) if step > 0 else (max, min)
        cells = range(first(own.start, theirs.start), last(own.stop, theirs.stop), step)
        is_even = theirs.step == step and (theirs.start - own.start) % step == 0
        if not is_even or len(cells) != len(own) + len(theirs) - shared:
            raise ConfigError.of(
                "alignment of pixels",
                got=f"grids {self} and {other}, which leave a gap or interleave",
                expected="grids that overlap or adjoin, for an outer join",
                do="Give `join='inner'`, or reindex one of them.",
            )
        return replace(lattice, cells=cells)

    def __str__(self) -> str:
        return f"from {self.start:.6g} by {self.step:.6g}, {self.size} pixels"

    def _together(self, other: PixelGrid) -> tuple[PixelGrid, range, range]:
        theirs = self._cells_of(other)
        if theirs is not None:
            return self, self.cells, theirs
        own = other._cells_of(self)  # the other one is the finer lattice
        if own is not None:
            return other, own, other.cells
        raise ConfigError.of(
            "alignment of pixels",
            got=f"grids {self} and {other}",
            expected="pixels of one size that lie on each other",
            do="Bring one to the other's grid first: `.tiles.at(mpp=…)`, or `.sel(…, method='nearest')`.",
        )

    def _cells_of(self, other: PixelGrid) -> range | None:
        """Return the cells of this lattice that are another grid's pixels, None where there are none for them."""
        first, step = (other.start - self.corner) / self.pitch - 0.5, other.step / self.pitch
        start, stride = round(first), round(step)
        drift = abs(first - start) + abs(step - stride) * max(other.size - 1, 0)
        return range(start, start + stride * other.size, stride) if stride and drift <= ALIGNED else None

    def _centre(self, cell: Any) -> Any:
        return self.corner + (cell + 0.5) * self.pitch

    def _clipped(self, at: Any) -> int:
        if np.isnan(at):
            raise KeyError("a coordinate that is not a number cannot bound a slice")
        return int(min(max(at, 0), self.size))


def fit_grid(values: Any, *, even: float = ALIGNED) -> PixelGrid:
    """Return the grid of evenly spaced centres.

    Parameters
    ----------
    values : ndarray
        `(n,)`, two or more.
    even : float
        How far one may lie from its place, as a share of a step.

    Returns
    -------
    PixelGrid
        Their grid.

    Raises
    ------
    ConfigError
        When they are not evenly spaced, or fewer than two.
    """
    values = np.asarray(values, np.float64)
    step = float(values[-1] - values[0]) / (len(values) - 1) if values.ndim == 1 and len(values) > 1 else 0.0
    if step:
        grid = PixelGrid(corner=float(values[0]) - step / 2, pitch=step, cells=range(len(values)))
        if np.all(np.abs(grid.values() - values) <= even * abs(step)):
            return grid
    raise ConfigError.of(
        "coordinates of pixels",
        got=f"{values.shape} values that are not evenly spaced" if step else f"values of shape {values.shape}",
        expected="two or more evenly spaced numbers",
        do="Keep xarray's default index for them.",
    )


def within(positions: Ints, size: int) -> Ints:
    """Return positions counted from the front.

    Parameters
    ----------
    positions : ndarray of int
        Negative ones count from the end.
    size : int
        Length of the axis.

    Returns
    -------
    ndarray of int
        From 0 to `size` - 1.

    Raises
    ------
    IndexError
        When one is outside: xarray does not look, and there is no coordinate and no pixel that would.
    """
    if positions.size and (positions.min() < -size or positions.max() >= size):
        worst = positions.max() if positions.max() >= size else positions.min()
        raise IndexError(f"position {worst} is outside an axis of {size} pixels")
    return np.where(positions < 0, positions + size, positions)


def _directed(cells: range, step: int) -> range:
    return cells if (cells.step > 0) == (step > 0) else cells[::-1]


def _intersect(own: range, other: range) -> range:
    """Return what is in both, in the order of the first."""
    first, second = _directed(own, 1), _directed(other, 1)
    step, low = lcm(first.step, second.step), max(first.start, second.start)
    high = min(first[-1], second[-1]) if first and second else low - 1
    tries = second.step // gcd(first.step, second.step)
    begin = first.start + -(-max(0, low - first.start) // first.step) * first.step
    candidates = range(begin, begin + tries * first.step, first.step)
    start = next((cell for cell in candidates if (cell - second.start) % second.step == 0), high + 1)
    found = range(start, high + 1, step) if start <= high else range(0, 0, step)
    return _directed(range(found.start, found.start + len(found) * step, step), own.step)
