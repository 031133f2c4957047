"""Squares of a pyramid's stored levels as a file is to hold them: every pixel that was not measured says so."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tilestream.cache import RecentBlocks
from tilestream.pipelines.level_plan import LevelPlan
from tilestream.pipelines.level_tiles import Square
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sources.samples import masked
from tilestream.sources.warming import warm
from tilestream.types import Array, Box, Shape


@dataclass(frozen=True, kw_only=True)
class SquareSource:
    """Reads squares of stored levels; safe under threads."""

    pyramid: Pyramid
    """The image."""
    plan: LevelPlan
    """Levels of the file."""
    dtype: np.dtype[np.generic]
    """Type of the samples in the file."""
    nodata: float | None
    """Stored value that says in the file that a pixel was not measured; None where nothing or a mask says it."""
    fill: float
    """Value of pixels that were not measured, where their own does not say so."""
    shows_damage: bool
    """Whether damaged blocks are black instead of not measured: the file could not tell them from glass."""

    def read(self, *, level: int, y: int, x: int, shape: Shape) -> Square:
        """Return the pixels of a level of the file.

        Parameters
        ----------
        level : int
            Level of the file that the source stores.
        y, x : int
            First row and column.
        shape : Shape
            Rows and columns; inside the level.

        Returns
        -------
        Square
            Pixels in the type of the file.
        """
        box = Box(level=self.plan.stored[level], y=y, x=x, height=shape.y, width=shape.x)
        warm(self.pyramid.source, box)
        pixels = np.empty((*shape.yx, len(self.pyramid.channels)), self.pyramid.dtype)
        valid = np.ones(shape.yx, np.bool_)
        damage = self._read(box, pixels, valid)
        pixels = pixels.astype(self.dtype, copy=False)
        square = Square(level=level, y=y, x=x, pixels=pixels, damage=damage)
        if valid.all():
            return square
        if damage and self.shows_damage:
            self._blacken(box, pixels, valid)
        self._settle(pixels, valid)
        return replace(square, valid=valid)

    def _read(self, box: Box, pixels: Array, valid: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        """Fill pixels and validity, a row of blocks at a time so that the memory of blocks is used again."""
        block_px = self.pyramid.levels[box.level].block.y
        recent, damage = RecentBlocks(box, []), list[str]()
        top = box.y
        while top < box.y_stop:
            bottom = min(box.y_stop, (top // block_px + 1) * block_px)
            strip = Box(level=box.level, y=top, x=box.x, height=bottom - top, width=box.width)
            rows = slice(top - box.y, bottom - box.y)
            damage += self.pyramid.read_into(strip, pixels[rows], valid[rows], recent=recent).damage
            recent.forget_above(bottom // block_px)
            top = bottom
        return tuple(damage)

    def _settle(self, pixels: Array, valid: npt.NDArray[np.bool_]) -> None:
        """Write `fill` where a pixel is not valid and its value does not say so itself."""
        told = masked(pixels, self.nodata).valid
        pixels[~valid if told is None else ~valid & told] = self.fill

    def _blacken(self, box: Box, pixels: Array, valid: npt.NDArray[np.bool_]) -> None:
        """Make damaged blocks of a square black and valid, so that they are seen at coarse levels too."""
        stored = self.pyramid.levels[box.level]
        for iy in range(box.y // stored.block.y, -(-box.y_stop // stored.block.y)):
            for ix in range(box.x // stored.block.x, -(-box.x_stop // stored.block.x)):
                corner = {"y": iy * stored.block.y, "x": ix * stored.block.x}
                block = Box(level=box.level, **corner, height=stored.block.y, width=stored.block.x).intersect(box)
                if self.pyramid.read_region(block).damage:
                    at = Box(y=block.y - box.y, x=block.x - box.x, height=block.height, width=block.width).slices_yx
                    pixels[at] = 0
                    valid[at] = True
