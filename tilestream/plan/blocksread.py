"""How many stored pixels have to be decoded to read parts of a level: those of whole blocks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from tilestream.grid import Ints
from tilestream.types import Level


def stored_span(start: Ints, edge_px: int, ratio: Fraction) -> Ints:
    """Return first and last stored pixel, `(n, 2)`, of runs of plan pixels.

    Parameters
    ----------
    start : ndarray of int64
        `(n,)` first plan pixels.
    edge_px : int
        Length of each run.
    ratio : Fraction
        Stored pixels per plan pixel.

    Returns
    -------
    ndarray of int64
        What is read, parts of pixels too.
    """
    low = start * ratio.numerator // ratio.denominator
    high = -(-(start + edge_px) * ratio.numerator // ratio.denominator)
    return np.column_stack([low, high - 1])


def pixels_of_blocks(level: Level, boxes: Ints) -> int:
    """Return the pixels of the blocks that boxes touch, each block once.

    Parameters
    ----------
    level : Level
        The stored level.
    boxes : ndarray of int64
        `(n, 4)`: first and last row, first and last column.

    Returns
    -------
    int
        Of blocks at the far edges only what lies in the level counts.
    """
    touched = np.zeros((level.blocks.y + 1, level.blocks.x + 1), np.int64)
    y0, y1 = (np.clip(boxes[:, column] // level.block.y, 0, level.blocks.y - 1) for column in (0, 1))
    x0, x1 = (np.clip(boxes[:, column] // level.block.x, 0, level.blocks.x - 1) for column in (2, 3))
    for y, x, step in ((y0, x0, 1), (y1 + 1, x0, -1), (y0, x1 + 1, -1), (y1 + 1, x1 + 1, 1)):
        np.add.at(touched, (y, x), step)  # corners of boxes; their running sums count boxes
    is_touched = touched.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    high = np.minimum(level.block.y, level.shape.y - np.arange(level.blocks.y) * level.block.y)
    wide = np.minimum(level.block.x, level.shape.x - np.arange(level.blocks.x) * level.block.x)
    return int(high @ is_touched @ wide)
