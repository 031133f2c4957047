"""Small pictures of large boxes, in bounded memory."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.resample import resample
from tilestream.types import Box, Level, PlanLevel, Region, Shape

if TYPE_CHECKING:
    from tilestream.pyramid.pyramid import Pyramid

STRIP_PX = 1 << 24
"""Stored pixels held at a time while a picture is reduced."""


def crop(pyramid: Pyramid, box: Box, out_px: int) -> Region:
    """Return a box reduced so that its longest edge is at most `out_px`; see `Pyramid.crop`.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    box : Box
        What to show, in pixels of its level.
    out_px : int
        Longest edge of the result, px.

    Returns
    -------
    Region
        Pixels `(c, y, x)`, validity, and the reason of each damaged block.
    """
    if out_px < 1 or not box.height or not box.width:
        raise ConfigError.of(
            "`crop`",
            got=f"out_px={out_px}, box {box.height} x {box.width}",
            expected="at least one pixel of each",
            do="Give a larger box or size.",
        )
    return _reduce(pyramid, *view_of(pyramid.levels, box, out_px))


def view_of(levels: tuple[Level, ...], box: Box, out_px: int) -> tuple[PlanLevel, Box]:
    """Return how a box is reduced so that its longest edge is at most `out_px`.

    Parameters
    ----------
    levels : tuple of Level
        The image's levels.
    box : Box
        What to show, in pixels of its level.
    out_px : int
        Longest edge of the result, px.

    Returns
    -------
    view : PlanLevel
        The level that is read, the ratio, and the size of the result. Its first pixel begins where the box does.
    inside : Box
        The box in stored pixels of that level.
    """
    stored = _level_for(levels, box, out_px)
    inside = _on_level(box, levels[box.level], stored)
    ratio = max(Fraction(max(inside.height, inside.width), out_px), Fraction(1))
    shape = Shape(y=max(1, -int(-inside.height // ratio)), x=max(1, -int(-inside.width // ratio)))
    # Phase is measured from the level's origin everywhere else; a picture starts at its own box instead.
    return PlanLevel(stored=stored.index, ratio_yx=(ratio, ratio), shape=shape, scale_yx=stored.scale_yx), inside


def _level_for(levels: tuple[Level, ...], box: Box, out_px: int) -> Level:
    scale_y, scale_x = levels[box.level].scale_yx
    extent = max(box.height * scale_y, box.width * scale_x)
    fine = [level for level in levels if extent / max(level.scale_yx) >= out_px]
    return fine[-1] if fine else levels[0]


def _on_level(box: Box, given: Level, stored: Level) -> Box:
    if given.index == stored.index:
        return box
    factor_y, factor_x = (a / b for a, b in zip(given.scale_yx, stored.scale_yx, strict=True))
    y, x = int(box.y * factor_y), int(box.x * factor_x)
    return Box(
        level=stored.index,
        y=y,
        x=x,
        height=max(1, round(box.y_stop * factor_y) - y),
        width=max(1, round(box.x_stop * factor_x) - x),
    )


def _reduce(pyramid: Pyramid, view: PlanLevel, inside: Box) -> Region:
    pixels = np.zeros((*view.shape.yx, len(pyramid.channels)), pyramid.dtype)
    valid = np.zeros(view.shape.yx, np.bool_)
    damage: list[str] = []
    ratio = view.ratio_yx[0]
    rows = max(1, int(STRIP_PX // max(1, inside.width) // ratio))
    for first in range(0, view.shape.y, rows):
        last = min(first + rows, view.shape.y)
        top, bottom = int(first * ratio // 1), min(inside.height, -int(-(last * ratio) // 1))
        strip = Box(level=inside.level, y=inside.y + top, x=inside.x, height=bottom - top, width=inside.width)
        region = pyramid.read_region(strip)
        resample(
            region.pixels.transpose(1, 2, 0),
            region.valid,
            ratio_yx=view.ratio_yx,
            src_yx=(top, 0),
            dst_yx=(first, 0),
            out=pixels[first:last],
            out_valid=valid[first:last],
            kind=pyramid.kind,
            threads=1,
        )
        damage += [reason for reason in region.damage if reason not in damage]
    return Region(pixels=pixels.transpose(2, 0, 1), valid=valid, damage=tuple(damage))
