"""Plans of tiles that another program has cut: each exactly where its file of coordinates says.

Where all of them lie on one grid, as TRIDENT's do, the plan is an ordinary one with that grid. CLAM begins a grid at
each contour; such tiles are read at their own places all the same, and stand for the nearest square of a grid where a
raster needs one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.grid import Ints, TileGrid, super_tile_edge
from tilestream.plan.levels import ENLARGE, choose_level
from tilestream.plan.planned import image_key
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid import Pyramid
from tilestream.sources.patchfiles import PatchList, read_patches
from tilestream.types import PlanLevel, Shape, SuperTile

WHOLE = 0.05
"""How far from a whole stored pixel a corner may lie, px: levels are seldom reduced by exactly a whole number."""
FINE = 0.005
"""Relative difference up to which a stored level counts as fine enough."""
TERM = 1 << 12
"""Largest denominator of a ratio."""
MPP_TOLERANCE = 0.05
"""Relative difference of resolutions from which a user is told."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedPlan(TilePlan):
    """A plan of tiles that lie on no grid."""

    corner_yx: npt.NDArray[np.float64]
    """`(n, 2)` corners in pixels of level 0, those of a unit one after the other, from the top down."""
    cell_yx: Ints
    """`(n, 2)` nearest square of the grid."""

    @property
    def is_listed(self) -> bool:
        """Return True."""
        return True

    @cached_property
    def digest(self) -> str:
        """Return the hex digest of all that decides tiles, rows and units."""
        known = f"{self.image} {self.level} {self.grid} {self.super_tile_px} {self.where}"
        digest = blake2b(known.encode(), digest_size=16)
        digest.update(self.corner_yx.astype("<f8").tobytes())
        return digest.hexdigest()

    def unit(self, iy: int, ix: int) -> SuperTile:
        """Return one unit of work.

        Parameters
        ----------
        iy, ix : int
            Position in the grid of super-tiles.

        Returns
        -------
        SuperTile
            Its tiles with their corners.
        """
        first = int(self._first_rows[iy, ix])
        rows = slice(first, first + int(self._counts[iy, ix]))
        return SuperTile(
            plan=self.digest,
            level=self.level,
            iy=iy,
            ix=ix,
            first_row=first,
            tile_yx=self.cell_yx[rows] * self.grid.step_px,
            tile_px=self.grid.tile_px,
            halo_px=self.grid.halo_px,
            corner_yx=self.corner_yx[rows],
        )

    def within(self, bounds_yx: tuple[tuple[float, float], tuple[float, float]]) -> ListedPlan:
        """Return the plan of the tiles whose centres lie in a rectangle.

        Parameters
        ----------
        bounds_yx : tuple of tuple of float
            Start and end along y and along x, pixels of level 0.

        Returns
        -------
        ListedPlan
            Of the same image.
        """
        centre_yx = self.corner_yx + np.array(self.level.scale_yx) * (self.grid.tile_px / 2)
        low, high = np.array(bounds_yx).T
        kept = ((centre_yx >= low) & (centre_yx < high)).all(axis=1)
        return replace(self, corner_yx=self.corner_yx[kept], cell_yx=self.cell_yx[kept])

    @cached_property
    def _counts(self) -> Ints:
        edge, shape = self.super_tile_px // self.grid.step_px, self.grid.shape
        counts = np.zeros((-(-shape.y // edge), -(-shape.x // edge)), np.int64)
        np.add.at(counts, tuple((self.cell_yx // edge).T), 1)
        return counts


def require_alone(where: str, *, is_alone: bool) -> None:
    """Refuse patches where something else decides tiles too.

    Parameters
    ----------
    where : str
        Their file.
    is_alone : bool
        Whether nothing else does.

    Raises
    ------
    ConfigError
        With what to leave out.
    """
    if not is_alone:
        raise ConfigError.of(
            f"`where={where}`",
            got="patches by themselves, together with `step_px`, `snap` or whole regions",
            expected="tiles that nothing else decides",
            do="Leave the others out; for stages that take whole regions choose another `where` (`--where`).",
        )


def plan_patches(  # noqa: PLR0913 - options of `plan_tiles`
    pyr: Pyramid,
    path: str,
    *,
    tile_px: int,
    mpp: float | None = None,
    halo_px: int = 0,
    super_tile_px: int | None = None,
    region_px: int | None = None,
    source_mpp: float | None = None,
    needs_mpp: bool = False,
) -> TilePlan:
    """Return the plan of the patches that a file lists; see `plan_tiles`, which calls it.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    path : str
        HDF5 file of TRIDENT, CLAM, wsinfer or AtlasPatch.
    tile_px : int
        Edge of a tile as the stage sees it: what a patch covers becomes so many pixels.
    mpp : float, optional
        Resolution that the stage works at; where the patches have another, a note says so.
    halo_px, super_tile_px, region_px, source_mpp, needs_mpp
        As in `plan_tiles`.

    Returns
    -------
    TilePlan
        Rows are in the order of the plan, not of the file; `x` and `y` say which is which.

    Raises
    ------
    ConfigError
        When the file cannot be read, or is of another image.
    """
    patches = read_patches(Path(path.removeprefix("file://")))
    _require_of(pyr, patches, path)
    own = pyr.levels[patches.level].scale_yx[0] if patches.level < len(pyr.levels) else None
    size_px = patches.size_level0(Path(path), own)
    level, notes = _level(pyr, patches, size_px, tile_px, path)
    scale = level.scale_yx[0]
    base_yx = pyr.info.mpp_yx if source_mpp is None else (source_mpp, source_mpp)
    if base_yx is None and needs_mpp:
        choose_level(pyr.info, mpp=mpp, needs_mpp=True)  # says what is missing
    mpp_yx = None if base_yx is None else (base_yx[0] * scale, base_yx[1] * scale)
    if mpp_yx is not None and mpp is not None and any(abs(one / mpp - 1) > MPP_TOLERANCE for one in mpp_yx):
        notes += (f"patches are of {mpp_yx[0]:.4g} um/px as they are read, where {mpp:g} was asked for",)
    step_px = _step(patches, tile_px)
    known: dict[str, Any] = {
        "image": image_key(pyr),
        "level": level,
        "super_tile_px": super_tile_edge(step_px, region_px=region_px or 1, super_tile_px=super_tile_px),
        "mpp_yx": mpp_yx,
        "where": f"patches-{_digest(patches, size_px)}",
    }
    cut = _Cut(corner_yx=patches.xy[:, ::-1], size_px=size_px, tile_px=tile_px, step_px=step_px, halo_px=halo_px)
    on_grid = _on_grid(cut, known, notes)
    return _listed(cut, known, notes) if on_grid is None else on_grid


def _require_of(pyr: Pyramid, patches: PatchList, path: str) -> None:
    """Raise `ConfigError` where patches cannot be of this image."""
    shape, other = pyr.info.shape, patches.shape_yx
    outside = ((patches.xy < 0) | (patches.xy >= (shape.x, shape.y))).any(axis=1)
    if other is not None and other != shape.yx:
        got = f"patches of an image of {other[0]} x {other[1]} px"
    elif outside.any():
        x, y = patches.xy[np.flatnonzero(outside)[0]]
        got = f"{np.count_nonzero(outside):,} patches outside the image, such as x={x}, y={y}"
    else:
        return
    raise ConfigError.of(
        f"`{path}`",
        got=got,
        expected=f"patches of this image, {shape.y} x {shape.x} px",
        do="Name the file of this very slide.",
    )


def _step(patches: PatchList, tile_px: int) -> int:
    """Return the distance between tiles that the file states, plan pixels; a tile where it states none."""
    seen = patches.seen_px or tile_px
    exact = Fraction((seen - patches.overlap_px) * tile_px, seen)
    return int(exact) if exact.denominator == 1 and 0 < exact <= tile_px else tile_px


def _level(
    pyr: Pyramid, patches: PatchList, size_px: float, tile_px: int, path: str
) -> tuple[PlanLevel, tuple[str, ...]]:
    """Return the coarsest stored level that is fine enough and has a pixel at every corner, level 0 if no other has."""
    fine = [one for one in pyr.levels if size_px / max(one.scale_yx) >= tile_px * (1 - FINE)] or [pyr.levels[0]]
    level = next((one for one in reversed(fine) if _are_whole(patches.xy, one.scale_yx)), pyr.levels[0])
    ratio_yx = _ratio(size_px / level.scale_yx[0], tile_px), _ratio(size_px / level.scale_yx[1], tile_px)
    if min(ratio_yx) < ENLARGE:
        raise ConfigError.of(
            f"`{path}`",
            got=f"patches of {size_px:g} px of level 0, to be read as tiles of {tile_px} px",
            expected=f"at most {float(1 / ENLARGE):g} times as many pixels as there are",
            do="Give a smaller --tile.",
        )
    scale, shape = size_px / tile_px, pyr.info.shape
    plan = PlanLevel(
        stored=level.index,
        ratio_yx=ratio_yx,
        shape=Shape(y=-int(-shape.y // scale), x=-int(-shape.x // scale)),
        scale_yx=(scale, scale),
    )
    if level.index == fine[-1].index:
        return plan, ()
    note = f"patches begin between pixels of level {fine[-1].index}: they are read from level {level.index}"
    return plan, (note,)


def _ratio(stored_px: float, tile_px: int) -> Fraction:
    ratio = Fraction(stored_px / tile_px).limit_denominator(TERM)
    return Fraction(1) if abs(ratio - 1) <= FINE else ratio


def _are_whole(xy: Ints, scale_yx: tuple[float, float]) -> bool:
    stored = xy / np.array(scale_yx[::-1])
    return bool((abs(stored - np.rint(stored)) <= WHOLE).all())


def _digest(patches: PatchList, size_px: float) -> str:
    digest = blake2b(f"{size_px}".encode(), digest_size=16)
    digest.update(patches.xy.astype("<i8").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cut:
    """Patches and what becomes of each."""

    corner_yx: Ints
    """`(n, 2)` pixels of level 0."""
    size_px: float
    """Edge there."""
    tile_px: int
    """Edge as the stage sees it."""
    step_px: int
    """Distance between neighbours, plan pixels."""
    halo_px: int
    """Overlap around a tile."""

    def grid(self, level: PlanLevel, origin_yx: tuple[int, int] = (0, 0)) -> TileGrid:
        """Return the grid with a tile at an origin."""
        return TileGrid(
            area=level.shape, tile_px=self.tile_px, step_px=self.step_px, halo_px=self.halo_px, origin_yx=origin_yx
        )


def _on_grid(cut: _Cut, known: dict[str, Any], notes: tuple[str, ...]) -> TilePlan | None:
    """Return the plan on a grid, None where corners lie between its pixels or on several grids."""
    if not float(cut.size_px).is_integer():
        return None
    place_yx, rest = np.divmod(cut.corner_yx * cut.tile_px, int(cut.size_px))
    start = place_yx[0] % cut.step_px if len(place_yx) else np.zeros(2, np.int64)
    if rest.any() or (place_yx % cut.step_px != start).any():
        return None
    y, x = (int(one) - (cut.step_px if one else 0) for one in start)
    grid = cut.grid(known["level"], (y, x))
    cells = (place_yx - (y, x)) // cut.step_px
    if (cells >= grid.shape.yx).any():  # a sliver at the edge, in which the grid begins no tile
        return None
    wanted = np.zeros(grid.shape.yx, np.bool_)
    wanted[tuple(cells.T)] = True
    twice = len(cells) - int(np.count_nonzero(wanted))
    notes += (f"patches that are listed twice and read once: {twice:,}",) if twice else ()
    return TilePlan(**known, grid=grid, wanted=wanted, notes=notes)


def _listed(cut: _Cut, known: dict[str, Any], notes: tuple[str, ...]) -> ListedPlan:
    level = known["level"]
    grid = cut.grid(level)
    nearest = np.rint(cut.corner_yx / (np.array(level.scale_yx) * cut.step_px)).astype(np.int64)
    cells = np.clip(nearest, 0, np.array(grid.shape.yx) - 1)
    units = cells // (known["super_tile_px"] // cut.step_px)
    order = np.lexsort((cut.corner_yx[:, 1], cut.corner_yx[:, 0], units[:, 1], units[:, 0]))
    corner_yx = cut.corner_yx[order].astype(np.float64)
    return ListedPlan(**known, grid=grid, notes=notes, corner_yx=corner_yx, cell_yx=cells[order])
