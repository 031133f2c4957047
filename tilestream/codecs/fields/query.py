"""What `Field.decode` is asked for, checked: a box of pixels of a level, whole or between two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.picture import Picture
from tilestream.errors import ConfigError
from tilestream.types import Array, Box

MOST_LEVEL = 32.0


@dataclass(frozen=True, kw_only=True)
class Query:
    """Pixels of one level of a picture."""

    picture: Picture
    """Whose."""
    level: float
    """At least 0."""
    box: Box
    """In pixels of that level, inside of the picture."""

    @classmethod
    def of(cls, picture: Picture | None, *, box: Box | None, level: float | None) -> Query:
        """Return what is asked for, its defaults filled in.

        Parameters
        ----------
        picture : Picture or None
            Of the field; None where it has none.
        box : Box, optional
            By default the whole level.
        level : float, optional
            By default that of the box, or 0.

        Returns
        -------
        Query
            Checked.

        Raises
        ------
        ConfigError
            When the field has no picture yet, the level is no number of 0 to 32, or the box lies outside.
        """
        if picture is None:
            raise ConfigError.of(
                "`decode`", got="a field that was never fitted", expected="one of a picture", do="Call `fit` before."
            )
        where = float((box.level if box else 0) if level is None else level)
        if not (math.isfinite(where) and 0 <= where <= MOST_LEVEL):
            raise ConfigError.of(
                "`level` of `decode`", got=level, expected=f"a number of 0 to {MOST_LEVEL:g}", do="0 is the finest."
            )
        shape = picture.shape_at(where)
        wanted = picture.box_at(where) if box is None else box
        if not (0 <= wanted.y <= wanted.y_stop <= shape.y and 0 <= wanted.x <= wanted.x_stop <= shape.x):
            raise ConfigError.of(
                "`box` of `decode`",
                got=f"rows {wanted.y} to {wanted.y_stop}, columns {wanted.x} to {wanted.x_stop}",
                expected=f"pixels of the {shape.y} × {shape.x} that level {where:g} has",
                do="Cut it to the picture; a level has ceil(size / 2^level) pixels.",
            )
        return cls(picture=picture, level=where, box=wanted)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return `(c, y, x)` of the result."""
        return self.picture.channels, self.box.height, self.box.width

    def room(self, out: Array | None) -> Array:
        """Return memory for the result.

        Parameters
        ----------
        out : ndarray, optional
            The caller's.

        Returns
        -------
        ndarray
            `out`, or a view `(c, y, x)` of new interleaved memory.

        Raises
        ------
        ConfigError
            When `out` has another shape or type.
        """
        if out is None:
            channels, height, width = self.shape
            return np.empty((height, width, channels), self.picture.dtype).transpose(2, 0, 1)
        if out.shape != self.shape or out.dtype.name != self.picture.dtype:
            raise ConfigError.of(
                "`out` of `decode`",
                got=f"{out.shape} {out.dtype}",
                expected=f"{self.shape} {self.picture.dtype}",
                do="Make it of the box and the type of the picture.",
            )
        return out

    def centres_xy(self, *, whole: int | None = None) -> npt.NDArray[np.float32]:
        """Return the centres of its pixels, row by row.

        Parameters
        ----------
        whole : int, optional
            A level whose last centres none may lie beyond: where a level between two has a pixel more than it fills,
            the whole levels beside it hold nothing there.

        Returns
        -------
        ndarray of float32
            `(n, 2)` of 0 to 1 over `Picture.extent_px`.
        """
        x = (np.arange(self.box.x, self.box.x_stop) + 0.5) * 2.0**self.level
        y = (np.arange(self.box.y, self.box.y_stop) + 0.5) * 2.0**self.level
        if whole is not None:
            last = self.picture.shape_at(whole)
            x, y = np.minimum(x, (last.x - 0.5) * 2.0**whole), np.minimum(y, (last.y - 0.5) * 2.0**whole)
        found = np.empty((self.box.height, self.box.width, 2), np.float32)
        found[..., 0], found[..., 1] = x / self.picture.extent_px, y[:, None] / self.picture.extent_px
        return found.reshape(-1, 2)
