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


class _Process:
    """The one cache of this process, and the largest budget that anybody has asked for."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Begin with nothing: a parent may have held a lock when it forked."""
        self.lock = Lock()
        self.asked_bytes = 0
        self.blocks = new_block_cache(0)

    def fit(self, asked_bytes: int) -> None:
        with self.lock:
            self.asked_bytes = max(self.asked_bytes, asked_bytes)
            self.blocks.resize(limits.within(self.asked_bytes))


_process = _Process()


def block_cache(budget_bytes: int) -> BlockCache:
    """Return this process's cache of decoded blocks; records carry a budget, not the cache.

    Parameters
    ----------
    budget_bytes : int
        Most bytes of pixels held in this process. There is one cache for all images, so that the largest budget that
        was asked for counts, and of that no more than the process's share of its machine, see `limits`.

    Returns
    -------
    Tier
        The same object for every budget.
    """
    if budget_bytes > _process.asked_bytes:  # without the lock: this is asked once a block, by every thread
        _process.fit(budget_bytes)
    return _process.blocks


def fit_blocks() -> None:
    """Fit the cache of this process to its share of the machine, after that has changed."""
    _process.fit(0)


def forget_blocks() -> None:
    """Drop all decoded blocks of this process, after a store was written whose fingerprint may be that of before."""
    _process.blocks.clear()
