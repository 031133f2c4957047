"""Which tiles a map is made of, and which part of each counts where; the same however the map is cut.

A tile is read as a window, its core and the halo around it. Windows that would reach beyond the image are moved back
inside, so that a stage meets the edge of the image where the image has it, as it would in one piece; unless its tiles
are regions of a hierarchy, whose place says which tiles of an encoder they hold. Without blending a
tile counts in its core alone, and the cores partition the image. With blending it counts as far as its contract lets
it, and what lies over a neighbour is feathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.grid import Ints
from tilestream.plan.tiles import TilePlan
from tilestream.types import Box, Shape


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseTiles:
    """Some tiles; all positions are plan pixels, ends are exclusive."""

    number: Ints
    """`(n,)` row-major position in the grid of tiles."""
    window_yx: Ints
    """`(n, 2)` first row and column of what the stage is given."""
    core: Ints
    """`(n, 2, 2)` first and end of the core along y and along x, inside the image."""
    used: Ints
    """`(n, 2, 2)` the same of what counts."""
    owned: npt.NDArray[np.bool_]
    """`(n,)` whether the core begins inside the box: each tile is owned once."""

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.number)


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseGrid:
    """The tiles of a map over a whole image."""

    plan: TilePlan
    """Which tiles, with their halo."""
    stride: int = 1
    """Plan pixels along an edge of a pixel of the map."""
    trim_px: int = 0
    """Pixels along the inner edges of a window of which the output does not count."""
    is_blended: bool = False
    """Whether neighbours are feathered over each other."""
    keeps_place: bool = False
    """Whether windows reach beyond the image instead of being moved."""

    def __post_init__(self) -> None:
        if self.plan.is_listed:
            raise ConfigError.of(
                "tiles of a map",
                got="coordinates of patches that lie on no common grid",
                expected="tiles side by side",
                do="Plan with `where=tilestream.plan.where.select(…)`, which takes the area of the patches.",
            )
        grid = self.plan.grid
        edges = (grid.tile_px, grid.step_px, grid.halo_px, *(-n for n in grid.origin_yx))
        if any(edge % self.stride for edge in edges):
            raise ConfigError.of(
                "tiles of a map",
                got=f"a tile of {grid.tile_px} px, halo {grid.halo_px} px, step {grid.step_px} px",
                expected=f"multiples of the stage's stride, {self.stride} px",
                do="Choose another --tile or --halo.",
            )
        if grid.halo_px < self.trim_px:
            raise ConfigError.of(
                "`halo_px` (`--halo`)",
                got=f"{grid.halo_px} px",
                expected=f"at least the {self.trim_px} px that the stage's contract says it looks around",
                do="Give a larger --halo, or leave it out.",
            )
        if grid.edge == "shift" or (grid.step_px != grid.tile_px and not self.is_blended):
            raise ConfigError.of(
                "tiles of a map",
                got=f"edge {grid.edge!r}, a step of {grid.step_px} px for tiles of {grid.tile_px} px",
                expected="cores that lie side by side: `step_px` as `tile_px`, and no `shift`",
                do="Use `halo_px` for overlap.",
            )
        if self.is_blended and not self.feather_px:
            raise ConfigError.of(
                "`blend` (`--blend`)",
                got=f"a halo of {grid.halo_px} px, of which the stage uses up {self.trim_px}",
                expected="a halo that leaves an overlap to blend in",
                do="Give a larger --halo, or no --blend.",
            )

    @property
    def shape(self) -> Shape:
        """Return the size of the map, px."""
        area = self.plan.level.shape
        return Shape(y=-(-area.y // self.stride), x=-(-area.x // self.stride))

    @property
    def cell_yx(self) -> tuple[float, float]:
        """Return the size of a pixel of the map in level-0 pixels of the image."""
        y, x = self.plan.level.scale_yx
        return y * self.stride, x * self.stride

    @property
    def window_px(self) -> Shape:
        """Return the size of what the stage is given: less than a tile with its halo where the image is smaller."""
        edge = self.plan.grid.tile_px + 2 * self.plan.grid.halo_px
        if self.keeps_place:
            return Shape(y=edge, x=edge)
        return Shape(y=min(edge, self.shape.y * self.stride), x=min(edge, self.shape.x * self.stride))

    @property
    def feather_px(self) -> int:
        """Return how far neighbours lie over each other, plan pixels."""
        grid = self.plan.grid
        return grid.tile_px - grid.step_px + 2 * (grid.halo_px - self.trim_px)

    @cached_property
    def _axes(self) -> tuple[tuple[Ints, Ints, Ints], tuple[Ints, Ints, Ints]]:
        """Return windows `(n,)`, cores `(n, 2)` and used parts `(n, 2)` of the tile rows, and of the tile columns."""
        grid, shape, window = self.plan.grid, self.shape, self.window_px
        return (
            self._axis(grid.starts_y(), shape.y * self.stride, window.y),
            self._axis(grid.starts_x(), shape.x * self.stride, window.x),
        )

    def _axis(self, starts: Ints, length: int, window: int) -> tuple[Ints, Ints, Ints]:
        grid = self.plan.grid
        first = starts - grid.halo_px
        if not self.keeps_place:
            first = np.clip(first, 0, length - window)
        core = np.clip(np.stack([starts, starts + grid.tile_px], axis=1), 0, length)
        if not self.is_blended:
            return first, core, core
        last = first + window
        # at the edge of the image nothing was out of sight
        used = np.stack([np.where(first > 0, first + self.trim_px, first), last], axis=1)
        used[:, 1] -= np.where(last < length, self.trim_px, 0)
        return first, core, used

    def tiles(self, box: Box) -> DenseTiles:
        """Return the wanted tiles that count somewhere in a box.

        Parameters
        ----------
        box : Box
            In pixels of the map.

        Returns
        -------
        DenseTiles
            Row by row.
        """
        ends = [(box.y, box.y_stop), (box.x, box.x_stop)]
        inside = [
            np.flatnonzero((used[:, 0] < stop * self.stride) & (used[:, 1] > start * self.stride))
            for (_, _, used), (start, stop) in zip(self._axes, ends, strict=True)
        ]
        iy, ix = (axis.ravel() for axis in np.meshgrid(*inside, indexing="ij"))
        if self.plan.wanted is not None:
            kept = self.plan.wanted[iy, ix]
            iy, ix = iy[kept], ix[kept]
        (first_y, core_y, used_y), (first_x, core_x, used_x) = self._axes
        core = np.stack([core_y[iy], core_x[ix]], axis=1)
        start = np.array([edge * self.stride for edge, _ in ends])
        stop = np.array([edge * self.stride for _, edge in ends])
        return DenseTiles(
            number=iy * self.plan.grid.shape.x + ix,
            window_yx=np.stack([first_y[iy], first_x[ix]], axis=1),
            core=core,
            used=np.stack([used_y[iy], used_x[ix]], axis=1),
            owned=np.asarray(((core[:, :, 0] >= start) & (core[:, :, 0] < stop)).all(axis=1)),
        )
