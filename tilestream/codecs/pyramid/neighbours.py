"""Where the neighbours of every number of a pyramid lie, when all its numbers stand in one vector.

A fit sees all numbers at once, so that the three passes of a decoder are three lists of places here. The rules are
those of `tilestream.kernels.pyramid_context`: what lies beyond an edge is that on the other side of the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tilestream.codecs.pyramid.nets import PASSES, grid_shapes
from tilestream.types import Shape

Indices = npt.NDArray[np.int64]
_AROUND = (
    (),
    ((-1, -1), (-1, 1), (1, -1), (1, 1)),
    ((-1, 0), (1, 0), (0, -1), (0, 1)),
)  # fmt: skip
"""Rows and columns from a place to its known neighbours in the same grid, for each pass."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """All places of a pyramid, by the network that serves them."""

    networks: tuple[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]], ...]
    """Of each network: `(9, n)` indices of the inputs of its places, into the numbers of all grids (finest first) and
    one zero, and `(n,)` indices of the places themselves."""

    @classmethod
    def of(cls, shape: Shape, scales: int, table: Sequence[Sequence[int]]) -> Neighbours:
        """Return the neighbours of every place.

        Parameters
        ----------
        shape : Shape
            Of the finest grid.
        scales : int
            How many grids.
        table : sequence of sequence of int
            `(scales, 3)`: which network serves a grid and pass.

        Returns
        -------
        Neighbours
            The same object for the same arguments.
        """
        return _neighbours(shape, scales, tuple(tuple(map(int, row)) for row in table))


@lru_cache(maxsize=4)
def _neighbours(shape: Shape, scales: int, table: tuple[tuple[int, ...], ...]) -> Neighbours:
    shapes = grid_shapes(shape, scales)
    starts = [0, *np.cumsum([one.y * one.x for one in shapes]).tolist()]
    found: list[tuple[Indices, Indices, int]] = []
    for grid in range(scales):
        rows, columns = (axis.ravel() for axis in np.indices(shapes[grid].yx))
        kinds = np.where(rows % 2 != columns % 2, 2, rows % 2)
        for turn in range(PASSES):
            y, x = rows[kinds == turn], columns[kinds == turn]
            around = [_beside(y, x, by, shapes[grid], (starts[grid], starts[-1])) for by in _AROUND[turn]]
            around += [np.full(len(y), starts[-1])] * (4 - len(around))
            around += _coarser(y, x, grid, shapes, starts)
            found.append((np.stack(around), starts[grid] + y * shapes[grid].x + x, table[grid][turn]))
    networks = []
    for net in range(max(max(row) for row in table) + 1):
        mine = [part for part in found if part[2] == net]
        inputs = np.concatenate([part[0] for part in mine], axis=1, dtype=np.int32)
        networks.append((inputs, np.concatenate([part[1] for part in mine], dtype=np.int32)))
    return Neighbours(networks=tuple(networks))


def _beside(y: Indices, x: Indices, by: tuple[int, int], shape: Shape, known: tuple[int, int]) -> Indices:
    """Return indices of places at a distance, mirrored where that is outside; of the zero where there is none.

    `known` is where the grid starts, and where the zero is.
    """
    moved, there = [], np.ones(y.shape, bool)
    for place, step, size in zip((y, x), by, shape.yx, strict=True):
        at = np.where((place + step < 0) | (place + step >= size), place - step, place + step)
        there &= (at >= 0) & (at < size)
        moved.append(at)
    return np.where(there, known[0] + moved[0] * shape.x + moved[1], known[1])


def _coarser(y: Indices, x: Indices, grid: int, shapes: Sequence[Shape], starts: Sequence[int]) -> list[Indices]:
    """Return indices of a parent, of the three beside it on the near side, and of the parent's parent."""
    nothing = np.full(len(y), starts[-1])
    found = [nothing] * 4
    if grid + 1 < len(shapes):
        shape, start = shapes[grid + 1], starts[grid + 1]
        beside_y, beside_x = (
            np.clip((place >> 1) + np.where(place & 1, 1, -1), 0, size - 1)
            for place, size in zip((y, x), shape.yx, strict=True)
        )
        pairs = ((y >> 1, x >> 1), (beside_y, x >> 1), (y >> 1, beside_x), (beside_y, beside_x))
        found = [start + row * shape.x + column for row, column in pairs]
    last = starts[grid + 2] + (y >> 2) * shapes[grid + 2].x + (x >> 2) if grid + 2 < len(shapes) else nothing
    return [*found, last]
