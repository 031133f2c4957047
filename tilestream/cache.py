"""Decoded blocks kept in this process under one byte budget, shared by all images and threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock

from zict import LRU

from tilestream.metrics import count
from tilestream.types import Block

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

    def get(self, key: BlockKey, decode: Callable[[], Block | None]) -> Block | None:
        """Return the block of `key`, from memory or by calling `decode`.

        Parameters
        ----------
        key : BlockKey
            Identity of the block.
        decode : callable
            Makes the block; what it raises is passed on and nothing is kept.

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
            if _nbytes(block) <= self.budget_bytes // 2:
                self._blocks[key] = block
            return block
        count("cache_hits")
        return block

    def clear(self) -> None:
        """Drop every block."""
        self._blocks.clear()


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
