"""Thumbnails of a part of an image, with coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from tilestream.pyramid.overview import view_of
from tilestream.types import PlanLevel, Region
from tilestream.xr.coding import coding_of, fill_of
from tilestream.xr.place import place_of
from tilestream.xr.subject import IMAGE, Subject
from tilestream.xr.tree import DIMS, coords_of


def region_of(subject: Subject, max_px: int) -> Region:
    """Return the pixels of a thumbnail with their validity.

    Parameters
    ----------
    subject : Subject
        What to show.
    max_px : int
        Longest edge of the result, px.

    Returns
    -------
    Region
        Pixels `(c, y, x)`.
    """
    return subject.pyramid.crop(subject.stored_box, max_px)


def stored_px(subject: Subject, max_px: int) -> int:
    """Return the number of stored pixels that a thumbnail is made of."""
    return view_of(subject.pyramid.levels, subject.stored_box, max_px)[1].shape.area


def thumbnail_of(subject: Subject, max_px: int) -> xr.DataArray:
    """Return a part of an image at most `max_px` high and wide.

    Parameters
    ----------
    subject : Subject
        What to show.
    max_px : int
        Longest edge of the result, px.

    Returns
    -------
    DataArray
        `(c, y, x)` in memory, with coordinates; decoded where the object was.
    """
    region = region_of(subject, max_px)
    pyramid = subject.pyramid
    pixels = np.array(region.pixels)
    pixels[:, ~region.valid] = fill_of(pyramid)
    coding, attrs = coding_of(pyramid)
    known: dict[str, Any] = {**attrs, **coding}
    if region.damage:
        known["damage"] = list(region.damage)
    variable = xr.Variable(DIMS, pixels, known)
    if subject.is_decoded and coding:
        variable = xr.conventions.decode_cf_variable(IMAGE, variable, decode_times=False).load()
    return xr.DataArray(variable, coords=_coords(subject, max_px), name=IMAGE)


def _coords(subject: Subject, max_px: int) -> xr.Coordinates:
    """Return the coordinates of a thumbnail: those of a level of its own, from the part's corner."""
    view, inside = view_of(subject.pyramid.levels, subject.stored_box, max_px)
    ratio_y, ratio_x = map(float, view.ratio_yx)
    scale_y, scale_x = view.scale_yx
    level = PlanLevel(
        stored=view.stored, ratio_yx=view.ratio_yx, shape=view.shape, scale_yx=(scale_y * ratio_y, scale_x * ratio_x)
    )
    corner_yx = inside.y * scale_y, inside.x * scale_x
    return coords_of(subject.pyramid, place_of(subject.pyramid.info, level, corner_yx=corner_yx))
