"""Pictures of an image under the colours of a score map or of the squares of a plan, each in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.pipelines.report_colours import heat_rgba
from tilestream.pyramid.display import display_pixels, hatch
from tilestream.pyramid.frame import Frame
from tilestream.pyramid.pyramid import Pyramid
from tilestream.types import Box, ScoreMap

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

PANEL_PX = 720
"""Longest edge of the image in a figure, twice beside itself; wide ones are below each other."""
WASHED = 96.0, 240.0
"""Darkest and lightest grey of the image under colours: grey, so that only the colours are coloured, and neither black
nor white, so that all of them are seen on it."""
LEAST_SPAN = 64.0
"""Steps of 8 bits that are stretched over these greys at least: the noise of empty glass is no picture."""
MAP_OPACITY = 0.7
TOKEN_OPACITY = 0.42
LEAST_OUTLINE_PX = 6
"""Squares that are smaller in the figure have no outline: lines would be all that is seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ground:
    """The image that is drawn on."""

    pixels: Pixels
    """`(y, x, 3)`."""
    frame: Frame
    """Where its pixels lie."""
    unknown: Mask
    """`(y, x)`, where nothing was measured."""
    damaged: Mask
    """`(y, x)`, where blocks are damaged."""
    um_per_px: float | None
    """Micrometres per level-0 pixel, from the CRS for scenes in metres; None when unknown."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block."""

    @classmethod
    def of(cls, pyramid: Pyramid) -> Ground:
        """Return an image at the size of a panel.

        Parameters
        ----------
        pyramid : Pyramid
            The image; only its coarsest level that is large enough is read.

        Returns
        -------
        Ground
            Small images are enlarged by a whole number.
        """
        shown = pyramid.thumbnail(PANEL_PX)
        times = max(1, PANEL_PX // max(shown.valid.shape))
        pixels = display_pixels(shown, pyramid.channels, kind=pyramid.kind)
        unknown, damaged = (one.repeat(times, axis=0).repeat(times, axis=1) for one in (~shown.valid, shown.damaged))
        um_per_px = pyramid.mpp if pyramid.mpp is not None or pyramid.gsd_m is None else pyramid.gsd_m * 1e6
        return cls(
            pixels=pixels.repeat(times, axis=0).repeat(times, axis=1),
            frame=shown.frame.enlarged(times),
            unknown=unknown,
            damaged=damaged,
            um_per_px=um_per_px,
            damage=shown.damage,
        )

    @property
    def washed(self) -> Pixels:
        """Return the image in a few shades of grey, `(y, x, 3)`."""
        light = self.pixels @ np.array([0.299, 0.587, 0.114])
        known = light[~self.unknown]
        low, high = np.percentile(known, (1, 99)) if known.size else (0.0, 1.0)
        grey = WASHED[0] + (WASHED[1] - WASHED[0]) * np.clip((light - low) / max(high - low, LEAST_SPAN), 0, 1)
        return np.repeat(np.rint(grey)[..., None], 3, axis=-1).astype(np.uint8)

    @property
    def places_yx(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the level-0 positions of the centres of rows and of columns."""
        height, width = self.unknown.shape
        (corner_y, corner_x), (step_y, step_x) = self.frame.corner_yx, self.frame.step_yx
        rows, columns = np.arange(height, dtype=np.float64) + 0.5, np.arange(width, dtype=np.float64) + 0.5
        return np.asarray(float(corner_y) + rows * float(step_y)), np.asarray(float(corner_x) + columns * float(step_x))

    def at(self, values: npt.NDArray[np.generic], cell_yx: tuple[float, float]) -> npt.NDArray[np.generic]:
        """Return the cell of a grid over the image that lies under the centre of each pixel.

        Parameters
        ----------
        values : ndarray
            `(y, x)`.
        cell_yx : tuple of float
            Edges of a cell, level-0 pixels.

        Returns
        -------
        ndarray
            `(y, x)` of the picture's size.
        """
        rows, columns = (
            np.clip((place // cell).astype(np.int64), 0, count - 1)
            for place, cell, count in zip(self.places_yx, cell_yx, values.shape, strict=True)
        )
        return values[np.ix_(rows, columns)]

    def marked(self, pixels: Pixels) -> Pixels:
        """Return a picture of the image with hatches where nothing is known."""
        hatch(pixels, self.unknown, self.damaged)
        return pixels


def map_panel(ground: Ground, scores: ScoreMap, limits: tuple[float, float], *, within: Mask | None = None) -> Pixels:
    """Return the image under the colours of a score map.

    Parameters
    ----------
    ground : Ground
        The image.
    scores : ScoreMap
        The map.
    limits : tuple of float
        Values of the first and last colour.
    within : ndarray of bool, optional
        `(y, x)` of the picture: where colours are shown at all.

    Returns
    -------
    ndarray of uint8
        `(y, x, 3)`; grey where the map says nothing.
    """
    values = np.where(scores.valid, scores.values, np.float32("nan"))
    shown = np.asarray(ground.at(values, scores.cell_yx), np.float32)
    if within is not None:
        shown = np.where(within, shown, np.float32("nan"))
    return ground.marked(over(ground.washed, heat_rgba(shown, *limits), MAP_OPACITY))


def token_panel(ground: Ground, boxes: npt.NDArray[np.float64], level: Ints, colours: Pixels) -> Pixels:
    """Return the image under squares, each in the colour of its level.

    Parameters
    ----------
    ground : Ground
        The image.
    boxes : ndarray of float64
        `(n, 4)`: y, x, y_stop, x_stop in level-0 pixels; later ones lie over earlier ones.
    level : ndarray of int64
        `(n,)` level of each.
    colours : ndarray of uint8
        `(levels, 3)` colour of each level.

    Returns
    -------
    ndarray of uint8
        `(y, x, 3)`.
    """
    owner, is_large = _owners(ground, boxes)
    covered = owner >= 0
    tint = np.zeros((*owner.shape, 4), np.uint8)
    tint[covered, :3], tint[covered, 3] = colours[level[owner[covered]]], 255
    pixels = over(ground.washed, tint, TOKEN_OPACITY)
    line = np.zeros_like(covered)
    line[1:] |= owner[1:] != owner[:-1]
    line[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    line &= covered & is_large
    pixels[line] = colours[level[owner[line]]]
    return ground.marked(pixels)


def _owners(ground: Ground, boxes: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int32], Mask]:
    """Return which square each pixel lies in, -1 for none, and whether that is large enough for an outline."""
    corner, step = (np.array([float(a) for a in pair] * 2) for pair in (ground.frame.corner_yx, ground.frame.step_yx))
    edges = np.rint((boxes - corner) / step).astype(np.int64)
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
    edges = np.maximum(edges, 0)
    size = (edges[:, 2:] - edges[:, :2]).min(axis=1, initial=1 << 30)
    owner = np.full(ground.unknown.shape, -1, np.int32)
    for number, (y, x, y_stop, x_stop) in enumerate(edges.tolist()):
        owner[y:y_stop, x:x_stop] = number
    return owner, (owner >= 0) & (np.append(size, 0)[owner] >= LEAST_OUTLINE_PX)


def mark_fixations(pixels: Pixels, ground: Ground, fixations_yx: Sequence[tuple[float, float]]) -> None:
    """Draw a cross where somebody looks, white with a black rim.

    Parameters
    ----------
    pixels : ndarray of uint8
        Picture of the image; written to.
    ground : Ground
        Where its pixels lie.
    fixations_yx : sequence of tuple
        Level-0 positions.
    """
    for place in fixations_yx:
        y, x = (int(at) for at in ground.frame.to_picture(place))
        for arm, half, ink in ((12, 2, 0), (11, 1, 255)):
            for rows, columns in ((half, arm), (arm, half)):
                pixels[max(0, y - rows) : y + rows + 1, max(0, x - columns) : x + columns + 1] = ink


def mark_boxes(pixels: Pixels, ground: Ground, boxes: Sequence[Box], *, ink: int) -> None:
    """Draw the outlines of places, white (255) with a black rim or black (0) with a white one.

    Parameters
    ----------
    pixels : ndarray of uint8
        Picture of the image; written to.
    ground : Ground
        Where its pixels lie.
    boxes : sequence of Box
        Places, in pixels of level 0.
    ink : int
        Of the inner line.
    """
    height, width = pixels.shape[:2]
    for box in boxes:
        (y, x), (y_stop, x_stop) = (
            (round(at) for at in ground.frame.to_picture(corner))
            for corner in ((box.y, box.x), (box.y_stop, box.x_stop))
        )
        y_stop, x_stop = max(y_stop, y + LEAST_OUTLINE_PX), max(x_stop, x + LEAST_OUTLINE_PX)
        for reach, colour in ((2, 255 - ink), (1, ink)):
            outer = np.zeros((height, width), np.bool_)
            rows, columns = (slice(max(0, low), max(0, high)) for low, high in (
                (y - reach, y_stop + reach), (x - reach, x_stop + reach),
            ))  # fmt: skip
            outer[rows, columns] = True
            outer[max(0, y) : max(0, y_stop), max(0, x) : max(0, x_stop)] = False
            pixels[outer] = colour


def level_colours(levels: int) -> Pixels:
    """Return a colour for each level, the finest the lightest, evenly spaced over the colours of maps.

    Parameters
    ----------
    levels : int
        How many.

    Returns
    -------
    ndarray of uint8
        `(levels, 3)`, the finest first.
    """
    place = np.linspace(1, 0, max(levels, 1), dtype=np.float32)
    return heat_rgba(place[None], 0.0, 1.0)[0, :, :3]


def over(pixels: Pixels, rgba: Pixels, opacity: float) -> Pixels:
    """Return a picture under colours that let some of it through.

    Parameters
    ----------
    pixels : ndarray of uint8
        `(y, x, 3)`.
    rgba : ndarray of uint8
        `(y, x, 4)`, transparent where nothing lies over it.
    opacity : float
        Of what is not transparent.

    Returns
    -------
    ndarray of uint8
        `(y, x, 3)`.
    """
    share = rgba[..., 3:] / 255.0 * opacity
    return np.rint(pixels * (1 - share) + rgba[..., :3] * share).astype(np.uint8)
