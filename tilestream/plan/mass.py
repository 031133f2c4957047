"""How much relevance lies in each square of a grid: areas of score cells, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.grid import Ints, TileGrid
from tilestream.types import PlanLevel, ScoreMap

Mass = npt.NDArray[np.float64]


def area_shares(level: PlanLevel, grid: TileGrid) -> Mass:
    """Return the share of each square that lies in the image.

    Parameters
    ----------
    level : PlanLevel
        Resolution of the squares.
    grid : TileGrid
        The squares.

    Returns
    -------
    ndarray of float64
        `(y, x)`.
    """
    inside_y = np.minimum(grid.tile_px, level.shape.y - grid.starts_y()) / grid.tile_px
    inside_x = np.minimum(grid.tile_px, level.shape.x - grid.starts_x()) / grid.tile_px
    return np.outer(inside_y, inside_x)


def score_mass(scores: ScoreMap, level: PlanLevel, grid: TileGrid) -> Mass:
    """Return the sum over each square of score × area, in squares; cells that are not valid count 0.

    Parameters
    ----------
    scores : ScoreMap
        Scores of at least 0.
    level : PlanLevel
        Resolution of the squares.
    grid : TileGrid
        The squares.

    Returns
    -------
    ndarray of float64
        `(y, x)`: the mean score of a square of which nothing is known outside the image and on invalid cells.

    Raises
    ------
    ConfigError
        When a valid score is negative.

    Notes
    -----
    Running sums of a map are piecewise linear between the edges of cells, so that their differences at the edges of
    squares are areas without an error of sampling; once along each axis.
    """
    values = np.where(scores.valid, scores.values, np.float32(0)).astype(np.float64)
    if values.size and values.min() < 0:
        raise ConfigError.of(
            f"scores of `{scores.name}`",
            got=f"{values.min():g} at least",
            expected="at least 0, since a plan weighs areas with them",
            do="Put the term into a `Relevance`, which maps scores to 0 … 1.",
        )
    along_y = _integrals(values, grid.starts_y(), _Axis(scores, level, grid, 0))
    along_x = _integrals(along_y.T, grid.starts_x(), _Axis(scores, level, grid, 1)).T
    return np.maximum(along_x, 0.0)


class _Axis:
    """One axis of a map and of a grid, in pixels of level 0."""

    def __init__(self, scores: ScoreMap, level: PlanLevel, grid: TileGrid, axis: int) -> None:
        self.cell_px = scores.cell_yx[axis]
        self.scale = level.scale_yx[axis]
        self.square_px = grid.tile_px * level.scale_yx[axis]
        self.length_px = scores.shape.yx[axis]


def _integrals(values: Mass, starts: Ints, axis: _Axis) -> Mass:
    """Return the integral of each column of cells over each square along the first axis, in squares."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    low = np.clip(starts * axis.scale, 0, axis.length_px) / axis.cell_px
    high = np.clip(starts * axis.scale + axis.square_px, 0, axis.length_px) / axis.cell_px
    return (_at(sums, high) - _at(sums, low)) * (axis.cell_px / axis.square_px)


def _at(sums: Mass, edges: npt.NDArray[np.float64]) -> Mass:
    """Return rows of running sums at fractional positions; between equal ones exactly their value."""
    edges = np.minimum(edges, sums.shape[0] - 1)
    below = np.minimum(edges.astype(np.int64), sums.shape[0] - 2)
    part = (edges - below)[:, None]
    return np.asarray(sums[below] + (sums[below + 1] - sums[below]) * part)
