"""Decoded blocks kept in this process under one byte budget, shared by all images and threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import Any

import numpy as np
from zict import LRU

from tilestream.metrics import count
from tilestream.types import Array, Block, Box, Level

BlockKey = tuple[str, int, int, int]
"""Fingerprint with selection, level, iy, ix."""

ENTRY_BYTES = 512
"""Charged for the bookkeeping of an entry, so that blocks that are absent cost something too."""


class BlockCache:
    """Least-recently-used decoded blocks by key; safe under threads.

    Parameters
    ----------
    budget_bytes : int
        Most bytes of pixels held; 0 holds nothing.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._blocks: LRU[BlockKey, Block | None] = LRU(budget_bytes, {}, weight=lambda _, block: _nbytes(block))

    def get(self, key: BlockKey, decode: Callable[[], Block | None], *, keep: bool = True) -> Block | None:
        """Return the block of `key`, from memory or by calling `decode`.

        Parameters
        ----------
        key : BlockKey
            Identity of the block.
        decode : callable
            Makes the block; what it raises is passed on and nothing is kept.
        keep : bool
            Whether somebody may ask for the block again, so that it should be kept.

        Returns
        -------
        Block or None
            The block, None where the source stores none.
        """
        if self.budget_bytes <= 0:
            return decode()
        try:
            block = self._blocks[key]
        except KeyError:
            # Two threads may decode the same block at the same time: cheaper than making one wait for the other.
            block = decode()
            count("cache_misses")
            if keep and _nbytes(block) <= self.budget_bytes // 2:
                self._blocks[key] = block
            return block
        count("cache_hits")
        return block

    def clear(self) -> None:
        """Drop every block."""
        self._blocks.clear()


class RecentBlocks:
    """Decoded blocks of one super-tile that its next tiles will touch again; belongs to one task, needs no lock.

    Tiles come row by row, so a few rows of blocks are enough for each block to be decoded once. Their memory is used
    again: fresh pages would cost a third of what decoding a JPEG tile does.

    Parameters
    ----------
    interior : Box
        Area of the super-tile, stored pixels: only blocks that reach out of it concern its neighbours too.
    spare : list of ndarray
        Memory of earlier blocks that may be decoded into; taken from and given back to.
    """

    def __init__(self, interior: Box, spare: list[Array]) -> None:
        self.blocks: dict[tuple[int, int], Block | None] = {}
        self._interior = interior
        self._spare = spare
        self._lent: dict[tuple[int, int], Array] = {}

    def is_inside(self, level: Level, iy: int, ix: int) -> bool:
        """Return whether a block lies in the super-tile, so that no other task wants it."""
        top, left = iy * level.block.y, ix * level.block.x
        return (
            self._interior.y <= top
            and self._interior.x <= left
            and top + level.block.y <= self._interior.y_stop
            and left + level.block.x <= self._interior.x_stop
        )

    def lend(self, iy: int, ix: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return memory for the pixels of a block until it is forgotten."""
        out = self._spare.pop() if self._spare else np.empty(shape, dtype)
        if out.shape != shape or out.dtype != dtype:
            out = np.empty(shape, dtype)
        self._lent[iy, ix] = out
        return out

    def forget_above(self, iy: int) -> None:
        """Drop the rows of blocks before `iy` and use their memory again."""
        for key in [key for key in self.blocks if key[0] < iy]:
            del self.blocks[key]
        for key in [key for key in self._lent if key[0] < iy]:
            self._spare.append(self._lent.pop(key))

    def forget_all(self) -> None:
        """Drop every block and give their memory back."""
        self.blocks.clear()
        self._spare.extend(self._lent.values())
        self._lent.clear()


def _nbytes(block: Block | None) -> int:
    if block is None:
        return ENTRY_BYTES
    return ENTRY_BYTES + block.pixels.nbytes + (0 if block.valid is None else block.valid.nbytes)


_lock = Lock()
_caches: dict[tuple[int, int], BlockCache] = {}


def block_cache(budget_bytes: int) -> BlockCache:
    """Return this process's cache of that budget; records carry the budget, not the cache.

    Parameters
    ----------
    budget_bytes : int
        Most bytes of pixels held in this process.

    Returns
    -------
    BlockCache
        The same object for the same budget and process.
    """
    key = (os.getpid(), budget_bytes)  # a forked child must not use a lock that its parent may have held
    found = _caches.get(key)
    if found is not None:  # without the lock: this is asked once a block, by every thread
        return found
    with _lock:
        return _caches.setdefault(key, BlockCache(budget_bytes))


def forget_blocks() -> None:
    """Drop all decoded blocks of this process, after a store was written whose fingerprint may be that of before."""
    for cache in list(_caches.values()):
        cache.clear()
