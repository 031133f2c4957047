"""A box of one level of a source, put together from its blocks: for images that others are made of."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.cache import block_cache
from tilestream.types import Array, Block, Box, ImageInfo, Source

CACHE_BYTES = 64 << 20
"""Decoded blocks of coarse bands kept in a process: each serves several blocks of the scene."""

Mask: TypeAlias = npt.NDArray[np.bool_]


def read_window(source: Source, window: Box, *, url: str | None = None) -> tuple[Array, Mask]:
    """Return a box inside a level, put together from its blocks.

    Parameters
    ----------
    source : Source
        What reads the blocks.
    window : Box
        Box inside its level.
    url : str, optional
        Where it was opened: blocks that reach out of the window are kept under it; None = they are not kept.

    Returns
    -------
    ndarray and ndarray of bool
        Pixels `(y, x, c)` and validity `(y, x)`.

    Raises
    ------
    DamagedError
        When one of the blocks cannot be decoded.
    """
    info = source.info
    stored = info.levels[window.level]
    pixels = np.zeros((window.height, window.width, len(info.channels)), info.dtype)
    valid = np.zeros((window.height, window.width), np.bool_)
    for iy in range(window.y // stored.block.y, -(-window.y_stop // stored.block.y)):
        for ix in range(window.x // stored.block.x, -(-window.x_stop // stored.block.x)):
            top, left = iy * stored.block.y, ix * stored.block.x
            whole = Box(level=window.level, y=top, x=left, height=stored.block.y, width=stored.block.x)
            part = whole.intersect(window)
            # a block that lies wholly inside is not wanted again: it does not push others out of the cache
            keep = url is not None and part != whole.intersect(stored.box)
            block = _kept(source, url, (window.level, iy, ix)) if keep else source.read_block(window.level, iy, ix)
            if block is None:
                continue
            to = slice(part.y - window.y, part.y_stop - window.y), slice(part.x - window.x, part.x_stop - window.x)
            of = slice(part.y - top, part.y_stop - top), slice(part.x - left, part.x_stop - left)
            pixels[to] = block.pixels[of]
            valid[to] = True if block.valid is None else block.valid[of]
    return pixels, valid


def inside_level(info: ImageInfo, box: Box) -> Box | None:
    """Return the part of a box that lies inside its level, None when nothing does."""
    whole = info.levels[box.level].shape
    y, x = max(box.y, 0), max(box.x, 0)
    height, width = min(box.y_stop, whole.y) - y, min(box.x_stop, whole.x) - x
    if height <= 0 or width <= 0:
        return None
    return Box(level=box.level, y=y, x=x, height=height, width=width)


def _kept(source: Source, url: str | None, at: tuple[int, int, int]) -> Block | None:
    key = (f"band:{url}:{source.info.fingerprint}", *at)
    return block_cache(CACHE_BYTES).get(key, lambda: source.read_block(*at))
