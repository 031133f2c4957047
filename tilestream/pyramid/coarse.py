"""A whole image at a coarse resolution, read in windows of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt

from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Array, Box, ImageInfo, Level, PlanLevel, Shape

MASK_UM = 8.0
"""Edge of a mask pixel on images of known resolution: about the size of one nucleus."""
LONG_EDGE_PX = 2048
"""Long edge of the mask where the resolution is unknown or the image is no slide."""
MASK_PX = 1 << 22
"""Most pixels of a mask, so that planning stays below what streaming takes; larger images get a coarser one."""
PICTURE_BYTES = 64 << 20
"""Most bytes of the coarse picture; images of many channels get a coarser one."""
WINDOW_BYTES = 16 << 20
"""Bytes of stored pixels that one window reads, or one block where that is larger."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Coarse:
    """A whole image, small."""

    level: PlanLevel
    """Resolution."""
    pixels: Array | None
    """`(y, x, c)`; None when only validity was asked for."""
    valid: npt.NDArray[np.bool_]
    """`(y, x)`, False where nothing was measured."""
    damaged: npt.NDArray[np.bool_]
    """`(y, x)`, True where nothing is known because a block could not be decoded."""
    damage: tuple[str, ...]
    """Reasons."""


def mask_level(info: ImageInfo, *, mpp: float | None = None) -> PlanLevel:
    """Return the resolution at which an image is looked at as a whole; a function of its header alone.

    Parameters
    ----------
    info : ImageInfo
        The image.
    mpp : float, optional
        Micrometres per pixel of level 0 that the user states.

    Returns
    -------
    PlanLevel
        A stored level reduced by a whole number: mask pixels of at most 8 um on slides, a long edge of at least 2048
        px otherwise, coarser where that would be more than 4 million pixels or 64 MB, never finer than level 0.
    """
    known = info.mpp if mpp is None else mpp
    slide = known is not None and info.crs is None
    wanted = MASK_UM / known if slide and known else max(info.shape.yx) / LONG_EDGE_PX
    most = min(MASK_PX, PICTURE_BYTES // max(1, len(info.channels) * info.dtype.itemsize))
    least = sqrt(info.shape.area / most)
    level = _coarsest(info.levels, max(wanted, least))
    own = max(level.scale_yx)
    ratio = max(1, int(wanted * 1.001 / own), ceil(least / own))
    shape = Shape(y=-(-level.shape.y // ratio), x=-(-level.shape.x // ratio))
    scale_yx = level.scale_yx[0] * ratio, level.scale_yx[1] * ratio
    return PlanLevel(stored=level.index, ratio_yx=(Fraction(ratio), Fraction(ratio)), shape=shape, scale_yx=scale_yx)


def read_coarse(pyr: Pyramid, level: PlanLevel, *, pixels: bool = True) -> Coarse:
    """Return an image at a coarse level.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    level : PlanLevel
        From `mask_level`.
    pixels : bool
        Whether to keep the pixels beside their validity.

    Returns
    -------
    Coarse
        Picture, validity and damage.
    """
    stored = pyr.levels[level.stored]
    picture = np.zeros((*level.shape.yx, len(pyr.channels)), pyr.dtype) if pixels else None
    valid = np.ones(level.shape.yx, np.bool_)
    damaged = np.zeros(level.shape.yx, np.bool_)
    damage: dict[str, None] = {}
    for box in windows(level, stored, pixel_bytes=len(pyr.channels) * pyr.dtype.itemsize):
        part = np.empty((box.height, box.width, len(pyr.channels)), pyr.dtype)
        reasons = pyr.read_plan(level, box, part, valid[box.slices_yx]).damage
        if picture is not None:
            picture[box.slices_yx] = part
        if reasons:
            # Which of the missing pixels the damage hides cannot be told; those that merely hold nothing come out as
            # empty tiles later, while a damaged one left out here would vanish without a status.
            damaged[box.slices_yx] = ~valid[box.slices_yx]
            damage |= dict.fromkeys(reasons)
    return Coarse(level=level, pixels=picture, valid=valid, damaged=damaged, damage=tuple(damage))


def windows(level: PlanLevel, stored: Level, *, pixel_bytes: int) -> Iterator[Box]:
    """Yield boxes of a plan's level that cover it, along block edges where they can, so that few are decoded twice.

    Parameters
    ----------
    level : PlanLevel
        Resolution of the boxes.
    stored : Level
        What they are read from.
    pixel_bytes : int
        Bytes of a stored pixel.

    Yields
    ------
    Box
        In plan pixels.
    """
    ratio = ceil(max(level.ratio_yx))
    most_px = max(1, WINDOW_BYTES // max(1, pixel_bytes))
    edge = int(sqrt(most_px))
    wide = min(-(-edge // stored.block.x) * stored.block.x, -(-stored.shape.x // stored.block.x) * stored.block.x)
    high = max(1, most_px // wide // stored.block.y) * stored.block.y
    step_y, step_x = max(1, high // ratio), max(1, wide // ratio)
    for y in range(0, level.shape.y, step_y):
        for x in range(0, level.shape.x, step_x):
            height, width = min(step_y, level.shape.y - y), min(step_x, level.shape.x - x)
            yield Box(level=level.stored, y=y, x=x, height=height, width=width)


def _coarsest(levels: tuple[Level, ...], scale: float) -> Level:
    fine = [level for level in levels if max(level.scale_yx) <= scale * 1.05]
    return fine[-1] if fine else levels[0]
