"""Integer geometry of tiles and super-tiles: positions, counts and the order of a Hilbert curve."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.types import Shape

Edge: TypeAlias = Literal["cover", "shift", "drop"]
Ints: TypeAlias = npt.NDArray[np.int64]

EDGES: tuple[Edge, ...] = ("cover", "shift", "drop")
"""What happens at the far edges: reach outside, move the last tile back inside, leave it out."""
SUPER_TILE_PX = 4096
"""Edge of a super-tile unless something asks for another; every default tile and region edge divides it."""


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """The tiles of one level; their cores partition it when the step is the tile and the edge policy `cover`."""

    area: Shape
    """Size of the level, px."""
    tile_px: int
    """Edge of a core."""
    step_px: int
    """Distance between the corners of neighbours."""
    halo_px: int = 0
    """Overlap around a core."""
    edge: Edge = "cover"
    """What happens at the far edges."""
    origin_yx: tuple[int, int] = (0, 0)
    """Corner of the first tile, px; at most 0, below it when the grid is aligned to something else."""

    def __post_init__(self) -> None:
        if self.tile_px < 1 or self.step_px < 1 or self.halo_px < 0:
            raise ConfigError.of(
                "`tile_px`, `step_px`, `halo_px`",
                got=f"{self.tile_px}, {self.step_px}, {self.halo_px}",
                expected="a tile and a step of at least 1 px and a halo of at least 0",
                do="Correct the number.",
            )
        if self.edge not in EDGES:
            raise ConfigError.of("`edge`", got=repr(self.edge), expected=f"one of {list(EDGES)}", do="Choose one.")

    @property
    def shape(self) -> Shape:
        """Return the number of tiles along each axis."""
        return Shape(y=self._count(self.area.y, self.origin_yx[0]), x=self._count(self.area.x, self.origin_yx[1]))

    def starts_y(self, first: int = 0, last: int | None = None) -> Ints:
        """Return the first pixel row of tile rows `first` to `last`, `(n,)` int64."""
        return self._starts(self.area.y, self.origin_yx[0], slice(first, self.shape.y if last is None else last))

    def starts_x(self, first: int = 0, last: int | None = None) -> Ints:
        """Return the first pixel column of tile columns `first` to `last`, `(n,)` int64."""
        return self._starts(self.area.x, self.origin_yx[1], slice(first, self.shape.x if last is None else last))

    def _count(self, length_px: int, origin_px: int) -> int:
        span = length_px - origin_px
        if self.edge == "drop":
            return max(0, (span - self.tile_px) // self.step_px + 1)
        # The second bound matters where steps leave gaps: no tile may begin outside the image.
        covering = max(0, -(-(span - self.tile_px) // self.step_px)) + 1
        return min(covering, -(-span // self.step_px))

    def _starts(self, length_px: int, origin_px: int, part: slice) -> Ints:
        starts = origin_px + self.step_px * np.arange(part.start, part.stop, dtype=np.int64)
        if self.edge == "shift":
            starts = np.minimum(starts, max(0, length_px - self.tile_px))
        return starts


def super_tile_edge(step_px: int, *, region_px: int = 1, super_tile_px: int | None = None) -> int:
    """Return the edge of a super-tile, a common multiple of the step and the region edge.

    Parameters
    ----------
    step_px : int
        Distance between tiles, px.
    region_px : int
        Edge of the stage chain's regions or of an output shard, px.
    super_tile_px : int, optional
        The edge that a user asks for; without it the largest common multiple of at most 4096, or the smallest above.

    Returns
    -------
    int
        Edge, px.

    Raises
    ------
    ConfigError
        When the edge asked for is not a common multiple; the message names the next one.
    """
    if step_px < 1 or region_px < 1:
        raise ConfigError.of(
            "`step_px`, `region_px`", got=f"{step_px}, {region_px}", expected="at least 1 px", do="Correct the number."
        )
    unit = lcm(step_px, region_px)
    if super_tile_px is None:
        return max(SUPER_TILE_PX // unit, 1) * unit
    if super_tile_px < 1 or super_tile_px % unit:
        raise ConfigError.of(
            "`super_tile_px` (`--super-tile`)",
            got=f"{super_tile_px} px",
            expected=f"a multiple of {unit} px (step {step_px} px, region {region_px} px)",
            do=f"Give {max(1, round(super_tile_px / unit)) * unit}, or leave it out.",
        )
    return super_tile_px


def hilbert_index(y: Ints, x: Ints, *, order: int) -> Ints:
    """Return the position of cells along the Hilbert curve of a square of 2**order cells.

    Parameters
    ----------
    y, x : ndarray of int64
        Cells, each in `[0, 2**order)`.
    order : int
        Number of bits of a coordinate, at most 31.

    Returns
    -------
    ndarray of int64
        Distance along the curve, of the shape of `y`.

    References
    ----------
    J. Skilling, Programming the Hilbert curve, AIP Conf. Proc. 707, 381 (2004), doi:10.1063/1.1751381; the
    two-dimensional case, written as quadrant, reflection and transposition.
    """
    y, x = y.astype(np.int64), x.astype(np.int64)
    distance = np.zeros_like(y)
    for bit in range(order - 1, -1, -1):
        right, lower = (x >> bit) & 1, (y >> bit) & 1
        distance += ((3 * right) ^ lower) << (2 * bit)
        mask = (1 << bit) - 1
        x, y = x & mask, y & mask
        turn = lower == 0
        flip = turn & (right == 1)
        x, y = np.where(flip, mask - x, x), np.where(flip, mask - y, y)
        x, y = np.where(turn, y, x), np.where(turn, x, y)
    return distance


def hilbert_order(shape: Shape) -> Ints:
    """Return all cells of a grid in the order of a Hilbert curve, so that neighbours in time are neighbours in space.

    Parameters
    ----------
    shape : Shape
        Rows and columns, any numbers; the curve of the enclosing square is used and cells outside are skipped.

    Returns
    -------
    ndarray of int64
        `(n, 2)` rows and columns, each cell once.
    """
    y, x = (axis.ravel() for axis in np.indices(shape.yx, dtype=np.int64))
    order = max(1, int(max(*shape.yx, 1) - 1).bit_length())
    rank = np.argsort(hilbert_index(y, x, order=order), kind="stable")
    return np.stack([y[rank], x[rank]], axis=1)
