"""How the bands of a scene lie on one grid: which band gives it, and which level of another serves which of its levels.

Grids are compared by their affine, rotation included, or by their ground control points. A band fits when it begins in
the same corner and its pixel is a whole number of the grid's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tilestream.types import ImageInfo, Level

MOST_TERM = 1024
"""Largest denominator of a ratio; the far edge of a level drifts by less than a pixel then."""
NEAR_PX = 0.01
"""How far two corners may lie apart, pixels of the grid."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a level of a band serves a level of the grid."""

    level: int
    """The band's own level."""
    factor: int = 1
    """Pixels of the grid along one pixel of the band: it is repeated."""
    ratio_yx: tuple[Fraction, Fraction] | None = None
    """Pixels of the band along one pixel of the grid where they are reduced; None where they are repeated."""


def is_placed(info: ImageInfo) -> bool:
    """Return whether an image is one band with a place."""
    return len(info.channels) == 1 and (info.affine is not None or len(info.gcps) > 0)


def step_of(info: ImageInfo) -> float:
    """Return the width of a pixel of level 0 in units of the CRS; 1 where only control points give the place."""
    return 1.0 if info.affine is None else math.hypot(info.affine[0], info.affine[3])


def choose_grid(infos: list[ImageInfo]) -> ImageInfo:
    """Return the image whose grid most of the others fit on, the finest of those.

    Parameters
    ----------
    infos : list of ImageInfo
        The bands.

    Returns
    -------
    ImageInfo
        One of them. The panchromatic band of Landsat is finer than the rest, begins half a pixel off, and is alone.
    """
    return max(infos, key=lambda own: (sum(_fits(other, own) for other in infos), -step_of(own)))


def shared_levels(grid: ImageInfo, infos: list[ImageInfo]) -> tuple[Level, ...]:
    """Return the levels of the grid that all bands which fit on it can serve.

    Parameters
    ----------
    grid : ImageInfo
        What `choose_grid` returned.
    infos : list of ImageInfo
        The bands.

    Returns
    -------
    tuple of Level
        Level 0 and others, numbered anew.
    """
    fit = [info for info in infos if _fits(info, grid)]
    kept = [target for target in grid.levels if all(_step_at(info, grid, target) for info in fit)]
    return tuple(
        Level(index=number, shape=level.shape, block=level.block, scale_yx=level.scale_yx)
        for number, level in enumerate(kept)
    )


def steps_on(info: ImageInfo, grid: ImageInfo, levels: tuple[Level, ...], *, reduce: bool = False) -> tuple[Step, ...]:
    """Return which level of a band serves each level of the grid; empty when it does not lie on it.

    Parameters
    ----------
    info : ImageInfo
        The band.
    grid : ImageInfo
        The grid.
    levels : tuple of Level
        Levels of the grid that are offered.
    reduce : bool
        Whether a level that the band does not have may be made from a finer one.

    Returns
    -------
    tuple of Step
        As many as there are levels.
    """
    if not is_same_place(info, grid):
        return ()
    steps = []
    for target in levels:
        step = _step_at(info, grid, target) or (_reduced(info, target) if reduce and _covers(info, grid) else None)
        if step is None:
            return ()
        steps.append(step)
    return tuple(steps)


def is_same_place(info: ImageInfo, grid: ImageInfo) -> bool:
    """Return whether a band has the grid's corner, direction and CRS."""
    if info.crs != grid.crs or (info.affine is None) != (grid.affine is None):
        return False
    if info.affine is None or grid.affine is None:
        return info.shape == grid.shape and info.gcps == grid.gcps
    own, other = np.array(info.affine), np.array(grid.affine)
    ratio, pixel = step_of(info) / step_of(grid), step_of(grid)
    is_aligned = np.abs(own[[0, 1, 3, 4]] - ratio * other[[0, 1, 3, 4]]).max() * max(info.shape.yx) < pixel / 2
    return bool(is_aligned and np.abs(own[[2, 5]] - other[[2, 5]]).max() <= NEAR_PX * pixel)


def _fits(info: ImageInfo, grid: ImageInfo) -> bool:
    return is_same_place(info, grid) and _step_at(info, grid, grid.levels[0]) is not None


def _covers(info: ImageInfo, grid: ImageInfo) -> bool:
    """Return whether a band ends where the grid does, to a pixel of the coarser one."""
    own, other = step_of(info), step_of(grid)
    lengths = zip(info.shape.yx, grid.shape.yx, strict=True)
    return all(abs(mine * own - theirs * other) < max(own, other) for mine, theirs in lengths)


def _step_at(info: ImageInfo, grid: ImageInfo, target: Level) -> Step | None:
    """Return the finest level of a band whose pixels are whole numbers of a level's."""
    for level in info.levels:
        factor = _whole(step_of(info) * level.scale_yx[1], step_of(grid) * target.scale_yx[1], level, target)
        if factor is not None:
            return Step(level=level.index, factor=factor)
    return None


def _reduced(info: ImageInfo, target: Level) -> Step:
    """Return the coarsest level of a band that is finer than a level, both stretched over the same area."""
    finer = [level for level in info.levels if level.shape.y >= target.shape.y and level.shape.x >= target.shape.x]
    level = finer[-1] if finer else info.levels[0]
    ratios = [
        Fraction(own, wanted).limit_denominator(MOST_TERM)
        for own, wanted in zip(level.shape.yx, target.shape.yx, strict=True)
    ]
    return Step(level=level.index, ratio_yx=(ratios[0], ratios[1]))


def _whole(coarse_step: float, fine_step: float, coarse: Level, fine: Level) -> int | None:
    """Return how many fine pixels one coarse one covers, None unless a whole number that covers the fine level."""
    factor = round(coarse_step / fine_step)
    # overviews are stretched over the whole band, which shifts their far edge by less than a pixel
    is_whole = factor >= 1 and abs(coarse_step / fine_step - factor) * max(coarse.shape.yx) < 1
    covers = all(s * factor >= t > (s - 1) * factor for s, t in zip(coarse.shape.yx, fine.shape.yx, strict=True))
    return factor if is_whole and covers else None
