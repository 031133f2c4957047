"""Decoded blocks kept in this process under one byte budget, shared by all images and threads."""

from __future__ import annotations

import os
from threading import Lock
from typing import Any, TypeAlias

import numpy as np

from tilestream.cache import limits
from tilestream.cache.tally import DECODED
from tilestream.cache.tier import Tier
from tilestream.types import Array, Block, Box, Level

BlockKey = tuple[str, int, int, int]
"""Fingerprint with selection and state of the files, level, iy, ix."""

BlockCache: TypeAlias = Tier[BlockKey, "Block | None"]
"""Decoded blocks."""


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
    """Return the memory that a block keeps alive: of a part of an array that is the whole array."""
    if block is None:
        return 0
    base = block.pixels.base
    pixels = base.nbytes if isinstance(base, np.ndarray) else block.pixels.nbytes
    return pixels + (0 if block.valid is None else block.valid.nbytes)


def new_block_cache(budget_bytes: int) -> BlockCache:
    """Return an empty cache of decoded blocks of that budget."""
    return Tier(budget_bytes, _nbytes, DECODED)


_lock = Lock()
_caches: dict[tuple[int, int], BlockCache] = {}


def block_cache(budget_bytes: int) -> BlockCache:
    """Return this process's cache of that budget; records carry the budget, not the cache.

    Parameters
    ----------
    budget_bytes : int
        Most bytes of pixels held in this process; its share of the machine may be less, see `limits`.

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
        return _caches.setdefault(key, new_block_cache(limits.within(budget_bytes)))


def fit_blocks() -> None:
    """Fit the caches of this process to its share of the machine, after that has changed."""
    for (process, budget_bytes), cache in list(_caches.items()):
        if process == os.getpid():
            cache.resize(limits.within(budget_bytes))


def forget_blocks() -> None:
    """Drop all decoded blocks of this process, after a store was written whose fingerprint may be that of before."""
    for cache in list(_caches.values()):
        cache.clear()
