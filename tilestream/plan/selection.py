"""A selected part of an image as a coarse mask, and the share of it in each tile."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tilestream.grid import Ints, TileGrid
from tilestream.types import PlanLevel, Shape

MIN_SHARE = 0.1
"""Share of a core that makes its tile wanted, unless the caller says otherwise."""
_COLUMNS = 256
"""Tile columns measured at a time; bounds the working memory at `mask rows x 256` float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """Which part of an image is wanted, as squares of a coarse grid."""

    name: str
    """What made it (`tissue`, `valid`, `mask`, `outline`) with the version of its rules."""
    mask: npt.NDArray[np.bool_]
    """`(y, x)`, True where wanted."""
    scale_yx: tuple[float, float]
    """Level-0 pixels per mask pixel."""
    area: Shape
    """Size of level 0; the last mask pixels may reach beyond it and count only inside."""
    notes: tuple[str, ...] = ()
    """What a user should know: how the light was judged, rings repaired, damaged blocks."""

    @property
    def digest(self) -> str:
        """Return the hex digest of name, mask and scale."""
        digest = blake2b(f"{self.name} {self.mask.shape} {self.scale_yx}".encode(), digest_size=16)
        digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()

    @property
    def selected_share(self) -> float:
        """Return the share of the image that is selected."""
        whole = TileGrid(area=self.area, tile_px=max(self.area.yx), step_px=max(self.area.yx))
        level = PlanLevel(stored=0, shape=self.area, scale_yx=(1.0, 1.0))
        return float(tile_shares(self, level, whole)[0, 0])


def tile_shares(selection: Selection, level: PlanLevel, grid: TileGrid) -> npt.NDArray[np.float32]:
    """Return the share of each core's part inside the image that is selected, measured exactly from areas.

    Parameters
    ----------
    selection : Selection
        What is wanted.
    level : PlanLevel
        Resolution of the tiles.
    grid : TileGrid
        The tiles.

    Returns
    -------
    ndarray of float32
        `(y, x)` over all tiles of the grid, 0 to 1. What a core holds outside the image does not count: a sliver at the
        edge that is all tissue has share 1, and how little of it there is shows in its share of valid pixels.

    Notes
    -----
    The running sum of the mask is piecewise linear between pixel edges, so that interpolating it at the edges of a
    core gives the covered length without error; once along each axis. Sums are float64 of integers, in a fixed order.
    """
    shape = grid.shape
    out = np.zeros(shape.yx, np.float32)
    if not shape.area:
        return out
    low_y, high_y = _edges(grid.starts_y(), grid.tile_px, level.scale_yx[0], selection.scale_yx[0], selection.area.y)
    rows = selection.mask.shape[0]
    sums_x = np.zeros((rows, selection.mask.shape[1] + 1), np.int32)
    np.cumsum(selection.mask, axis=1, out=sums_x[:, 1:])
    for first in range(0, shape.x, _COLUMNS):
        last = min(first + _COLUMNS, shape.x)
        starts = grid.starts_x(first, last)
        low_x, high_x = _edges(starts, grid.tile_px, level.scale_yx[1], selection.scale_yx[1], selection.area.x)
        sums_y = np.zeros((rows + 1, last - first))
        np.cumsum(_at(sums_x.T, high_x).T - _at(sums_x.T, low_x).T, axis=0, out=sums_y[1:])
        covered = _at(sums_y, high_y) - _at(sums_y, low_y)
        inside = np.outer(high_y - low_y, high_x - low_x)
        out[:, first:last] = np.clip(covered / np.maximum(inside, np.finfo(np.float64).tiny), 0, 1)
    return out


def _edges(
    starts: Ints, tile_px: int, own: float, mask: float, length_px: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return where cores begin and end inside the image, in mask pixels."""
    return np.clip(starts * own, 0, length_px) / mask, np.clip((starts + tile_px) * own, 0, length_px) / mask


def _at(
    sums: npt.NDArray[np.int32] | npt.NDArray[np.float64], edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return rows of running sums at fractional positions."""
    edges = np.minimum(edges, sums.shape[0] - 1)
    below = np.minimum(edges.astype(np.int64), sums.shape[0] - 2)
    part = (edges - below)[:, None]
    return np.asarray(sums[below] * (1 - part) + sums[below + 1] * part, np.float64)
