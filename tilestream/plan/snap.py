"""Tile grids aligned to a fixed grid in a CRS, so that a place is the same tile on every date."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from tilestream.errors import ConfigError
from tilestream.plan.levels import DENOMINATOR, ENLARGE, LevelChoice, virtual_level
from tilestream.types import ImageInfo

DRIFT_PX = 0.05
"""How far a tile's corner may lie from its grid line, plan pixels; rounding in headers stays far below it."""


@dataclass(frozen=True, kw_only=True)
class Snap:
    """A fixed grid of squares in CRS units; each square is one tile."""

    size: float
    """Edge of a tile, CRS units."""
    origin_xy: tuple[float, float] = (0.0, 0.0)
    """A point through which grid lines pass, CRS units."""


def snap_level(info: ImageInfo, snap: Snap, *, tile_px: int) -> tuple[LevelChoice, tuple[int, int]]:
    """Return the level at which a grid square is `tile_px` wide, and the corner of the first tile in its pixels.

    Parameters
    ----------
    info : ImageInfo
        An image with an affine whose axes run along those of the CRS.
    snap : Snap
        The grid.
    tile_px : int
        Pixels along a square.

    Returns
    -------
    level : LevelChoice
        The level.
    origin_yx : tuple of int
        Corner of the first tile, plan pixels, each in `(-tile_px, 0]`.

    Raises
    ------
    ConfigError
        When the image has no such affine or its pixels do not fall on the grid.
    """
    if info.affine is None or info.crs is None:
        raise ConfigError.of("`snap`", got="an image without CRS and affine", expected="both", do="Leave `snap` out.")
    a, b, c, d, e, f = info.affine
    if b or d or not a or not e or snap.size <= 0:
        raise ConfigError.of(
            "`snap`",
            got=f"affine {info.affine}, size {snap.size}",
            expected="an affine without rotation and a size above 0",
            do="Warp the image to a north-up grid first, or leave `snap` out.",
        )
    choice = _exact_level(info, snap.size / tile_px, (abs(e), abs(a)))
    pixel = snap.size / tile_px
    origin_yx = (
        _first_px((f - snap.origin_xy[1]) / pixel, e > 0, tile_px, "y"),
        _first_px((c - snap.origin_xy[0]) / pixel, a > 0, tile_px, "x"),
    )
    return choice, origin_yx


def _exact_level(info: ImageInfo, pixel: float, base_yx: tuple[float, float]) -> LevelChoice:
    for level in reversed(info.levels):
        own_yx = base_yx[0] * level.scale_yx[0], base_yx[1] * level.scale_yx[1]
        ratio_yx = (
            Fraction(pixel / own_yx[0]).limit_denominator(DENOMINATOR),
            Fraction(pixel / own_yx[1]).limit_denominator(DENOMINATOR),
        )
        enough = min(ratio_yx) >= (1 if level.index else ENLARGE)
        if enough and all(
            abs(float(ratio) * own / pixel - 1) * length / float(ratio) <= DRIFT_PX
            for ratio, own, length in zip(ratio_yx, own_yx, level.shape.yx, strict=True)
        ):
            return virtual_level(level, info.mpp_yx, ratio_yx)
    raise ConfigError.of(
        "`snap`",
        got=f"tile pixels of {pixel:.8g} CRS units over image pixels of {base_yx[1]:.8g} x {base_yx[0]:.8g}",
        expected=f"a ratio with a denominator of at most {DENOMINATOR} and at least {ENLARGE}",
        do="Choose a size that is the tile's pixels times a multiple of the image's pixel.",
    )


def _first_px(offset_px: float, ascending: bool, tile_px: int, axis: str) -> int:
    """Return minus the distance from the grid line before the image's edge to that edge."""
    if ascending:
        distance = offset_px - floor(offset_px / tile_px + DRIFT_PX / tile_px) * tile_px
    else:
        distance = ceil(offset_px / tile_px - DRIFT_PX / tile_px) * tile_px - offset_px
    if abs(distance - round(distance)) > DRIFT_PX:
        raise ConfigError.of(
            f"`snap` along {axis}",
            got=f"an image edge {distance:.3f} plan pixels from a grid line",
            expected="a whole number",
            do="Move the grid's origin by the fraction, or choose a size with smaller plan pixels.",
        )
    return -(round(distance) % tile_px)
