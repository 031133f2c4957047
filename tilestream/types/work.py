"""Units of work: what a plan hands out, what a worker proves, what a sink takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilestream.types.geometry import Shape
from tilestream.types.image import Array


@dataclass(frozen=True, kw_only=True)
class PlanLevel:
    """The resolution a plan works at: a stored level, or a virtual one between two."""

    stored: int
    """Stored level that pixels are read from."""
    ratio_yx: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    """Stored pixels per plan pixel, fixed once; 1 means that nothing is resampled."""
    shape: Shape
    """Size of the plan's level in plan pixels."""
    scale_yx: tuple[float, float]
    """Level-0 pixels per plan pixel."""

    @cached_property
    def is_stored(self) -> bool:
        """Return whether plan pixels are stored pixels."""
        return self.ratio_yx == (Fraction(1), Fraction(1))


@dataclass(frozen=True, kw_only=True)
class SuperTile:
    """The unit of work: a square of plan pixels owned by one task, and which of its tiles are wanted."""

    plan: str
    """Digest of the plan."""
    level: PlanLevel
    """Resolution at which the tiles lie."""
    iy: int
    """Row in the grid of super-tiles."""
    ix: int
    """Column in the grid of super-tiles."""
    first_row: int
    """Feature row of its first tile; rows follow from the plan alone."""
    tile_yx: npt.NDArray[np.int64]
    """Top-left corners of the tile cores `(n, 2)` as y, x in plan pixels, in row order."""
    tile_px: int
    """Edge of a tile's core, plan pixels."""
    halo_px: int = 0
    """Overlap around a core, plan pixels."""
    share: npt.NDArray[np.float32] | None = None
    """`(n,)` share of each core that the plan's `where` selected; None = all of it."""
    corner_yx: npt.NDArray[np.float64] | None = None
    """`(n, 2)` corners in pixels of level 0, of tiles that lie off the grid since another program has cut them;
    `tile_yx` then names the nearest square of the grid. None = `tile_yx` is where they lie."""
    depth: int | None = None
    """Level of the quadtree that its tokens are of, the finest 0; None for tiles."""
    known: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """`(n,)` further values of each tile that the plan knows, by name: the `relevance` of tokens."""

    @property
    def key(self) -> str:
        """Return the name of the unit, unique in its plan.

        Tokens follow from scores, which another machine may round otherwise. So their units are named by their rows and
        places too: a receipt of a unit that has come out otherwise is the receipt of another one.
        """
        if self.depth is None:
            return f"L{self.level.stored}-y{self.iy}-x{self.ix}"
        known = blake2b(int(self.first_row).to_bytes(8, "little"), digest_size=4)
        known.update(self.tile_yx.astype("<i8").tobytes())
        return f"T{self.depth}-y{self.iy}-x{self.ix}-{known.hexdigest()}"

    @property
    def rows(self) -> range:
        """Return the feature rows that the unit owns."""
        return range(self.first_row, self.first_row + len(self.tile_yx))


class TileStatus(IntEnum):
    """What became of a tile; only `OK` tiles count in regions and slides."""

    OK = 0
    DAMAGED = 1
    """A block it touches could not be decoded; the reason is in the report."""
    EMPTY = 2
    """No valid pixel in it."""
    FAILED = 3
    """The stage raised on it, or returned a value that is not finite; the reason is in the receipt."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The durable proof that a super-tile is done; a small JSON file written after its outputs are on disk."""

    key: str
    """Key of the super-tile."""
    recipe: str
    """Digest of everything the outputs are a function of."""
    outputs: Mapping[str, str]
    """Checksum of each output file, by its path relative to the work folder."""
    tiles: int
    """Tiles in the super-tile."""
    damaged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Reason → feature rows of the tiles that could not be decoded."""
    failed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Stage and reason → feature rows of the tiles on which a stage has failed."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Tiles that are `empty` or `failed`, `batch_halved` how often for lack of memory, and what each tier of the caches
    did (`cache.decoded.hits`)."""
    bytes_read: int = 0
    """Compressed bytes asked of the source."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by step (`read`, `decode`, a stage's name, `write`), summed over this task's threads."""
    scores: tuple[float | None, ...] = ()
    """Coarse scores for plans that look coarse to fine, one a tile in row order, at most 64; None for a tile of which
    nothing is known, since it is damaged, empty or failed: it is never opened."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """Figures that the last step adds up over all units, a function of the outputs alone, such as squared errors."""
    worker: str = ""
    """Host and process that did it."""


class Unit(Protocol):
    """What one task does; a super-tile, or a piece of a store."""

    @property
    def key(self) -> str:
        """Return its name, unique in its plan."""


class Plan(Protocol):
    """Which units; pure and deterministic."""

    @property
    def digest(self) -> str:
        """Return the hex digest of all that decides the tiles."""

    def __len__(self) -> int:
        """Return the number of tiles (or tokens) known so far."""

    def start(self) -> Iterable[Unit]:
        """Yield the units that can run at once, in the order in which they should."""

    def after(self, receipt: Receipt) -> Iterable[Unit]:
        """Yield the units that a finished one opens; none for a plan of tiles."""


class Sink(Protocol):
    """Where results go; `write` runs on workers, the rest where the run was started."""

    def write(self, unit: SuperTile, results: Mapping[str, Array]) -> Mapping[str, str]:
        """Store the rows of one unit durably and return the checksum of each file, by relative path."""

    def finish(self, receipts: Iterable[Receipt]) -> None:
        """Turn parts into the final output, committed by one last rename, and remove the parts."""
