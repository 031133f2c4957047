"""Boxes of a plan's level: as they are stored, or resampled from the stored level behind a virtual one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tilestream.cache import RecentBlocks
from tilestream.kernels.resample import resample
from tilestream.pyramid.filled import Filled
from tilestream.sources.warming import warm
from tilestream.types import Array, Box, PlanLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tilestream.pyramid.pyramid import Pyramid

FOOTPRINT_BYTES = 64 << 20
"""Most bytes of stored pixels that are held to make plan pixels of them; what needs more is made part by part."""


def read_plan(  # noqa: PLR0913 - those of `Pyramid.read_plan`
    pyramid: Pyramid,
    level: PlanLevel,
    box: Box,
    pixels: Array,
    valid: npt.NDArray[np.bool_],
    recent: RecentBlocks | None,
    origin_yx: tuple[int, int] = (0, 0),
) -> Filled:
    """Fill `pixels` and `valid` with a box of a plan's level, and return what was damaged; see `Pyramid.read_plan`."""
    if level.is_stored:
        box = replace(box, y=box.y + origin_yx[0], x=box.x + origin_yx[1])
        if recent is None:  # a task that has blocks of its own has asked for all that it needs
            warm(pyramid.source, box)
        filled = pyramid.read_into(box, pixels, valid, recent=recent)
        if not filled.is_whole:
            pixels[~valid] = 0
        return filled
    whole, damage = True, dict[str, None]()
    for part in _parts(level, box, len(pyramid.channels) * pyramid.dtype.itemsize + 1):
        at = slice(part.y - box.y, part.y_stop - box.y), slice(part.x - box.x, part.x_stop - box.x)
        filled = _reduce(pyramid, level, part, (pixels[at], valid[at]), recent, origin_yx)
        whole &= filled.is_whole
        damage |= dict.fromkeys(filled.damage)
    return Filled(damage=tuple(damage), is_whole=whole)


def _reduce(
    pyramid: Pyramid,
    level: PlanLevel,
    box: Box,
    out: tuple[Array, npt.NDArray[np.bool_]],
    recent: RecentBlocks | None,
    origin_yx: tuple[int, int],
) -> Filled:
    """Fill pixels and validity with a box of a virtual level."""
    (ratio_y, ratio_x) = level.ratio_yx
    y, x = int(box.y * ratio_y // 1), int(box.x * ratio_x // 1)
    y_stop, x_stop = -int(-(box.y_stop * ratio_y) // 1), -int(-(box.x_stop * ratio_x) // 1)
    footprint = Box(level=level.stored, y=y + origin_yx[0], x=x + origin_yx[1], height=y_stop - y, width=x_stop - x)
    if recent is None:
        warm(pyramid.source, footprint)
    stored = np.empty((footprint.height, footprint.width, len(pyramid.channels)), pyramid.dtype)
    stored_valid = np.ones(stored.shape[:2], np.bool_)
    filled = pyramid.read_into(footprint, stored, stored_valid, recent=recent)
    resample(
        stored,
        None if filled.is_whole else stored_valid,
        ratio_yx=level.ratio_yx,
        src_yx=(y, x),
        dst_yx=(box.y, box.x),
        out=out[0],
        out_valid=out[1],
        kind=pyramid.kind,
        threads=1,
    )
    return filled


def _parts(level: PlanLevel, box: Box, pixel_bytes: int) -> Iterator[Box]:
    """Yield the parts of a box, halved until the stored pixels under each are few enough; most boxes are one."""
    stored = box.height * box.width * level.ratio_yx[0] * level.ratio_yx[1]
    if stored * pixel_bytes <= FOOTPRINT_BYTES or box.shape.area <= 1:
        yield box
        return
    if box.height >= box.width:
        first = replace(box, height=box.height // 2)
        other = replace(box, y=first.y_stop, height=box.height - first.height)
    else:
        first = replace(box, width=box.width // 2)
        other = replace(box, x=first.x_stop, width=box.width - first.width)
    yield from _parts(level, first, pixel_bytes)
    yield from _parts(level, other, pixel_bytes)
