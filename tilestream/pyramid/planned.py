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
    from tilestream.pyramid.pyramid import Pyramid


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
        out=pixels,
        out_valid=valid,
        kind=pyramid.kind,
        threads=1,
    )
    return filled
