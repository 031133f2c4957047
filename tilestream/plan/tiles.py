"""Plans of tiles: which tiles of an image are wanted, in which units of work, under which row numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.grid import Edge, Ints, TileGrid, hilbert_order, super_tile_edge
from tilestream.kernels.checks import need_kind
from tilestream.plan.levels import TOLERANCE, LevelChoice, choose_level
from tilestream.plan.planned import image_key
from tilestream.plan.selection import MIN_SHARE, Selection, tile_shares
from tilestream.plan.snap import Snap, snap_level
from tilestream.plan.where import select
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid
from tilestream.sources.patchfiles import is_patch_file
from tilestream.types import PlanLevel, Receipt, Shape, SuperTile

FORMAT = 1
"""Version of what a digest is made of; to be raised when the same arguments give other tiles."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TilePlan:
    """Which tiles of one image at one level; holds a bit and a share a tile, never an object a tile."""

    image: str
    """Fingerprint and selection of the image."""
    level: PlanLevel
    """Resolution at which the tiles lie."""
    grid: TileGrid
    """All tiles of the level, wanted or not."""
    super_tile_px: int
    """Edge of a unit of work, plan pixels."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per plan pixel."""
    where: str = "all"
    """What selected the tiles."""
    min_share: float = 0.0
    """Share of a core's part inside the image that has to be selected for its tile to be wanted."""
    whole_px: int | None = None
    """Edge of the regions that are wanted whole, by the share of a region that is selected; None = tile by tile."""
    wanted: npt.NDArray[np.bool_] | None = None
    """`(y, x)` over the grid's tiles; None = all."""
    share: npt.NDArray[np.float32] | None = None
    """`(y, x)` selected share of each core's part inside the image; None = all of it."""
    selection: Selection | None = None
    """The mask behind `share`, for outlines and reports; None with `all`."""
    notes: tuple[str, ...] = ()
    """What a user should know: level chosen otherwise than asked, no tissue found."""
    begin_at: float = 0.0
    """Share of the way along the curve at which `start` begins, for runs that share the work; decides no tile."""

    @cached_property
    def digest(self) -> str:
        """Return the hex digest of all that decides tiles, rows and units."""
        known = {
            "format": FORMAT,
            "image": self.image,
            "level": asdict(self.level),
            "grid": asdict(self.grid),
            "super_tile_px": self.super_tile_px,
            "where": self.where,
            "min_share": self.min_share,
            **({} if self.whole_px is None else {"whole_px": self.whole_px}),
        }
        text = json.dumps(known, sort_keys=True, separators=(",", ":"), default=str)
        digest = blake2b(text.encode(), digest_size=16)
        if self.wanted is not None:
            digest.update(np.packbits(self.wanted).tobytes())
        if self.share is not None:
            digest.update(self._of_wanted(self.share).astype("<f4").tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return the number of wanted tiles."""
        return int(self._counts.sum())

    @property
    def is_listed(self) -> bool:
        """Return whether tiles lie off the grid, where another program has cut them; see `ListedPlan`."""
        return False

    @property
    def units(self) -> int:
        """Return the number of units that own a wanted tile."""
        return int(np.count_nonzero(self._counts))

    def start(self) -> Iterator[SuperTile]:
        """Yield all units along a Hilbert curve; units without a wanted tile do not exist."""
        curve = hilbert_order(Shape(y=self._counts.shape[0], x=self._counts.shape[1]))
        for iy, ix in np.roll(curve, -int(self.begin_at * len(curve)), axis=0):
            if self._counts[iy, ix]:
                yield self.unit(int(iy), int(ix))

    def after(self, receipt: Receipt) -> Iterable[SuperTile]:
        """Return nothing: all tiles are known from the start."""
        return ()

    def in_row_order(self) -> Iterator[SuperTile]:
        """Yield all units in the order of their rows."""
        for iy, ix in np.argwhere(self._counts):
            yield self.unit(int(iy), int(ix))

    def unit(self, iy: int, ix: int) -> SuperTile:
        """Return one unit of work.

        Parameters
        ----------
        iy, ix : int
            Position in the grid of super-tiles.

        Returns
        -------
        SuperTile
            Its wanted tiles in row order with their shares; none where nothing is wanted.
        """
        rows, columns = self._tiles_of(iy, ix)
        y, x = self.grid.starts_y(rows.start, rows.stop), self.grid.starts_x(columns.start, columns.stop)
        corners = np.stack(np.broadcast_arrays(y[:, None], x[None, :]), axis=-1)
        chosen = np.ones(corners.shape[:2], np.bool_) if self.wanted is None else self.wanted[rows, columns]
        return SuperTile(
            plan=self.digest,
            level=self.level,
            iy=iy,
            ix=ix,
            first_row=int(self._first_rows[iy, ix]),
            tile_yx=corners[chosen],
            tile_px=self.grid.tile_px,
            halo_px=self.grid.halo_px,
            share=None if self.share is None else self.share[rows, columns][chosen],
        )

    def unit_sizes(self) -> tuple[Ints, Ints]:
        """Return place and number of tiles of each unit that owns one, in the order of their rows.

        Returns
        -------
        place_yx : ndarray of int64
            `(units, 2)` position in the grid of super-tiles.
        tiles : ndarray of int64
            `(units,)`.
        """
        place_yx = np.argwhere(self._counts)
        return place_yx, self._counts[place_yx[:, 0], place_yx[:, 1]]

    def shares(self, unit: SuperTile) -> npt.NDArray[np.float32]:
        """Return the selected share of each tile of a unit, `(n,)`, 1 where everything is wanted.

        Parameters
        ----------
        unit : SuperTile
            A unit of this plan.

        Returns
        -------
        ndarray of float32
            In row order.
        """
        return np.ones(len(unit.tile_yx), np.float32) if unit.share is None else unit.share

    @property
    def _edge_tiles(self) -> int:
        return self.super_tile_px // self.grid.step_px

    def _tiles_of(self, iy: int, ix: int) -> tuple[slice, slice]:
        edge, shape = self._edge_tiles, self.grid.shape
        return (
            slice(iy * edge, min((iy + 1) * edge, shape.y)),
            slice(ix * edge, min((ix + 1) * edge, shape.x)),
        )

    @cached_property
    def _counts(self) -> Ints:
        shape, edge = self.grid.shape, self._edge_tiles
        if not shape.area:
            return np.zeros((0, 0), np.int64)
        at_y, at_x = np.arange(0, shape.y, edge), np.arange(0, shape.x, edge)
        if self.wanted is None:
            return np.outer(np.diff(at_y, append=shape.y), np.diff(at_x, append=shape.x)).astype(np.int64)
        # band by band: summing bools as integers takes eight bytes for each of them meanwhile
        bands = [self.wanted[y : y + edge].sum(axis=0, dtype=np.int64) for y in at_y]
        return np.asarray(np.add.reduceat(np.stack(bands), at_x, axis=1), np.int64)

    @cached_property
    def _first_rows(self) -> Ints:
        ends = np.cumsum(self._counts.ravel())
        return np.asarray((ends - self._counts.ravel()).reshape(self._counts.shape), np.int64)

    def _of_wanted(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values if self.wanted is None else values[self.wanted]


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """A level with its tiles and units, before anything is selected."""

    choice: LevelChoice
    """Resolution."""
    grid: TileGrid
    """All tiles."""
    super_tile_px: int
    """Edge of a unit."""
    whole_px: int | None = None
    """Edge of the regions that are wanted whole."""


def plan_tiles(  # noqa: PLR0913 - the public call: each option of a plan is one keyword
    pyr: Pyramid,
    *,
    tile_px: int = 256,
    mpp: float | None = None,
    halo_px: int = 0,
    where: str | Selection = "tissue",
    step_px: int | None = None,
    edge: Edge = "cover",
    min_share: float | None = None,
    super_tile_px: int | None = None,
    region_px: int | None = None,
    whole_regions: bool = False,
    snap: Snap | None = None,
    source_mpp: float | None = None,
    needs_mpp: bool = False,
    tolerance: float = TOLERANCE,
) -> TilePlan:
    """Return the plan of an image's tiles.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    tile_px : int
        Edge of a tile's core, plan pixels.
    mpp : float, optional
        Micrometres per plan pixel; None = native resolution.
    halo_px : int
        Overlap around each core that is read too.
    where : str or Selection
        `tissue`, `all`, the path of a mask image or a GeoJSON file, or a selection made before. Or an HDF5 file of
        coordinates by TRIDENT, CLAM, wsinfer or AtlasPatch: its patches are the tiles, each exactly in its place, and
        `tile_px` says how many pixels a patch becomes.
    step_px : int, optional
        Distance between neighbours; less than `tile_px` makes cores overlap. Default: `tile_px`.
    edge : str
        `cover`: the last tiles reach outside; `shift`: they move back inside; `drop`: whole tiles only.
    min_share : float, optional
        Share of a core's part inside the image that must be selected, in (0, 1]; 0.1 unless given. Not used with
        `all`.
    super_tile_px : int, optional
        Edge of a unit of work, plan pixels; a multiple of step and region.
    region_px : int, optional
        Edge of the regions of a stage chain, plan pixels; units are cut along them. Default: the unit.
    whole_regions : bool
        Want all tiles of a region of which at least `min_share` is selected, and none of the others, instead of
        choosing tile by tile: for region stages that have never seen a region with holes.
    snap : Snap, optional
        Fixed CRS grid whose squares are the tiles; decides the resolution, so `mpp` stays None.
    source_mpp : float, optional
        Micrometres per pixel of level 0, stated by the user.
    needs_mpp : bool
        Whether an image of unknown resolution is refused.
    tolerance : float
        Relative difference up to which a stored level counts as the wanted one.

    Returns
    -------
    TilePlan
        The plan; `len` is the number of tiles.

    Raises
    ------
    ConfigError
        When arguments contradict each other or the image.

    Notes
    -----
    Memory is a bool and a float32 a tile (none with `all`) and the selection mask of at most 4 million pixels.
    """
    need_kind("plan_tiles", "pyr", pyr, Pyramid, do=OPEN_FIRST)
    if isinstance(where, str) and is_patch_file(where):
        from tilestream.plan.listed import plan_patches, require_alone

        require_alone(where, is_alone=step_px is None and snap is None and not whole_regions)
        return plan_patches(
            pyr,
            where,
            tile_px=tile_px,
            mpp=mpp,
            halo_px=halo_px,
            super_tile_px=super_tile_px,
            region_px=region_px,
            source_mpp=source_mpp,
            needs_mpp=needs_mpp,
        )
    step = tile_px if step_px is None else step_px
    if snap is None:
        choice = choose_level(pyr.info, mpp=mpp, source_mpp=source_mpp, needs_mpp=needs_mpp, tolerance=tolerance)
        origin_yx = (0, 0)
    else:
        _require_free(mpp=mpp, edge=edge)
        choice, origin_yx = snap_level(pyr.info, snap, tile_px=tile_px)
    grid = TileGrid(
        area=choice.level.shape, tile_px=tile_px, step_px=step, halo_px=halo_px, edge=edge, origin_yx=origin_yx
    )
    edge_px = super_tile_edge(step, region_px=region_px or 1, super_tile_px=super_tile_px)
    whole_px = (region_px or edge_px) if whole_regions else None
    if whole_px is not None and whole_px % step:
        expected = f"a multiple of the step, {step} px"
        raise ConfigError.of("`region_px` of whole regions", got=whole_px, expected=expected, do="Correct it.")
    cut = _Cut(choice=choice, grid=grid, super_tile_px=edge_px, whole_px=whole_px)
    if where == "all":
        return _plan(pyr, cut)
    selection = where
    if isinstance(selection, str):
        tile_level0_px = tile_px * max(choice.level.scale_yx)
        selection = select(pyr, selection, tile_level0_px=tile_level0_px, source_mpp=source_mpp)
    return _plan(pyr, cut, selection=selection, min_share=MIN_SHARE if min_share is None else min_share)


def _require_free(*, mpp: float | None, edge: Edge) -> None:
    """Refuse what a fixed grid decides by itself."""
    if mpp is not None or edge == "shift":
        raise ConfigError.of(
            "`snap`",
            got=f"mpp={mpp}, edge={edge!r}",
            expected="no `mpp`, since the grid decides it, and tiles that are not moved",
            do="Leave `mpp` out and use `cover` or `drop`.",
        )


def _plan(pyr: Pyramid, cut: _Cut, *, selection: Selection | None = None, min_share: float = 0.0) -> TilePlan:
    share = wanted = None
    notes = cut.choice.notes
    if selection is not None:
        if not 0 < min_share <= 1:
            raise ConfigError.of(
                "`min_share`", got=min_share, expected="above 0, at most 1", do="Give a share, e.g. 0.1."
            )
        share = tile_shares(selection, cut.choice.level, cut.grid)
        # float32 on both sides: a core covered by exactly the least share is in, whatever its last bit in float64
        wanted = (share if cut.whole_px is None else _region_shares(selection, cut)) >= np.float32(min_share)
        notes += selection.notes
        if selection.mask.any() and not wanted.any():
            what = "tile" if cut.whole_px is None else "region"
            notes += (f"no {what} of which {min_share:g} is selected",)
    return TilePlan(
        image=image_key(pyr),
        level=cut.choice.level,
        grid=cut.grid,
        super_tile_px=cut.super_tile_px,
        mpp_yx=cut.choice.mpp_yx,
        where="all" if selection is None else f"{selection.name}-{selection.digest}",
        min_share=min_share,
        whole_px=None if selection is None else cut.whole_px,
        wanted=wanted,
        share=share,
        selection=selection,
        notes=notes,
    )


def _region_shares(selection: Selection, cut: _Cut) -> npt.NDArray[np.float32]:
    """Return for each tile the selected share of its region's part inside the image, `(y, x)`."""
    edge_px = cut.whole_px or cut.super_tile_px
    regions = replace(cut.grid, tile_px=edge_px, step_px=edge_px, halo_px=0, edge="cover")
    share = tile_shares(selection, cut.choice.level, regions)
    rows, columns = (np.arange(count) // (edge_px // cut.grid.step_px) for count in cut.grid.shape.yx)
    return np.asarray(share[np.ix_(rows, columns)], np.float32)
