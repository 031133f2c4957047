"""What a unit reads of the stored pixels: where its tiles lie, what is asked for ahead, which blocks it keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Box, PlanLevel, SuperTile

OWN_BLOCKS = 4
"""Blocks along both edges of a reduced tile from which on it keeps none for the next: nearly all are its own, and those
of a whole row of such tiles can be the whole image."""
SPARSE = 0.5
"""Share of the area between its outermost tiles that a unit wants, below which its tiles are asked for one by one."""


def area_of(unit: SuperTile, tile_yx: npt.NDArray[np.int64]) -> Box:
    """Return the stored pixels between the outermost of a unit's tiles, halos left out."""
    (ratio_y, ratio_x) = unit.level.ratio_yx
    low, high = tile_yx.min(axis=0), tile_yx.max(axis=0) + unit.tile_px
    y, x = math.ceil(int(low[0]) * ratio_y), math.ceil(int(low[1]) * ratio_x)
    return Box(
        level=unit.level.stored,
        y=y,
        x=x,
        height=max(0, math.floor(int(high[0]) * ratio_y) - y),
        width=max(0, math.floor(int(high[1]) * ratio_x) - x),
    )


def area_of_listed(unit: SuperTile, stored_yx: npt.NDArray[np.int64]) -> Box:
    """Return the stored pixels between the outermost of tiles that lie off the grid, halos left out."""
    (y, x), (y_last, x_last) = stored_yx.min(axis=0).tolist(), stored_yx.max(axis=0).tolist()
    height, width = (math.floor(unit.tile_px * ratio) for ratio in unit.level.ratio_yx)
    return Box(level=unit.level.stored, y=y, x=x, height=y_last + height - y, width=x_last + width - x)


def grown(area: Box, unit: SuperTile) -> Box:
    """Return the stored pixels that the tiles of a unit need, halos included."""
    part_px = 0 if unit.level.is_stored else 1  # a resampled pixel at the edge may cover a part of one more
    more_y, more_x = (math.ceil(unit.halo_px * ratio) + part_px for ratio in unit.level.ratio_yx)
    return Box(
        level=area.level,
        y=area.y - more_y,
        x=area.x - more_x,
        height=area.height + 2 * more_y,
        width=area.width + 2 * more_x,
    )


def boxes_to_warm(unit: SuperTile, area: Box, tile_yx: npt.NDArray[np.int64]) -> Iterator[Box]:
    """Yield what a unit reads, halos left out: all between its tiles, or runs of them where that is little.

    Parameters
    ----------
    unit : SuperTile
        The unit.
    area : Box
        What lies between the outermost of its tiles, stored pixels.
    tile_yx : ndarray of int64
        `(n, 2)` those of its tiles that are read, in row order.

    Yields
    ------
    Box
        In stored pixels.
    """
    (ratio_y, ratio_x) = unit.level.ratio_yx
    wanted = len(tile_yx) * unit.tile_px**2 * float(ratio_y * ratio_x)
    if unit.corner_yx is not None or wanted >= SPARSE * area.shape.area:
        yield area
        return
    follows = (np.diff(tile_yx[:, 0]) == 0) & (np.diff(tile_yx[:, 1]) == unit.tile_px)
    for run in np.split(tile_yx, np.flatnonzero(~follows) + 1):
        yield area_of(unit, run)


def band_bytes(pyramid: Pyramid, level: PlanLevel, *, edge_px: int, width_px: int) -> int:
    """Return the bytes of the decoded blocks that a unit keeps for its next tiles.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    level : PlanLevel
        Resolution of the tiles.
    edge_px : int
        Edge of a tile with its halo, plan pixels.
    width_px : int
        Width of the unit, stored pixels.

    Returns
    -------
    int
        The rows of blocks that the next row of tiles touches again. 0 where a tile is reduced from so many blocks that
        nearly all of them are its own.
    """
    stored, sample = pyramid.levels[level.stored], len(pyramid.channels) * pyramid.dtype.itemsize
    high, wide = (math.ceil(edge_px * ratio) for ratio in level.ratio_yx)
    if high >= OWN_BLOCKS * stored.block.y and wide >= OWN_BLOCKS * stored.block.x and not level.is_stored:
        return 0
    rows = min(stored.blocks.y, math.ceil(high / stored.block.y) + 1)
    columns = min(stored.blocks.x, math.ceil(width_px / stored.block.x) + 1)
    return rows * columns * stored.block.area * (sample + 1)
