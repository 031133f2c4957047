"""Where the pixels of a picture lie on an image, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from tilestream.types import Box

YX: TypeAlias = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The place of a picture on level 0; positions are those of corners, so that the centre of a pixel is at a half."""

    corner_yx: tuple[Fraction, Fraction]
    """Level-0 position of the upper left corner of the picture."""
    step_yx: tuple[Fraction, Fraction]
    """Level-0 pixels that a pixel of the picture spans."""

    @property
    def scale_yx(self) -> YX:
        """Return the level-0 pixels that a pixel of the picture spans, as floats."""
        return float(self.step_yx[0]), float(self.step_yx[1])

    def to_level0(self, yx: YX) -> YX:
        """Return the level-0 position of a position in the picture.

        Parameters
        ----------
        yx : tuple of float
            Pixels from the picture's upper left corner; (0.5, 0.5) is the middle of its first pixel.

        Returns
        -------
        tuple of float
            Level-0 pixels from the image's corner; exact before it is rounded to floats.
        """
        y, x = (
            corner + step * Fraction(float(at))
            for corner, step, at in zip(self.corner_yx, self.step_yx, yx, strict=True)
        )
        return float(y), float(x)

    def to_picture(self, yx: YX) -> YX:
        """Return the position in the picture of a position on level 0, which may lie outside the picture.

        Parameters
        ----------
        yx : tuple of float
            Level-0 pixels from the image's corner.

        Returns
        -------
        tuple of float
            Pixels from the picture's upper left corner.
        """
        y, x = (
            (Fraction(float(at)) - corner) / step
            for corner, step, at in zip(self.corner_yx, self.step_yx, yx, strict=True)
        )
        return float(y), float(x)

    def box_of(self, area: Box) -> Box:
        """Return the smallest box of level 0 that holds a rectangle of the picture: what to look at next.

        Parameters
        ----------
        area : Box
            In pixels of the picture; its `level` is not looked at.

        Returns
        -------
        Box
            Of level 0.
        """
        (y, x), (step_y, step_x) = self.corner_yx, self.step_yx
        # int: numbers of NumPy would overflow inside fractions
        top, left = math.floor(y + step_y * int(area.y)), math.floor(x + step_x * int(area.x))
        bottom, right = math.ceil(y + step_y * int(area.y_stop)), math.ceil(x + step_x * int(area.x_stop))
        return Box(y=top, x=left, height=bottom - top, width=right - left)

    def enlarged(self, times: int) -> Frame:
        """Return the frame of the picture in which each pixel has become a square of so many."""
        step_y, step_x = self.step_yx
        return Frame(corner_yx=self.corner_yx, step_yx=(step_y / times, step_x / times))

    def moved(self, margin_yx: tuple[int, int]) -> Frame:
        """Return the frame of the picture with so many more pixels above it and to its left."""
        corner_y, corner_x = (
            corner - step * margin for corner, step, margin in zip(self.corner_yx, self.step_yx, margin_yx, strict=True)
        )
        return Frame(corner_yx=(corner_y, corner_x), step_yx=self.step_yx)
