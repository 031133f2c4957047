"""Which levels a file gets, and which of them the source has already."""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Level, Shape

SQUARE_BYTES = 32 << 20
"""Most bytes of the square of pixels that one thread holds; levels made from it take a third as much again."""
LARGEST_PX = 4096
"""Largest edge of such a square."""
CLOSE = 1e-6
"""How far the scale of a level may be from a power of two; some formats state it as a decimal number."""


@dataclass(frozen=True, kw_only=True)
class LevelPlan:
    """Levels that halve down to one tile, the first of them as the source stores them."""

    shapes: tuple[Shape, ...]
    """Size of each level, finest first: ceil of half of the one before."""
    stored: tuple[int, ...]
    """Index in the source of levels 0, 1, …; the others are made from the last of these."""
    tile_px: int
    """Edge of a tile of the file."""
    edge_px: int
    """Edge of the square of pixels that is read at once; a multiple of the tile."""

    @property
    def is_made(self) -> bool:
        """Return whether any level has to be made."""
        return len(self.stored) < len(self.shapes)


def plan_levels(pyramid: Pyramid, *, tile_px: int) -> LevelPlan:
    """Return the levels of a file of this pyramid.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    tile_px : int
        Edge of a tile of the file; a multiple of 16.

    Returns
    -------
    LevelPlan
        Stored levels are kept as long as each has half the size of the one before; where one is missing or has
        another factor, it and all coarser ones are made.
    """
    height, width = pyramid.info.shape.yx
    shapes = [Shape(y=height, x=width)]
    while max(shapes[-1].yx) > tile_px:
        shapes.append(Shape(y=-(-shapes[-1].y // 2), x=-(-shapes[-1].x // 2)))
    stored = [0]
    for number, shape in enumerate(shapes[1:], 1):
        found = next((level.index for level in pyramid.levels if _is_halved(level, number, shape)), None)
        if found is None:
            break
        stored.append(found)
    pixel_bytes = len(pyramid.channels) * pyramid.dtype.itemsize
    edge_px = tile_px
    while 2 * edge_px <= LARGEST_PX and (2 * edge_px) ** 2 * pixel_bytes <= SQUARE_BYTES:
        edge_px *= 2
    return LevelPlan(shapes=tuple(shapes), stored=tuple(stored), tile_px=tile_px, edge_px=edge_px)


def _is_halved(level: Level, number: int, shape: Shape) -> bool:
    factor = 2.0**number
    return level.shape == shape and all(abs(scale / factor - 1) < CLOSE for scale in level.scale_yx)
