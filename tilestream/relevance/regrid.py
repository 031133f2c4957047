"""Score maps on another grid, by the area that old and new cells share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from tilestream.types import ScoreMap, cells_of


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
        _shares(edge, old, new, n, m)
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


def _shares(edge: int, old: float, new: float, n: int, m: int) -> sparse.csr_array:
    """Return `(m, n)`, the length that each new cell shares with each old one, inside the image."""
    old_ends = np.minimum(np.arange(1, n + 1) * old, edge)
    new_ends = np.minimum(np.arange(1, m + 1) * new, edge)
    # a last cell of rounding alone has no length: as long as the image it takes what lies at its end
    old_ends[-1] = new_ends[-1] = edge
    ends = np.union1d(old_ends, new_ends)
    starts = np.concatenate([[0.0], ends[:-1]])
    middle = (starts + ends) / 2
    rows = np.minimum(np.searchsorted(new_ends, middle), m - 1)
    columns = np.minimum(np.searchsorted(old_ends, middle), n - 1)
    return sparse.csr_array((ends - starts, (rows, columns)), shape=(m, n))
