"""Plans of large tiles, of which those are wanted that hold a wanted tile of a finer plan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tilestream.errors import ConfigError
from tilestream.plan.tiles import TilePlan


def holding(regions: TilePlan, tiles: TilePlan) -> TilePlan:
    """Return a plan of whole regions, all those in which a tile is wanted, however little of the region that is.

    Parameters
    ----------
    regions : TilePlan
        Every region of an image.
    tiles : TilePlan
        Tiles at the same level, a whole number of which lie along a region.

    Returns
    -------
    TilePlan
        The regions, selected by what selected the tiles.

    Raises
    ------
    ConfigError
        When the plans are of different levels, or regions cut tiles.
    """
    outer, inner = regions.grid, tiles.grid
    if outer.step_px % inner.step_px or outer.origin_yx != inner.origin_yx or regions.level != tiles.level:
        raise ConfigError.of(
            "regions",
            got=f"{outer.step_px} px over tiles of {inner.step_px} px, levels {regions.level} and {tiles.level}",
            expected="whole tiles of one level",
            do="Choose a multiple of the tile.",
        )
    if tiles.wanted is None:
        return regions
    each = outer.step_px // inner.step_px
    at_y, at_x = (np.arange(0, count, each) for count in inner.shape.yx)
    wanted = np.logical_or.reduceat(np.logical_or.reduceat(tiles.wanted, at_y, axis=0), at_x, axis=1)
    return replace(regions, wanted=wanted, where=tiles.where, min_share=tiles.min_share, notes=tiles.notes)
