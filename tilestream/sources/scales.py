"""How many pixels of the finest level one pixel of a coarse level stands for."""

from __future__ import annotations

import math

from tilestream.types import Shape


def stretched_scale(whole: Shape, shape: Shape) -> tuple[float, float]:
    """Return the scale of an overview that GDAL has made: it stretches each over the whole image.

    So do its readers when they give an overview a place. Measured on gradients of odd sizes with GDAL 3.12: the ratio
    of the sizes to five digits, for average, bilinear, cubic and Lanczos resampling alike.

    Parameters
    ----------
    whole : Shape
        Size of the finest level, px.
    shape : Shape
        Size of the level, px.

    Returns
    -------
    tuple of float, float
        The ratio of the sizes along y and x.
    """
    return whole.y / shape.y, whole.x / shape.x


def level_scale(whole: Shape, shape: Shape) -> tuple[float, float]:
    """Return the scale of a level of which only the size is known.

    Levels are made by halving, or by another whole factor, and sizes are rounded: up with an edge pixel that is only
    partly covered, or down with odd edges cut off (as scanners do). The ratio of the sizes would then be a little off,
    up to a pixel of the level at the far edge.

    Parameters
    ----------
    whole : Shape
        Size of the finest level, px.
    shape : Shape
        Size of the level, px.

    Returns
    -------
    tuple of float, float
        Along y and x: a power of two if the size can come from it, else a whole factor, else the ratio of the sizes.
    """
    ratio = math.sqrt(whole.area / shape.area)
    halvings = float(2 ** round(math.log2(ratio))) if ratio >= 1 else 1.0
    nearest = float(max(1, round(ratio)))
    for factor in (halvings, nearest):
        if all(abs(w / factor - s) < 1 for w, s in zip(whole.yx, shape.yx, strict=True)):
            return factor, factor
    return stretched_scale(whole, shape)
