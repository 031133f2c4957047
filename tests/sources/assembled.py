"""Whole levels put together block by block, the plainest way there is, to compare sources with reference readers."""

from __future__ import annotations

import numpy as np

from tilestream.errors import DamagedError
from tilestream.types import Array, Source


def whole_level(source: Source, level: int = 0) -> tuple[Array, Array, dict[tuple[int, int], str]]:
    """Return pixels (y, x, c), validity (y, x) and the reason of each damaged block."""
    found = source.info.levels[level]
    pixels = np.zeros((*found.shape.yx, len(source.info.channels)), source.info.dtype)
    valid = np.zeros(found.shape.yx, np.bool_)
    damage = {}
    for iy in range(found.blocks.y):
        for ix in range(found.blocks.x):
            top, left = iy * found.block.y, ix * found.block.x
            height, width = min(found.block.y, found.shape.y - top), min(found.block.x, found.shape.x - left)
            try:
                block = source.read_block(level, iy, ix)
            except DamagedError as error:
                damage[iy, ix] = str(error)
                continue
            if block is None:
                continue
            assert block.pixels.dtype == source.info.dtype
            assert block.pixels.shape[0] >= height
            assert block.pixels.shape[1] >= width
            assert block.valid is None or block.valid.shape == block.pixels.shape[:2]
            pixels[top : top + height, left : left + width] = block.pixels[:height, :width]
            valid[top : top + height, left : left + width] = (
                True if block.valid is None else block.valid[:height, :width]
            )
    return pixels, valid, damage
