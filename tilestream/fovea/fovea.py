"""Where one looks: what detail is wanted around fixations, as a field, as gains for a budget, or as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.fovea.degrees import positive
from tilestream.fovea.laws import LAWS, PRESETS, Law, level_at, reach_of
from tilestream.kernels.checks import whole
from tilestream.kernels.fovea import HYSTERESIS, fovea_gains, fovea_levels
from tilestream.kernels.fovea_tree import fovea_tokens
from tilestream.types import Shape

Field = npt.NDArray[np.float32]
DEEPEST = 40
"""Highest level that a tree may have."""


@dataclass(frozen=True, kw_only=True)
class Fovea:
    """One or many fixations, and how detail falls off around them: L(e) = log2(1 + e/e0) unless the law is another.

    Examples
    --------
    >>> from tilestream.fovea import px_per_degree_of
    >>> from tilestream.types import Shape
    >>> fovea = Fovea(fixations_yx=(512, 512), e0_px=45, max_level=4)
    >>> len(fovea.tokens(Shape(y=1024, x=1024), patch_px=16))
    268
    >>> eye = Fovea.of_degrees((512, 512), px_per_degree=px_per_degree_of(distance_mm=600, pixel_mm=0.25))
    >>> round(eye.e0_px, 1)
    39.7
    """

    fixations_yx: tuple[tuple[float, float], ...]
    """Points looked at as y, x in level-0 pixels; e is the distance to the nearest. A single pair is taken, too."""
    e0_px: float
    """Radius of the fovea, level-0 pixels: at e = e0 detail is halved, that is level 1."""
    max_level: int | None = None
    """Coarsest level asked for anywhere; None = as coarse as it gets."""
    law: Law = "inverse-linear"
    """How detail falls off; see `tilestream.fovea.laws`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixations_yx", _pairs(self.fixations_yx))
        object.__setattr__(self, "e0_px", positive("e0_px", self.e0_px, "`Fovea`"))
        if self.law not in LAWS:
            presets = f"{list(LAWS)}; the presets {list(PRESETS)} are for `Fovea.of_degrees`"
            raise ConfigError.of("`law` of `Fovea`", got=repr(self.law), expected=f"one of {presets}", do="Choose one.")
        if self.max_level is not None:
            deepest = whole("Fovea", "max_level", self.max_level, least=0, most=DEEPEST)
            object.__setattr__(self, "max_level", deepest)

    @classmethod
    def of_degrees(
        cls,
        fixations_yx: object,
        *,
        px_per_degree: float,
        preset: str = "acuity",
        max_level: int | None = None,
    ) -> Self:
        """Return the fovea of a human eye before a screen.

        Parameters
        ----------
        fixations_yx : sequence of pair of float
            Points looked at as y, x in level-0 pixels.
        px_per_degree : float
            Level-0 pixels per degree of visual angle; `tilestream.fovea.px_per_degree_of` knows it of a screen.
        preset : str
            A name in `tilestream.fovea.PRESETS`: `acuity`, `horton-hoyt`, `gaussian`.
        max_level : int, optional
            Coarsest level asked for.

        Returns
        -------
        Fovea
            In pixels.
        """
        if preset not in PRESETS:
            known = f"one of {list(PRESETS)}"
            raise ConfigError.of("`preset` of `Fovea`", got=repr(preset), expected=known, do="Choose one.")
        found = PRESETS[preset]
        e0_px = found.e0_deg * positive("px_per_degree", px_per_degree, "`Fovea`")
        return cls(fixations_yx=_pairs(fixations_yx), e0_px=e0_px, max_level=max_level, law=found.law)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what it is made of as JSON values, for digests and reports."""
        return {
            "fixations_yx": [list(pair) for pair in self.fixations_yx],
            "e0_px": self.e0_px,
            "max_level": self.max_level,
            "law": self.law,
        }

    def scaled(self, scale_yx: tuple[float, float]) -> Self:
        """Return the same in other pixels, such as those of a plan's base level.

        Parameters
        ----------
        scale_yx : tuple of float
            Level-0 pixels that are as long as one of the other pixels.

        Returns
        -------
        Fovea
            Where the scales differ, e0 is that of their geometric mean.
        """
        down, across = (positive("scale_yx", value, "`Fovea.scaled`") for value in scale_yx)
        pairs = tuple((y / down, x / across) for y, x in self.fixations_yx)
        return replace(self, fixations_yx=pairs, e0_px=self.e0_px / float(np.sqrt(down * across)))

    def require_inside(self, shape: Shape) -> None:
        """Raise unless all fixations are in an image.

        Parameters
        ----------
        shape : Shape
            Size of the image in the pixels of the fixations.

        Raises
        ------
        ConfigError
            Naming the first that is outside.
        """
        for y, x in self.fixations_yx:
            if not (0 <= y <= shape.y and 0 <= x <= shape.x):
                swapped = "; y goes first" if 0 <= x <= shape.y and 0 <= y <= shape.x else ""
                raise ConfigError.of(
                    "fixation of `Fovea`",
                    got=f"y {y:.10g}, x {x:.10g}",
                    expected=f"y from 0 to {shape.y} and x from 0 to {shape.x}, in pixels of level 0{swapped}",
                    do="Look into the image.",
                )

    def levels(self, shape: Shape, *, cell_px: float = 1.0) -> Field:
        """Return the level that each cell of a grid over an image asks for, at its centre.

        Parameters
        ----------
        shape : Shape
            Size of the image, px.
        cell_px : float
            Edge of a cell.

        Returns
        -------
        ndarray of float32
            `(h, w)`, from 0 to `max_level`; the last cells may reach out of the image.

        Raises
        ------
        ConfigError
            When a fixation is outside.
        """
        self.require_inside(shape)
        cell_px = positive("cell_px", cell_px, "`Fovea.levels`")
        grid = (max(1, int(-(-shape.y // cell_px))), max(1, int(-(-shape.x // cell_px))))
        most = float(DEEPEST if self.max_level is None else self.max_level)
        if self.law == "inverse-linear" and most > 0:
            found: Field = fovea_levels(
                np.array(self.fixations_yx, np.float32), grid, e0_px=self.e0_px, max_level=most, step_px=cell_px
            )
            return found
        e_px = self._eccentricity(grid, edge_px=cell_px, to_centres=True)
        return np.minimum(level_at(self.law, e_px / self.e0_px), most).astype(np.float32)

    def gains(self, leaf_grid: tuple[int, int], leaf_px: float, levels: int) -> list[Field]:
        """Return gains with which `tilestream.kernels.allocate` spends a budget around the fixations.

        A node of level l gains 2^(l − L), L being that of its point nearest to a fixation: how much coarser its texels
        are than is asked for. Cut where that is 1 it is the tree of `tokens`; a budget cuts where its tokens run out.
        Times the mean relevance r of each node (0 to 1), L becomes L − log2 r: half as relevant is one level coarser,
        and even relevance leaves the tree as it is.

        Parameters
        ----------
        leaf_grid : tuple of int
            Rows and columns of the finest nodes.
        leaf_px : float
            Edge of a finest node, px; a fraction where a plan's pixels are no whole number of these.
        levels : int
            Of nodes that can be split, at least 1.

        Returns
        -------
        list of ndarray of float32
            `(h, w)` each, finest first, all above 0. Above `max_level` no node gains less than its texels are coarser
            than that, so that a budget that suffices splits them all.

        Raises
        ------
        ConfigError
            When a fixation is outside of the grid, or a number is not positive.
        """
        leaf_px = positive("leaf_px", leaf_px, "`Fovea.gains`")
        levels = whole("Fovea.gains", "levels", levels, least=1, most=DEEPEST)
        self.require_inside(Shape(y=ceil(leaf_grid[0] * leaf_px), x=ceil(leaf_grid[1] * leaf_px)))
        if self.law == "inverse-linear":
            fixations = np.array(self.fixations_yx, np.float32)
            found = fovea_gains(fixations, leaf_grid, e0_px=self.e0_px, leaf_px=leaf_px, levels=levels)
        else:
            found = [self._gains_of(leaf_grid, leaf_px, level, levels) for level in range(1, levels + 1)]
        if self.max_level is not None:
            for level in range(self.max_level + 1, levels + 1):
                np.maximum(found[level - 1], np.float32(2.0 ** (level - self.max_level)), out=found[level - 1])
        return found

    def tokens(
        self,
        shape: Shape,
        *,
        patch_px: int,
        previous: npt.NDArray[np.int64] | None = None,
        hysteresis: float = HYSTERESIS,
    ) -> npt.NDArray[np.int64]:
        """Return the tokens of an image: no more detail anywhere than the fovea asks for at the nearest point.

        Parameters
        ----------
        shape : Shape
            Size of the image, px.
        patch_px : int
            Edge of a token at level 0.
        previous : ndarray of int64, optional
            Tokens of before, for the same image and patch: what is less than `hysteresis` from changing stays.
        hysteresis : float
            In levels, less than 1.

        Returns
        -------
        ndarray of int64
            `(n, 4)`: level, y, x, size in px; coarsest first, row by row. They tile the image once; those at the edges
            may reach out of it. The roots are of `max_level`, or of the level at which one token holds the image.

        Raises
        ------
        ConfigError
            When a fixation is outside, or a number is not positive.
        """
        self.require_inside(shape)
        return fovea_tokens(
            np.array(self.fixations_yx, np.float64),
            shape.yx,
            e0_px=self.e0_px,
            patch_px=patch_px,
            max_level=self.depth(shape, patch_px=patch_px),
            previous=previous,
            hysteresis=hysteresis,
            reach=lambda level: reach_of(self.law, level),
        )

    def depth(self, shape: Shape, *, patch_px: int) -> int:
        """Return the level of the roots: `max_level`, or the one at which a token holds the whole image."""
        patch_px = whole("Fovea", "patch_px", patch_px, least=1)
        return (-(-max(shape.yx) // patch_px) - 1).bit_length() if self.max_level is None else self.max_level

    def _gains_of(self, leaf_grid: tuple[int, int], leaf_px: float, level: int, levels: int) -> Field:
        """Return the gains of one level by a law that falls faster than float32 can follow.

        Beyond the coarsest level they fall as 1/e, else the periphery would gain nothing at all, and what is left of a
        budget would go to a corner.
        """
        grid = (max(1, -(-leaf_grid[0] // 2**level)), max(1, -(-leaf_grid[1] // 2**level)))
        ratio = self._eccentricity(grid, edge_px=leaf_px * 2**level) / self.e0_px
        most = max(1, levels if self.max_level is None else min(levels, self.max_level))
        end = reach_of(self.law, most)
        wanted = np.where(ratio < end, level_at(self.law, np.minimum(ratio, end)), most)
        beyond = np.log2(np.maximum(ratio / end, 1))
        return np.asarray(np.exp2(level - wanted - beyond), np.float32)

    def _eccentricity(
        self, grid: tuple[int, int], *, edge_px: float, to_centres: bool = False
    ) -> npt.NDArray[np.float64]:
        """Return the distance of squares, or of their centres, from the nearest fixation."""
        found = np.full(grid, np.inf)
        shift, extent = (edge_px / 2, 0.0) if to_centres else (0.0, edge_px)
        y, x = (np.arange(count) * edge_px + shift for count in grid)
        for fixation_y, fixation_x in self.fixations_yx:
            dy = np.maximum(np.maximum(y - fixation_y, fixation_y - y - extent), 0)
            dx = np.maximum(np.maximum(x - fixation_x, fixation_x - x - extent), 0)
            np.minimum(found, np.hypot(dy[:, None], dx), out=found)
        return found


def _pairs(fixations_yx: object) -> tuple[tuple[float, float], ...]:
    """Return fixations as pairs of finite numbers."""
    try:
        found = np.asarray(fixations_yx, np.float64)
    except (TypeError, ValueError):
        found = np.empty(0)
    pairs = found[None] if found.shape == (2,) else found
    if pairs.ndim != 2 or pairs.shape[1:] != (2,) or not len(pairs):
        raise ConfigError.of(
            "`fixations_yx` of `Fovea`", got=_short(fixations_yx), expected="one or more pairs (y, x) of numbers",
            do="Give a point at least.",
        )  # fmt: skip
    if not (np.abs(pairs) < 1e30).all():
        bad = pairs[~(np.abs(pairs) < 1e30).all(axis=1)][0]
        raise ConfigError.of(
            "`fixations_yx` of `Fovea`", got=f"y {bad[0]:g}, x {bad[1]:g}", expected="finite numbers of pixels",
            do="Leave out samples that the tracker lost.",
        )  # fmt: skip
    return tuple((float(y), float(x)) for y, x in pairs)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
