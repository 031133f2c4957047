"""The images of one store and the units of work that write them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

from tilestream.grid import hilbert_order
from tilestream.sinks.layout import TIER, StoreLayout, StoreLevel
from tilestream.types import Box, Receipt, Shape


@dataclass(frozen=True, kw_only=True)
class StoreUnit:
    """What one task writes: shards of one level, copied, or all that is made of a square of a base level."""

    step: Literal["copy", "make"]
    """How pixels get there."""
    level: int
    """Level of the store that is copied, or made from."""
    tier: int = 0
    """Which base: levels `TIER * tier + 1` and on are made from it."""
    iy: int
    """Row in the grid of shards, or of units of the base."""
    ix: int
    """Column."""

    @property
    def key(self) -> str:
        """Return the name of the unit, unique in its store."""
        return f"L{self.level}-{self.step}{self.tier}-y{self.iy}-x{self.ix}"


@dataclass(frozen=True, kw_only=True)
class StorePlan:
    """The units of a store; those of further tiers are done when all others are."""

    layout: StoreLayout
    """Arrays of the image; those of its labels lie on the same grid."""

    @cached_property
    def digest(self) -> str:
        """Return the hex digest of all that decides the units."""
        text = json.dumps(asdict(self.layout), sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __len__(self) -> int:
        """Return the number of units that can run at once."""
        copied = sum(level.shards.area for level in self.layout.levels if level.copied is not None)
        return copied + (self.grid(0).area if self.made(0) else 0)

    def start(self) -> Iterator[StoreUnit]:
        """Yield the units that need nothing but the source, along Hilbert curves."""
        for level in self.layout.levels:
            if level.copied is not None:
                for iy, ix in hilbert_order(level.shards).tolist():
                    yield StoreUnit(step="copy", level=level.index, iy=iy, ix=ix)
        yield from self.tier(0)

    def after(self, receipt: Receipt) -> Iterable[StoreUnit]:
        """Return nothing: further tiers need all units of the one before."""
        return ()

    def tier(self, tier: int) -> Iterator[StoreUnit]:
        """Yield the units that make levels from one base; none where that makes no level.

        Parameters
        ----------
        tier : int
            0 for the units on level 0 of the source.

        Yields
        ------
        StoreUnit
            Along a Hilbert curve.
        """
        if not self.made(tier):
            return
        base = self.layout.base(tier)
        for iy, ix in hilbert_order(self.grid(tier)).tolist():
            yield StoreUnit(step="make", level=base or 0, tier=tier, iy=iy, ix=ix)

    @property
    def tiers(self) -> range:
        """Return the tiers that make a level."""
        most = max((level.halvings or 0 for level in self.layout.levels), default=0)
        return range(max(1, -(-most // TIER)))

    def made(self, tier: int) -> dict[int, StoreLevel]:
        """Return the levels that a tier makes, by how often its base is halved for them.

        Parameters
        ----------
        tier : int
            Which base.

        Returns
        -------
        dict
            Halvings of the base → level; 0 is the base itself, where that is made of the source.
        """
        first = TIER * tier
        return {
            level.halvings - first: level
            for level in self.layout.levels
            if level.copied is None
            and level.halvings is not None
            and (first < level.halvings <= first + TIER or level.halvings == first == 0)
        }

    def grid(self, tier: int) -> Shape:
        """Return the number of units of a tier along each axis."""
        shape = self._base_shape(tier)
        edge = self.layout.unit_px
        return Shape(y=-(-shape.y // edge), x=-(-shape.x // edge))

    def box(self, unit: StoreUnit) -> Box:
        """Return the pixels of the base that a unit is made of, cut to the image, as a box of the base."""
        edge, shape = self.layout.unit_px, self._base_shape(unit.tier)
        box = Box(y=unit.iy * edge, x=unit.ix * edge, height=edge, width=edge)
        return box.intersect(Box(y=0, x=0, height=shape.y, width=shape.x))

    def _base_shape(self, tier: int) -> Shape:
        whole = self.layout.levels[0].shape
        return Shape(y=-(-whole.y // 2 ** (TIER * tier)), x=-(-whole.x // 2 ** (TIER * tier)))
