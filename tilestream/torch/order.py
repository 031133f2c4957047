"""In which order an epoch shows its tiles, and which of them belong to whom: a function of numbers alone.

All super-tiles of all images are put into an order, by chance or as they lie; their tiles, one after the other, are a
line. Each rank takes a stretch of it, all of one length. A stretch is read window by window, a few super-tiles at a
time, and the tiles of a window are shuffled among each other. So reading stays local, and no rank has more than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.plan.tiles import TilePlan
from tilestream.sinks.rowsread import split_rows

Ints: TypeAlias = npt.NDArray[np.int64]
Ends: TypeAlias = Literal["drop", "pad", "keep"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some tiles of one super-tile that are read together."""

    image: int
    """Place in the list of images."""
    iy: int
    """Row of the super-tile."""
    ix: int
    """Column of the super-tile."""
    tiles: range
    """Which of its tiles."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitTable:
    """The super-tiles of all images."""

    image: Ints
    """`(u,)` place in the list of images."""
    place_yx: Ints
    """`(u, 2)` position in the image's grid of super-tiles."""
    tiles: Ints
    """`(u,)` wanted tiles."""

    @classmethod
    def of(cls, plans: Sequence[TilePlan]) -> UnitTable:
        """Return the super-tiles of some plans that own a tile."""
        sizes = [plan.unit_sizes() for plan in plans]
        return cls(
            image=np.repeat(np.arange(len(plans)), [len(tiles) for _, tiles in sizes]),
            place_yx=np.concatenate([places for places, _ in sizes]),
            tiles=np.concatenate([tiles for _, tiles in sizes]),
        )


@dataclass(frozen=True, kw_only=True)
class Share:
    """Who of how many asks."""

    rank: int = 0
    """Process that trains."""
    ranks: int = 1
    """How many there are."""
    worker: int = 0
    """Worker of a `DataLoader` in that process."""
    workers: int = 1
    """How many there are; 1 without a `DataLoader`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochOrder:
    """The tiles of one epoch for one share, as windows."""

    units: UnitTable
    """All super-tiles."""
    share: Share
    """Whose tiles."""
    batch: int
    """Tiles in a batch."""
    window: int
    """Tiles in a window."""
    ends: Ends
    """What becomes of tiles that do not fill a batch on every rank; see `TileDataset`."""
    seed: int | None
    """None for the order in which tiles lie."""
    epoch: int
    """Number of the epoch."""

    @property
    def total(self) -> int:
        """Return the tiles of all images."""
        return int(self.units.tiles.sum())

    @cached_property
    def stretch(self) -> tuple[int, int, int]:
        """Return where the share begins on the line of tiles, its tiles, and its batches.

        Workers split the batches of their rank, so that a rank has as many with workers as without.
        """
        total, share = self.total, self.share
        if self.ends == "keep":
            start = total * share.rank // share.ranks
            tiles = total * (share.rank + 1) // share.ranks - start
        else:
            tiles = total // share.ranks if self.ends == "drop" else -(-total // share.ranks)
            start = tiles * share.rank
        batches = tiles // self.batch if self.ends == "drop" else -(-tiles // self.batch)
        low, high = (batches * (share.worker + more) // share.workers for more in (0, 1))
        stop = tiles if share.worker + 1 == share.workers else min(tiles, high * self.batch)
        return start + low * self.batch, max(0, stop - low * self.batch), high - low

    @property
    def batches(self) -> int:
        """Return the batches of the share."""
        return self.stretch[2]

    @property
    def dropped(self) -> int:
        """Return the tiles that no rank shows in an epoch."""
        if self.ends != "drop":
            return 0
        return self.total - self.total // self.share.ranks // self.batch * self.batch * self.share.ranks

    @property
    def windows(self) -> int:
        """Return the windows of the share."""
        return -(-self.stretch[1] // self.window)

    def pieces(self, number: int, most: int) -> list[Piece]:
        """Return what a window reads, in the order of the line.

        Parameters
        ----------
        number : int
            The window.
        most : int
            Most tiles in a piece.

        Returns
        -------
        list of Piece
            All tiles of the window.
        """
        start, tiles, _ = self.stretch
        low = start + number * self.window
        high = min(low + self.window, start + tiles)
        total = self.total
        runs = [range(low, min(high, total)), range(max(low, total) - total, high - total)]  # padding begins anew
        found = []
        for run in runs:
            for place, _, rows in split_rows(run, self._edges):
                unit, first, stop = int(self._order[place]), int(rows[0]), int(rows[-1]) + 1
                iy, ix = self.units.place_yx[unit].tolist()
                found += [
                    Piece(image=int(self.units.image[unit]), iy=iy, ix=ix, tiles=range(low, min(low + most, stop)))
                    for low in range(first, stop, most)
                ]
        return found

    def shuffled(self, number: int) -> Ints:
        """Return the order in which a window's tiles are shown."""
        _, tiles, _ = self.stretch
        size = min(self.window, tiles - number * self.window)
        if self.seed is None:
            return np.arange(size)
        share = self.share
        seeds = [self.seed, self.epoch, 1, share.rank, share.ranks, share.worker, share.workers, number]
        return np.random.default_rng(seeds).permutation(size)

    def seed_of(self, batch: int) -> int:
        """Return the seed of a batch."""
        share = self.share
        known = [self.seed or 0, self.epoch, 2, share.rank, share.ranks, share.worker, share.workers, batch]
        return int(np.random.SeedSequence(known).generate_state(1, np.uint64)[0] >> 1)  # torch takes 63 bits

    @cached_property
    def _order(self) -> Ints:
        units = len(self.units.tiles)
        if self.seed is None:
            return np.arange(units)
        return np.random.default_rng([self.seed, self.epoch, 0]).permutation(units)

    @cached_property
    def _edges(self) -> Ints:
        return np.concatenate([[0], np.cumsum(self.units.tiles[self._order])])
