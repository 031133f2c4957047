"""The pixels of one super-tile on all levels that are made of it at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.cache import RecentBlocks
from tilestream.kernels.mip import MAX_CHANNELS, MipLevel, mip, mip_levels
from tilestream.pyramid.pyramid import Pyramid
from tilestream.pyramid.reducing import MEAN, Reducer
from tilestream.types import Array, Box, ImageInfo, Kind

STRIP_PX = 512
"""Rows read at a time; blocks are kept for one strip only, since the whole super-tile is in memory already."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """The pixels that levels are made from."""

    pixels: Array
    """`(y, x, c)`; `void` where not valid."""
    valid: npt.NDArray[np.bool_] | None
    """`(y, x)`; None where everything is valid."""
    void: float | None
    """What stands where nothing was measured; None where no value says so."""
    kind: Kind
    """How it is reduced."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block."""


def void_of(info: ImageInfo) -> float | None:
    """Return the value that says "no measurement" in a store of the image: nodata, NaN for floats, None for others."""
    if info.nodata is not None:
        return info.nodata
    return math.nan if info.dtype.kind == "f" else None


def read_base(pyramid: Pyramid, box: Box) -> Base:
    """Return the pixels of a box, cut to the image.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    box : Box
        What to read.

    Returns
    -------
    Base
        Pixels and their validity.

    Notes
    -----
    Memory is that of the pixels, a byte for each of them, and the blocks under one strip.
    """
    level = pyramid.levels[box.level]
    inside = box.intersect(level.box)
    pixels = np.empty((inside.height, inside.width, len(pyramid.channels)), pyramid.dtype)
    valid = np.ones(pixels.shape[:2], np.bool_)
    recent = RecentBlocks(inside, [])
    damage: list[str] = []
    is_whole = True
    for rows in _strips(inside, level.block.y):
        strip = Box(level=box.level, y=rows.start, x=inside.x, height=len(rows), width=inside.width)
        part = slice(rows.start - inside.y, rows.stop - inside.y)
        recent.forget_above(rows.start // level.block.y)
        filled = pyramid.read_into(strip, pixels[part], valid[part], recent=recent)
        damage += [reason for reason in filled.damage if reason not in damage]
        is_whole &= filled.is_whole
    recent.forget_all()
    void = void_of(pyramid.info)
    if not is_whole and valid.all():
        is_whole = True
    if not is_whole:
        fill = 0 if void is None else void
        # not by an index of what is not valid, which takes 17 bytes a pixel
        np.copyto(pixels, fill, where=~valid[:, :, None], casting="unsafe")
    return Base(
        pixels=pixels,
        valid=None if is_whole else valid,
        void=void,
        kind=pyramid.kind,
        damage=tuple(damage),
    )


def _strips(box: Box, block_px: int) -> Iterator[range]:
    """Yield the rows of a box in strips that begin with a row of blocks, so that each block is decoded once."""
    step = max(1, STRIP_PX // block_px) * block_px
    y = box.y
    while y < box.y_stop:
        stop = min((y // step + 1) * step, box.y_stop)
        yield range(y, stop)
        y = stop


@dataclass(frozen=True, kw_only=True)
class Made:
    """One level of a super-tile."""

    pixels: Array
    """`(y, x, c)`; `void` where nothing is valid."""
    valid: npt.NDArray[np.bool_] | None = None
    """`(y, x)`; None where everything is valid."""


def levels_of_base(
    base: Base, levels: int, *, reducer: Reducer = MEAN, core: Box | None = None, first: int = 0
) -> list[Made]:
    """Return the levels that are made of the pixels, half the size each, from the pixels themselves on.

    Parameters
    ----------
    base : Base
        What to reduce.
    levels : int
        How many besides the pixels, at most four: further ones are made of rounded pixels.
    reducer : Reducer
        How.
    core : Box, optional
        What of the base is wanted, the rest being what its levels depend on (`Reducer.around`); begins at whole pixels
        of the last level. All of it by default.
    first : int
        Which level of the image the base is.

    Returns
    -------
    list of Made
        Level 0 of the super-tile first.
    """
    whole = Made(pixels=base.pixels, valid=base.valid)
    if base.kind == "labels" or reducer.file is None:
        made = [whole, *_filtered(base, levels, reducer)]
    else:
        made = [whole, *_learned(base, levels, reducer, first)]
    return made if core is None else [_cut(level, core, times) for times, level in enumerate(made)]


def _filtered(base: Base, levels: int, reducer: Reducer) -> list[Made]:
    made = [_empty(base, times + 1) for times in range(levels)]
    planes = base.pixels.transpose(2, 0, 1)
    nodata = base.void if base.void is not None and not math.isnan(base.void) else None
    how: dict[str, Any] = {"levels": levels, "kind": base.kind, "threads": 1}
    if base.kind != "labels":
        how |= {"filter": reducer.filter, "light": reducer.light}
    for first in range(0, len(planes) if made else 0, MAX_CHANNELS):
        group = slice(first, first + MAX_CHANNELS)
        outs = [level.pixels.transpose(2, 0, 1)[group] for level in made]
        if base.valid is None:
            mip(planes[group], out=outs, **how)
            continue
        tracked = [MipLevel(pixels=out, valid=level.valid) for out, level in zip(outs, made, strict=True)]
        mip_levels(planes[group], base.valid, nodata=nodata, out=tracked, **how)
    if base.void is not None and math.isnan(base.void):
        for level in made:
            if level.valid is not None:
                level.pixels[~level.valid] = math.nan
    return made


def _learned(base: Base, levels: int, reducer: Reducer, first: int) -> list[Made]:
    made: list[Made] = []
    pixels, valid = base.pixels, base.valid
    for times in range(1, levels + 1):
        planes, valid = reducer.downsampler(pixels.transpose(2, 0, 1), valid, level=first + times)
        pixels = planes.transpose(1, 2, 0)
        if valid is not None:
            pixels = np.where(valid[:, :, None], pixels, np.uint8(base.void or 0))
        made.append(Made(pixels=pixels, valid=valid))
    return made


def _cut(made: Made, core: Box, times: int) -> Made:
    """Return what of a level lies under the wanted part of its base."""
    rows, columns = (slice(a >> times, -(-b >> times)) for a, b in ((core.y, core.y_stop), (core.x, core.x_stop)))
    valid = None if made.valid is None else made.valid[rows, columns]
    return Made(pixels=made.pixels[rows, columns], valid=valid)


def _empty(base: Base, times: int) -> Made:
    height, width, channels = base.pixels.shape
    shape = -(-height // 2**times), -(-width // 2**times)
    valid = None if base.valid is None else np.empty(shape, np.bool_)
    return Made(pixels=np.empty((*shape, channels), base.pixels.dtype), valid=valid)
