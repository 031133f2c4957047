"""Plans and other resolutions of a part of an image."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from tilestream.errors import ConfigError
from tilestream.plan.listed import ListedPlan
from tilestream.plan.tiles import TilePlan, plan_tiles
from tilestream.xr.resolution import level_at
from tilestream.xr.subject import IMAGE, Subject
from tilestream.xr.tree import level_dataset


def plan_part(subject: Subject, **options: Any) -> TilePlan:
    """Return the plan of the tiles whose centres lie in a part of an image.

    Parameters
    ----------
    subject : Subject
        The part.
    **options : Any
        As for `plan_tiles`; without `mpp` and `snap` at the resolution of the part.

    Returns
    -------
    TilePlan
        Of the whole image, with the tiles outside not wanted.
    """
    if options.get("mpp") is None and options.get("snap") is None and max(subject.level.scale_yx) > 1:
        mpp = subject.pyramid.info.mpp
        if mpp is None:
            raise ConfigError.of(
                "`.tiles.plan`",
                got="a coarse level of an image that states no µm per pixel",
                expected="level 0, or `snap`",
                do="Plan on level 0.",
            )
        options["mpp"] = mpp * math.sqrt(math.prod(subject.level.scale_yx))
    plan = plan_tiles(subject.pyramid, **options)
    if subject.is_whole:
        return plan
    if isinstance(plan, ListedPlan):
        return plan.within(subject.bounds_yx)
    grid, (scale_y, scale_x) = plan.grid, plan.level.scale_yx
    (top, bottom), (left, right) = subject.bounds_yx
    y = (grid.starts_y(0, grid.shape.y) + grid.tile_px / 2) * scale_y
    x = (grid.starts_x(0, grid.shape.x) + grid.tile_px / 2) * scale_x
    inside = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None, :]
    return replace(plan, wanted=inside if plan.wanted is None else np.asarray(plan.wanted & inside))


def part_at(subject: Subject, *, mpp: float | None = None, gsd_m: float | None = None) -> xr.DataArray:
    """Return a part of an image at another resolution, lazily.

    Parameters
    ----------
    subject : Subject
        The part.
    mpp, gsd_m : float, optional
        Micrometres or metres per pixel.

    Returns
    -------
    DataArray
        Pixels whose centres lie in the part, at least one.
    """
    if mpp is None and gsd_m is None:
        raise ConfigError.of("`.tiles.at`", got="no resolution", expected="`mpp` or `gsd_m`", do="Give one of them.")
    level = level_at(subject.pyramid, mpp=mpp, gsd_m=gsd_m)
    dataset = level_dataset(subject.pyramid, level, mask_and_scale=subject.is_decoded)
    image = dataset[IMAGE].assign_attrs(dataset.attrs)
    if not subject.is_whole:
        spans = zip(("y", "x"), subject.bounds_yx, level.scale_yx, level.shape.yx, strict=True)
        image = image.isel({dim: _centres(*bounds, scale, size) for dim, bounds, scale, size in spans})
    return image.chunk(image.encoding["preferred_chunks"]) if subject.is_chunked else image


def _centres(first: float, stop: float, scale: float, size: int) -> slice:
    """Return the pixels whose centres lie between two edges in pixels of level 0."""
    low = min(max(math.ceil(first / scale - 0.5), 0), size - 1)
    return slice(low, max(low + 1, math.ceil(stop / scale - 0.5)))
