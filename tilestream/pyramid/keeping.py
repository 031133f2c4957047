"""Blocks of a pyramid by way of the caches: what the task has, what the process has, else decoded."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from tilestream.cache import BlockCache, RecentBlocks, block_cache
from tilestream.cache.tier import ENTRY_BYTES
from tilestream.errors import DamagedError
from tilestream.metrics import count
from tilestream.sources.warming import warm
from tilestream.types import Array, Block, Level

if TYPE_CHECKING:
    from tilestream.pyramid.pyramid import Pyramid

DECODED = "pixels_decoded."
"""What the counts of decoded pixels begin with; the stored level follows."""


def read_block(
    pyramid: Pyramid, level: Level, at: tuple[int, int], target: Array, recent: RecentBlocks | None
) -> Block | None:
    """Return a block, None where none is stored.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    level : Level
        Its level.
    at : tuple of int
        Row and column in the level's grid of blocks.
    target : ndarray
        `(y, x, c)` where its pixels are wanted; it may be decoded there.
    recent : RecentBlocks, optional
        Blocks that the caller's task has decoded already; takes those that it decodes now.

    Returns
    -------
    Block or None
        Its pixels may be `target`.

    Raises
    ------
    DamagedError
        When it cannot be decoded.
    """
    if recent is not None and at in recent.blocks:
        return recent.blocks[at]
    fits = target.shape[:2] == level.block.yx and target.flags.c_contiguous
    if not pyramid.cache_bytes or level.index < pyramid.keep_from:
        # Without a cache nobody holds the block afterwards, so that it may be decoded where it is wanted.
        out = target if fits else None
        if not fits and recent is not None:
            out = recent.lend(*at, (*level.block.yx, target.shape[2]), target.dtype)
        block = _decoded(pyramid, level, at, out)
    elif recent is None or not recent.is_inside(level, *at):
        key = (pyramid.identity, level.index, *at)
        block = block_cache(pyramid.cache_bytes).get(key, lambda: _decoded(pyramid, level, at))
    else:
        block = _inside(pyramid, level, at, target if fits else None, (recent, target))
    if recent is not None and (block is None or block.pixels is not target):
        recent.blocks[at] = block
    return block


def warm_levels(pyramid: Pyramid, finest: int) -> int:
    """Decode whole levels into the cache of this process, coarsest first.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    finest : int
        Last of them. One that does not fit into what is left of the budget is left out, and all finer ones.

    Returns
    -------
    int
        Bytes of pixels of these levels; damaged blocks are left to who reads them.
    """
    cache = block_cache(pyramid.cache_bytes) if pyramid.cache_bytes else None
    pixel_bytes, taken = len(pyramid.channels) * pyramid.dtype.itemsize, 0
    for level in reversed(pyramid.levels[max(0, finest, pyramid.keep_from) :]):
        block_bytes = level.block.area * pixel_bytes + ENTRY_BYTES
        nbytes = level.blocks.area * block_bytes
        if cache is None or taken + nbytes > cache.budget_bytes or block_bytes > cache.budget_bytes // 2:
            break
        warm(pyramid.source, level.box)
        for iy, ix in product(range(level.blocks.y), range(level.blocks.x)):
            with suppress(DamagedError):
                cache.get((pyramid.identity, level.index, iy, ix), partial(_decoded, pyramid, level, (iy, ix)))
        taken += nbytes
    return taken


def _inside(
    pyramid: Pyramid, level: Level, at: tuple[int, int], out: Array | None, need: tuple[RecentBlocks, Array]
) -> Block | None:
    """Return a block that no other task of this run wants."""
    recent, target = need
    cache: BlockCache = block_cache(pyramid.cache_bytes)
    key = (pyramid.identity, level.index, *at)
    held = cache.find(key)
    if held is not None:
        return held[0]
    # Kept for a later run: only under the state of the files, without which a changed one could not be told apart.
    if pyramid.state and cache.has_room(level.block.area * target.shape[2] * target.dtype.itemsize):
        block = _decoded(pyramid, level, at)
        cache.keep_later(key, block)
        return block
    if out is None:
        out = recent.lend(*at, (*level.block.yx, target.shape[2]), target.dtype)
    return _decoded(pyramid, level, at, out)


def _decoded(pyramid: Pyramid, level: Level, at: tuple[int, int], out: Array | None = None) -> Block | None:
    """Return a block from the source, and count the pixels of it that lie in the image."""
    block = pyramid.source.read_block(level.index, *at, out)
    if block is not None:
        height = min(level.block.y, level.shape.y - at[0] * level.block.y)
        width = min(level.block.x, level.shape.x - at[1] * level.block.x)
        count(f"{DECODED}{level.index}", height * width)
    return block
