"""Small pictures of large boxes, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind
from tilestream.kernels.resample import resample
from tilestream.kernels.taps import MAX_TERM
from tilestream.pyramid.frame import Frame
from tilestream.types import Box, Level, PlanLevel, Region, Shape

if TYPE_CHECKING:
    from tilestream.pyramid.pyramid import Pyramid

STRIP_PX = 1 << 24
"""Stored pixels held at a time while a picture is reduced."""
REACH = 4
"""Most edges of a box in those of the image: a strip of a picture of more would not fit into memory."""
LEAST_REACH_PX = 4096
"""A box of this many level-0 pixels may be asked of any image, however small."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Crop(Region):
    """A box as a small picture, with what it was made from and where its pixels lie."""

    damaged: npt.NDArray[np.bool_]
    """`(y, x)`, True where nothing is known since a block under it cannot be decoded."""
    box: Box
    """What is shown, on level 0; the last row and column of the picture may reach out of it."""
    stored: int
    """Stored level that was read."""
    frame: Frame
    """From pixels of the picture to level 0 and back; its `scale_yx` is the true reduction."""
    mpp: float | None = None
    """Micrometres per pixel of the picture, None when unknown."""


def crop(pyramid: Pyramid, box: Box, out_px: int) -> Crop:
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
    Crop
        Pixels `(c, y, x)`, validity, damage, the level that was read and the place of every pixel.
    """
    require_box(box, pyramid.levels)
    if out_px < 1 or not box.height or not box.width:
        raise ConfigError.of(
            "`crop`",
            got=f"out_px={out_px}, box {box.height} x {box.width}",
            expected="at least one pixel of each",
            do="Give a larger box or size.",
        )
    _require_near(pyramid.levels, box)
    view, inside = view_of(pyramid.levels, box, out_px)
    region, damaged = _reduce(pyramid, view, inside)
    scale_y, scale_x = (Fraction(scale) for scale in view.scale_yx)
    ratio_y, ratio_x = view.ratio_yx
    whole = Frame(corner_yx=(Fraction(0), Fraction(0)), step_yx=(scale_y, scale_x))
    corner_yx = int(inside.y) * scale_y, int(inside.x) * scale_x
    frame = Frame(corner_yx=corner_yx, step_yx=(scale_y * ratio_y, scale_x * ratio_x))
    return Crop(
        pixels=region.pixels,
        valid=region.valid,
        damage=region.damage,
        damaged=damaged,
        box=whole.box_of(inside),
        stored=view.stored,
        frame=frame,
        mpp=None if pyramid.mpp is None else pyramid.mpp * math.sqrt(math.prod(frame.scale_yx)),
    )


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
    ratio = _workable(max(Fraction(max(inside.height, inside.width), out_px), Fraction(1)), out_px)
    shape = Shape(y=max(1, -int(-inside.height // ratio)), x=max(1, -int(-inside.width // ratio)))
    # Phase is measured from the level's origin everywhere else; a picture starts at its own box instead.
    return PlanLevel(stored=stored.index, ratio_yx=(ratio, ratio), shape=shape, scale_yx=stored.scale_yx), inside


def _workable(ratio: Fraction, out_px: int) -> Fraction:
    """Return the smallest ratio that is not below the wanted one and that `resample` can work with."""
    if ratio.numerator <= MAX_TERM and ratio.denominator <= MAX_TERM:
        return ratio
    most = MAX_TERM // math.ceil(ratio)
    if not most:
        raise ConfigError.of(
            "`out_px`",
            got=f"{out_px}, for which {float(ratio):,.0f} stored pixels would be one",
            expected=f"a reduction of at most {MAX_TERM:,}",
            do="Ask for a larger picture.",
        )
    return Fraction(math.ceil(ratio * most), most)


def _level_for(levels: tuple[Level, ...], box: Box, out_px: int) -> Level:
    scale_y, scale_x = levels[box.level].scale_yx
    extent = max(box.height * scale_y, box.width * scale_x)
    fine = [level for level in levels if extent / max(level.scale_yx) >= out_px]
    return fine[-1] if fine else levels[0]


def _on_level(box: Box, given: Level, stored: Level) -> Box:
    if given.index == stored.index:
        return box
    factor_y, factor_x = (a / b for a, b in zip(given.scale_yx, stored.scale_yx, strict=True))
    y, x = math.floor(box.y * factor_y), math.floor(box.x * factor_x)
    return Box(
        level=stored.index,
        y=y,
        x=x,
        height=max(1, round(box.y_stop * factor_y) - y),
        width=max(1, round(box.x_stop * factor_x) - x),
    )


def require_box(box: Box, levels: tuple[Level, ...]) -> None:
    """Refuse what is no box, or one of a level that there is not.

    Parameters
    ----------
    box : Box
        Of a call.
    levels : tuple of Level
        Of the image.

    Raises
    ------
    ConfigError
        Naming what is expected.
    """
    need_kind("pyramid", "box", box, Box, do="Make one: `tilestream.Box(y=0, x=0, height=512, width=512, level=0)`.")
    if box.level >= len(levels):
        known = f"a level below {len(levels)}"
        raise ConfigError.of("`box`", got=f"level {box.level}", expected=known, do="Look at `pyramid.levels`.")


def _require_near(levels: tuple[Level, ...], box: Box) -> None:
    """Raise `ConfigError` for a box far larger than the image."""
    most = max(REACH * max(levels[0].shape.yx), LEAST_REACH_PX)
    scale_y, scale_x = levels[box.level].scale_yx
    if max(box.height * scale_y, box.width * scale_x) > most:
        raise ConfigError.of(
            "`box`",
            got=f"{box.height:,} x {box.width:,} px of level {box.level}",
            expected=f"edges of at most {most:,} px of level 0 on this image of {levels[0].shape.y:,} x "
            f"{levels[0].shape.x:,} px",
            do="Ask for a box that fits the image; it may reach outside.",
        )


def _reduce(pyramid: Pyramid, view: PlanLevel, inside: Box) -> tuple[Region, npt.NDArray[np.bool_]]:
    """Return the picture of a box in stored pixels, and where in it blocks are damaged."""
    pixels = np.zeros((*view.shape.yx, len(pyramid.channels)), pyramid.dtype)
    valid = np.zeros(view.shape.yx, np.bool_)
    damaged = np.zeros(view.shape.yx, np.bool_)
    damage: list[str] = []
    ratio = view.ratio_yx[0]
    image = pyramid.levels[inside.level].box
    rows = max(1, int(STRIP_PX // max(1, inside.intersect(image).width) // ratio))
    for first in range(0, view.shape.y, rows):
        last = min(first + rows, view.shape.y)
        top, bottom = int(first * ratio // 1), min(inside.height, -int(-(last * ratio) // 1))
        strip = Box(level=inside.level, y=inside.y + top, x=inside.x, height=bottom - top, width=inside.width)
        strip = strip.intersect(image)  # what lies outside is not valid, and need not be held
        region = pyramid.read_region(strip)
        resample(
            region.pixels.transpose(1, 2, 0),
            region.valid,
            ratio_yx=view.ratio_yx,
            src_yx=(strip.y - inside.y, strip.x - inside.x),
            dst_yx=(first, 0),
            out=pixels[first:last],
            out_valid=valid[first:last],
            kind=pyramid.kind,
            threads=1,
        )
        if region.damage:
            damage += [reason for reason in region.damage if reason not in damage]
            for block in _damaged_blocks(pyramid, strip):
                damaged[_under(block, inside, ratio)] = True
    return Region(pixels=pixels.transpose(2, 0, 1), valid=valid, damage=tuple(damage)), damaged & ~valid


def _damaged_blocks(pyramid: Pyramid, strip: Box) -> Iterator[Box]:
    """Yield the parts of a strip of stored pixels that lie in blocks which cannot be decoded."""
    block = pyramid.levels[strip.level].block
    for y in range(strip.y // block.y * block.y, strip.y_stop, block.y):
        for x in range(strip.x // block.x * block.x, strip.x_stop, block.x):
            part = strip.intersect(Box(level=strip.level, y=y, x=x, height=block.y, width=block.x))
            if pyramid.read_region(part).damage:
                yield part


def _under(part: Box, inside: Box, ratio: Fraction) -> tuple[slice, slice]:
    """Return the pixels of the picture that a part of the box reaches into."""
    rows = slice(int((part.y - inside.y) // ratio), -int(-(part.y_stop - inside.y) // ratio))
    columns = slice(int((part.x - inside.x) // ratio), -int(-(part.x_stop - inside.x) // ratio))
    return rows, columns
