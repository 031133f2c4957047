"""Decoded blocks kept in this process under one byte budget, shared by all images and threads."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from tilestream.cache import limits
from tilestream.cache.tally import DECODED, tell
from tilestream.types import Array, Block, Box, Level

BlockKey = tuple[str, int, int, int]
"""Fingerprint with selection and state of the files, level, iy, ix."""

ENTRY_BYTES = 512
"""Charged for the bookkeeping of an entry, so that blocks that are absent cost something too."""
SHARED_PART = 4
"""Blocks that this run asks for again may push out those kept for later runs, down to this part of the budget."""
STALE_BUDGETS = 8
"""A block that nobody asked for while this many budgets of other blocks were decoded may be pushed out by any."""


@dataclass(slots=True)
class _Held:
    """A block that is kept."""

    block: Block | None
    nbytes: int
    used_at: int
    """Bytes that had been decoded when it was last asked for."""


class BlockCache:
    """Decoded blocks by key under a byte budget; safe under threads.

    Two kinds of blocks share the budget. Those that reach out of a super-tile are wanted again by its neighbours: the
    least recently used goes first. Those inside one are wanted again only by a later run: they are kept as long as
    there is room and push out nothing that is not stale. So a first pass over more than fits costs nothing, and a
    second one finds what the first has kept, where least-recently-used would find none of it.

    Parameters
    ----------
    budget_bytes : int
        Most bytes of pixels held; 0 holds nothing.

    Notes
    -----
    `zict.LRU` was used before. It lets several threads exceed its budget together for a moment, and cannot say whether
    a block would be kept before it is decoded, on which it depends where it is decoded to.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._lock = Lock()
        self._shared: OrderedDict[BlockKey, _Held] = OrderedDict()
        self._later: OrderedDict[BlockKey, _Held] = OrderedDict()
        self._shared_bytes = self._later_bytes = 0
        self._clock = 0

    @property
    def held_bytes(self) -> int:
        """Return the bytes that are held now."""
        return self._shared_bytes + self._later_bytes

    def get(self, key: BlockKey, decode: Callable[[], Block | None]) -> Block | None:
        """Return the block of `key`, from memory or by calling `decode`, and keep it for this run.

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
        is_held, block = self.find(key)
        if not is_held:
            # Two threads may decode the same block at the same time: cheaper than making one wait for the other.
            block = decode()
            self.keep(key, block)
        return block

    def find(self, key: BlockKey) -> tuple[bool, Block | None]:
        """Return whether a block is held, and the block."""
        with self._lock:
            kind = self._shared if key in self._shared else self._later
            held = kind.get(key)
            if held is not None:
                kind.move_to_end(key)
                held.used_at = self._clock
        if held is None:
            tell(DECODED, misses=1)
            return False, None
        tell(DECODED, hits=1, bytes=held.nbytes - ENTRY_BYTES)
        return True, held.block

    def has_room(self, nbytes: int) -> bool:
        """Return whether a block that only a later run will ask for would be kept; to be asked once a block.

        Parameters
        ----------
        nbytes : int
            Size of its pixels.

        Returns
        -------
        bool
            Whether `keep_later` is worth a call.
        """
        with self._lock:
            self._clock += nbytes + ENTRY_BYTES
            return nbytes <= self.budget_bytes // 2 and (
                self.held_bytes + nbytes + ENTRY_BYTES <= self.budget_bytes or self._stale() is not None
            )

    def keep(self, key: BlockKey, block: Block | None) -> None:
        """Keep a block that this run asks for again; it may push out others."""
        nbytes = _nbytes(block)
        if nbytes > self.budget_bytes // 2:
            return
        with self._lock:
            self._clock += nbytes
            self._drop(key)
            evictions = 0
            while self.held_bytes + nbytes > self.budget_bytes:
                is_much = self._shared_bytes + nbytes > self.budget_bytes // SHARED_PART
                kind = self._shared if self._shared and (is_much or not self._later) else self._later
                evictions += self._drop(next(iter(kind)))
            self._shared[key] = _Held(block, nbytes, self._clock)
            self._shared_bytes += nbytes
        tell(DECODED, evictions=evictions)

    def keep_later(self, key: BlockKey, block: Block | None) -> None:
        """Keep a block that a later run may ask for, if there is room; it owns its memory."""
        nbytes = _nbytes(block)
        if nbytes > self.budget_bytes // 2:
            return
        evictions = 0
        with self._lock:
            self._drop(key)
            while self.held_bytes + nbytes > self.budget_bytes:
                stale = self._stale()
                if stale is None:  # another thread has taken the room
                    break
                evictions += self._drop(stale)
            else:
                self._later[key] = _Held(block, nbytes, self._clock)
                self._later_bytes += nbytes
        tell(DECODED, evictions=evictions)

    def resize(self, budget_bytes: int) -> None:
        """Change the budget, and drop what no longer fits."""
        evictions = 0
        with self._lock:
            self.budget_bytes = budget_bytes
            while self.held_bytes > budget_bytes:
                evictions += self._drop(next(iter(self._shared or self._later)))
        tell(DECODED, evictions=evictions)

    def clear(self) -> None:
        """Drop every block."""
        with self._lock:
            self._shared.clear()
            self._later.clear()
            self._shared_bytes = self._later_bytes = 0

    def _stale(self) -> BlockKey | None:
        for kind in (self._later, self._shared):
            for key, held in kind.items():
                if held.used_at < self._clock - STALE_BUDGETS * self.budget_bytes:
                    return key
                break
        return None

    def _drop(self, key: BlockKey) -> int:
        """Drop a block and return how many were dropped."""
        if key in self._shared:
            self._shared_bytes -= self._shared.pop(key).nbytes
        elif key in self._later:
            self._later_bytes -= self._later.pop(key).nbytes
        else:
            return 0
        return 1


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
        return ENTRY_BYTES
    base = block.pixels.base
    pixels = base.nbytes if isinstance(base, np.ndarray) else block.pixels.nbytes
    return ENTRY_BYTES + pixels + (0 if block.valid is None else block.valid.nbytes)


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
        return _caches.setdefault(key, BlockCache(limits.within(budget_bytes)))


def fit_blocks() -> None:
    """Fit the caches of this process to its share of the machine, after that has changed."""
    for (process, budget_bytes), cache in list(_caches.items()):
        if process == os.getpid():
            cache.resize(limits.within(budget_bytes))


def forget_blocks() -> None:
    """Drop all decoded blocks of this process, after a store was written whose fingerprint may be that of before."""
    for cache in list(_caches.values()):
        cache.clear()
