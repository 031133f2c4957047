"""What plans of tokens stand on: resolutions, the tree of squares over an image, and what of it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.grid import Ints, TileGrid, super_tile_edge
from tilestream.plan.levels import TOLERANCE, LevelChoice, choose_level
from tilestream.plan.planned import image_key
from tilestream.plan.selection import MIN_SHARE, Selection, tile_shares
from tilestream.plan.tokenplan import TokenPlan
from tilestream.plan.tree import TokenTree
from tilestream.plan.where import select
from tilestream.pyramid import Pyramid
from tilestream.pyramid.tokenlevels import COARSE, token_level
from tilestream.types import PlanLevel, Shape

MOST_LEVEL = 40
"""Highest token level; an image of 2^40 pixels along an edge has it."""

MOST_SQUARES = 1 << 24
"""Most finest squares: a plan takes some 70 bytes for each of them meanwhile, so 1.2 GB."""
EVEN = 1.01
"""Up to this ratio to the finest tokens a level counts as read like them: sizes of levels are rounded."""


@dataclass(frozen=True, kw_only=True)
class Squares:
    """Which squares of an image may become tokens."""

    patch_px: int = 16
    """Edge of a token as a stage sees it."""
    mpp: float | None = None
    """Micrometres per pixel of level 0 of the plan; None = native resolution."""
    source_mpp: float | None = None
    """Micrometres per pixel of the image's level 0, stated by the user."""
    needs_mpp: bool = False
    """Whether an image of unknown resolution is refused."""
    tolerance: float = TOLERANCE
    """Relative difference up to which a stored level counts as the wanted one."""
    branching: int | None = None
    """Children of a full node: 4 (unless `levels` say otherwise), 16, 64: with 16 every second level has tokens."""
    max_level: int | None = None
    """Coarsest token level; None = the first at which one square covers the image."""
    levels: Sequence[int] | None = None
    """Token levels, evenly spaced; None = all from 0."""
    where: str | Selection = "all"
    """Part of the image that is wanted."""
    min_share: float | None = None
    """Share of a finest square's part inside the image that must be selected; 0.1 unless given."""
    super_tile_px: int | None = None
    """Edge of a unit of work, pixels of the level that it lies on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """One image as a tree of squares."""

    image: str
    """Fingerprint and selection of the image."""
    choice: LevelChoice
    """Resolution of level 0 of the plan."""
    levels: tuple[PlanLevel, ...]
    """That of every level from 0 to the coarsest."""
    squares: Squares
    """As they were asked for."""
    tree: TokenTree
    """Nodes that are wanted."""
    super_tile_px: int
    """Edge of a unit."""
    selection: Selection | None
    """What `where` selected; None with `all`."""
    notes: tuple[str, ...]
    """What a user should know."""

    @property
    def where(self) -> str:
        """Return the name of what selected the wanted part."""
        return "all" if self.selection is None else f"{self.selection.name}-{self.selection.digest}"

    def grid(self, level: int) -> TileGrid:
        """Return all squares of a token level."""
        return square_grid(self.levels[level].shape, self.squares.patch_px)

    def shares(self, level: int) -> npt.NDArray[np.float32] | None:
        """Return the selected share of all squares of a token level, None where all is wanted."""
        if self.selection is None:
            return None
        return tile_shares(self.selection, self.levels[level], self.grid(level))

    def tokens(self, level: int, chosen: npt.NDArray[np.bool_]) -> Ints:
        """Return squares of a token level as tokens, `(n, 4)` level, y, x, size, row by row."""
        y, x = np.nonzero(chosen)
        size = self.squares.patch_px << level
        return np.column_stack([np.full(len(y), level), y * size, x * size, np.full(len(y), size)]).astype(np.int64)

    def plan(
        self, tokens: Ints, *, is_leaf: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], is_cut: bool = True
    ) -> TokenPlan:
        """Return the plan of tokens that are in the order of its rows.

        Parameters
        ----------
        tokens : ndarray of int64
            `(n, 4)`.
        is_leaf, scores : ndarray
            `(n,)` each.
        is_cut : bool
            Whether leaves cover all that is wanted.

        Returns
        -------
        TokenPlan
            With the selected share of each token.
        """
        used = np.unique(tokens[:, 0]).tolist()
        share = None if self.selection is None else np.ones(len(tokens), np.float32)
        for level in used if share is not None else ():
            here, shares = tokens[:, 0] == level, self.shares(level)
            if share is not None and shares is not None:
                share[here] = shares[tuple((tokens[here, 1:3] // tokens[here, 3:]).T)]
        return TokenPlan(
            image=self.image,
            base=self.levels[0],
            levels=self.levels[: max(used, default=0) + 1],
            patch_px=self.squares.patch_px,
            tokens=tokens,
            is_leaf=is_leaf,
            is_cut=is_cut,
            super_tile_px=self.super_tile_px,
            mpp_yx=self.choice.mpp_yx,
            where=self.where,
            scores=scores,
            share=share,
            selection=self.selection,
            notes=self.notes + notes_of_reduced(self.levels, used),
        )

    def require_budget(self, budget: object, *, least: int | None = None) -> int:
        """Return a budget that pays for the coarsest level at least.

        Parameters
        ----------
        budget : int
            Most tokens.
        least : int, optional
            Other than the wanted squares of the coarsest level.

        Returns
        -------
        int
            The same.

        Raises
        ------
        ConfigError
            When it is no whole number or too small; the message says how small it can be.
        """
        least = max(1, self.tree.roots) if least is None else least
        if isinstance(budget, bool) or not isinstance(budget, (int, np.integer)) or budget < least:
            raise ConfigError.of(
                "`budget` (`--budget`)",
                got=budget,
                expected=f"at least {least}, the wanted squares of the coarsest level"
                if least > 1
                else "at least 1 token",
                do=f"Give {least} or more, or allow coarser levels." if least > 1 else "Give a whole number.",
            )
        return int(budget)


def square_grid(area: Shape, patch_px: int) -> TileGrid:
    """Return the grid of squares that covers an area."""
    return TileGrid(area=area, tile_px=patch_px, step_px=patch_px)


def lay_ground(
    pyr: Pyramid, squares: Squares, *, steps: Callable[[Sequence[int]], tuple[int, ...]] | None = None
) -> Ground:
    """Return the tree of squares over an image.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    squares : Squares
        Which of them may become tokens.
    steps : callable, optional
        From all token levels, ascending, to those that are used.

    Returns
    -------
    Ground
        What plans choose from.

    Raises
    ------
    ConfigError
        When arguments contradict each other or the image.
    """
    if squares.patch_px < 1:
        raise ConfigError.of("`patch_px`", got=squares.patch_px, expected="at least 1 px", do="Correct it.")
    choice = choose_level(
        pyr.info,
        mpp=squares.mpp,
        source_mpp=squares.source_mpp,
        needs_mpp=squares.needs_mpp,
        tolerance=squares.tolerance,
    )
    every, side = _steps(squares, choice.level.shape)
    used = every if steps is None else steps(every)
    levels = tuple(token_level(pyr.info, choice.level, depth) for depth in range(used[-1] + 1))
    finest = square_grid(levels[used[0]].shape, squares.patch_px)
    _require_few(finest, used[0])
    selection, notes = None, choice.notes
    wanted = np.ones(finest.shape.yx, np.bool_)
    if squares.where != "all":
        selection = _selection(pyr, squares, levels[used[0]])
        wanted = _wanted(selection, levels[used[0]], finest, squares.min_share)
        notes += selection.notes
        if selection.mask.any() and not wanted.any():
            notes += ("no token of which enough is selected",)
    return Ground(
        image=image_key(pyr),
        choice=choice,
        levels=levels,
        squares=squares,
        tree=TokenTree.over(wanted, levels=used, side=side),
        super_tile_px=super_tile_edge(squares.patch_px, super_tile_px=squares.super_tile_px),
        selection=selection,
        notes=notes,
    )


def _require_few(finest: TileGrid, level: int) -> None:
    """Raise `ConfigError` where a table of all finest squares would not fit into memory."""
    coarser, grid = 0, finest.shape
    while grid.area > MOST_SQUARES:
        coarser, grid = coarser + 1, Shape(y=-(-grid.y // 2), x=-(-grid.x // 2))
    if coarser:
        raise ConfigError.of(
            "`patch_px` (`--tile`)",
            got=f"{finest.tile_px} px, {finest.shape.area:,} finest squares",
            expected=f"at most {MOST_SQUARES:,}, each of which takes memory while it is planned",
            do=f"Give at least {finest.tile_px << coarser}, or `levels` that begin at {level + coarser}.",
        )


def notes_of_reduced(levels: Sequence[PlanLevel], used: Sequence[int]) -> tuple[str, ...]:
    """Return notes where tokens are reduced from finer levels, of which more pixels are read than tokens see.

    Parameters
    ----------
    levels : sequence of PlanLevel
        Of each token level.
    used : sequence of int
        Token levels that have a token.

    Returns
    -------
    tuple of str
        One where levels far coarser than any that is stored are used; one where levels between stored ones are, and
        evenly spaced ones are stored.
    """
    ratios = [float(max(level.ratio_yx)) / float(max(levels[0].ratio_yx)) for level in levels]
    found: tuple[str, ...] = ()
    costly = [level for level in used if ratios[level] > COARSE]
    if costly:
        worst = max(costly)
        found += (
            f"tokens of level {worst} are reduced {float(max(levels[worst].ratio_yx)):g} times from level "
            f"{levels[worst].stored}, the coarsest that is stored: reading them costs as many pixels as that has; "
            "`ingest` writes all levels",
        )
    between = [level for level in used if ratios[level] > EVEN and levels[level].stored < levels[-1].stored]
    stored = [level for level, ratio in enumerate(ratios) if ratio <= EVEN]
    if between and len({after - before for before, after in pairwise(stored)}) == 1:
        most = max(ratios[level] for level in between)
        names, text = ", ".join(map(str, between)), ",".join(map(str, stored))
        found += (
            f"tokens of level {names} are reduced from finer levels that are stored: up to {most * most:.3g} times the "
            f"pixels that they see are read for them; with `--levels {text}` each is read as it is stored",
        )
    return found


def _steps(squares: Squares, area: Shape) -> tuple[tuple[int, ...], int]:
    """Return the token levels, ascending, and the children of a node along an axis."""
    if squares.levels is not None:
        return _listed(squares)
    side = _side(4 if squares.branching is None else squares.branching)
    gap = side.bit_length() - 1
    if squares.max_level is not None and not 0 <= squares.max_level <= MOST_LEVEL:
        expected = f"a token level from 0 to {MOST_LEVEL}"
        raise ConfigError.of("`max_level`", got=squares.max_level, expected=expected, do="Correct it.")
    most, level = max(area.yx), 0
    while (squares.patch_px << level) < most and (squares.max_level is None or level + gap <= squares.max_level):
        level += gap
    return tuple(range(0, level + 1, gap)), side


def _side(branching: int) -> int:
    side = 1 << ((branching.bit_length() - 1) // 2) if branching > 0 else 0
    if side < 2 or side * side != branching:
        expected = "4, 16, 64, …: a power of 4, since levels are halved"
        raise ConfigError.of("`branching`", got=branching, expected=expected, do="Use 4 for all levels.")
    return side


def listed_levels(wanted: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Return token levels that are asked for one by one, ascending, and the children of a node along an axis.

    Parameters
    ----------
    wanted : sequence of int
        In any order.

    Returns
    -------
    levels : tuple of int
        Ascending.
    side : int
        2 to the power of their distance; 2 for a single one.

    Raises
    ------
    ConfigError
        When there are none, one is there twice, or they are not evenly spaced.
    """
    levels = tuple(sorted(int(level) for level in wanted))
    gaps = {after - before for before, after in pairwise(levels)}
    if not levels or len(gaps) > 1 or 0 in gaps or levels[0] < 0 or levels[-1] > MOST_LEVEL:
        raise ConfigError.of(
            "`levels` (`--levels`)",
            got=list(wanted),
            expected=f"different levels from 0 to {MOST_LEVEL}, evenly spaced, such as 0, 2, 4",
            do="Name the first, the last and all between at one distance.",
        )
    return levels, 1 << (gaps.pop() if gaps else 1)


def _listed(squares: Squares) -> tuple[tuple[int, ...], int]:
    levels, side = listed_levels(squares.levels or ())
    if squares.max_level is not None or squares.branching not in (None, side * side):
        raise ConfigError.of(
            "`levels` (`--levels`)",
            got=f"{list(levels)} with max_level={squares.max_level}, branching={squares.branching}",
            expected=f"`levels` alone, which say both (branching {side * side})",
            do="Leave out the others.",
        )
    return levels, side


def _selection(pyr: Pyramid, squares: Squares, level: PlanLevel) -> Selection:
    if isinstance(squares.where, Selection):
        return squares.where
    tile_level0_px = squares.patch_px * max(level.scale_yx)
    return select(pyr, squares.where, tile_level0_px=tile_level0_px, source_mpp=squares.source_mpp)


def _wanted(selection: Selection, level: PlanLevel, grid: TileGrid, min_share: float | None) -> npt.NDArray[np.bool_]:
    least = MIN_SHARE if min_share is None else min_share
    if not 0 < least <= 1:
        raise ConfigError.of("`min_share`", got=least, expected="above 0, at most 1", do="Give a share, e.g. 0.1.")
    return np.asarray(tile_shares(selection, level, grid) >= np.float32(least))
