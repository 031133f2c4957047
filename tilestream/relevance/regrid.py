"""Score maps on another grid, by the area that old and new cells share."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy

from tilestream.types import ScoreMap, cells_of

Ends: TypeAlias = npt.NDArray[np.float64]


def regrid(scores: ScoreMap, cell_yx: tuple[float, float]) -> ScoreMap:
    """Return a score map in cells of another size.

    Parameters
    ----------
    scores : ScoreMap
        The map.
    cell_yx : tuple of float
        Edges of the new cells in pixels of level 0.

    Returns
    -------
    ScoreMap
        The mean of the valid old cells under each new one, weighted by area; valid where there is any. The same map
        where the cells are the same.
    """
    if cell_yx == scores.cell_yx:
        return scores
    across = cells_of(scores.shape, cell_yx)
    y, x = (
        shared_lengths(ends_of(n, old, edge), ends_of(m, new, edge))
        for edge, old, new, n, m in zip(
            scores.shape.yx, scores.cell_yx, cell_yx, scores.values.shape, across.yx, strict=True
        )
    )
    weight = y @ scores.valid.astype(np.float64) @ x.T
    total = y @ np.where(scores.valid, scores.values, 0).astype(np.float64) @ x.T
    # rounding of sums of areas can leave a few 1e-16 where there is nothing
    valid = weight > 1e-9 * np.asarray(y.sum(axis=1)).reshape(-1, 1) * np.asarray(x.sum(axis=1)).reshape(1, -1)
    values = np.divide(total, weight, out=np.zeros_like(total), where=valid)
    if scores.valid.any():
        known = scores.values[scores.valid]
        values = np.where(valid, values.clip(known.min(), known.max()), 0)
    return replace(scores, values=values.astype(np.float32), valid=valid, cell_yx=cell_yx)


def ends_of(count: int, cell_px: float, edge_px: float) -> Ends:
    """Return where the cells of a line end, `(count,)`; the last one where the image does.

    Parameters
    ----------
    count : int
        Cells.
    cell_px : float
        Edge of a cell, pixels of level 0.
    edge_px : float
        Length of the image.

    Returns
    -------
    ndarray of float64
        A last cell of rounding alone has no length.
    """
    ends: Ends = np.minimum(np.arange(1, count + 1) * cell_px, edge_px)
    ends[-1] = edge_px
    return ends


def shared_lengths(old_ends: Ends, new_ends: Ends) -> scipy.sparse.csr_array:
    """Return `(new, old)`, the length that each cell of one division of a line shares with each of another.

    Parameters
    ----------
    old_ends, new_ends : ndarray of float64
        Where cells end, from `ends_of`; both begin at 0 and end where the line does.

    Returns
    -------
    csr_array of float64
        Pixels of level 0.
    """
    ends = np.union1d(old_ends, new_ends)
    starts = np.concatenate([[0.0], ends[:-1]])
    middle = (starts + ends) / 2
    rows = np.minimum(np.searchsorted(new_ends, middle), len(new_ends) - 1)
    columns = np.minimum(np.searchsorted(old_ends, middle), len(old_ends) - 1)
    return scipy.sparse.csr_array((ends - starts, (rows, columns)), shape=(len(new_ends), len(old_ends)))
