"""How much relevance lies in each square of a grid: areas of score cells, exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy

from tilestream.errors import ConfigError
from tilestream.grid import TileGrid
from tilestream.relevance.regrid import ends_of, shared_lengths
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
    A square takes of each row of cells what it covers of it, and of each column: two sparse products of lengths, with
    neither an error of sampling nor differences of large sums.
    """
    values = np.where(scores.valid, scores.values, np.float32(0))
    if values.size and values.min() < 0:
        raise ConfigError.of(
            f"scores of `{scores.name}`",
            got=f"{values.min():g} at least",
            expected="at least 0, since a plan weighs areas with them",
            do="Put the term into a `Relevance`, which maps scores to 0 … 1.",
        )
    along_y = _lengths(scores, level, grid, axis=0) @ values
    return np.asarray((_lengths(scores, level, grid, axis=1) @ along_y.T).T)


def _lengths(scores: ScoreMap, level: PlanLevel, grid: TileGrid, *, axis: int) -> scipy.sparse.csr_array:
    """Return how much of each cell lies in each square along an axis, `(squares, cells)` in edges of a square."""
    length_px, scale = scores.shape.yx[axis], level.scale_yx[axis]
    cells = ends_of(scores.values.shape[axis], scores.cell_yx[axis], length_px)
    squares = ends_of(grid.shape.yx[axis], grid.tile_px * scale, length_px)
    return scipy.sparse.csr_array(shared_lengths(cells, squares) / (grid.tile_px * scale))
