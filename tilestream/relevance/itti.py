"""What differs from its surroundings in light, colour or direction, at several sizes: Itti's centre minus surround.

    |F(c) − F(s)|,    s = c + δ,    c ∈ {2, 3, 4}, δ ∈ {3, 4}     levels of a pyramid; level c is 1 / 2^c of the picture

    intensity     mean of all channels                                                                    6 maps
    colour        red against green, (r − g) / max(r, g, b), and blue against yellow, (b − min(r, g)) /
                  max(r, g, b): Walther & Koch, Neural Networks 19, 2006, where a double-opponent form of
                  the first publication makes every coloured area stand out; of images with these bands     12 maps
    direction     second derivative of a Gaussian at 0°, 45°, 90° and 135° (Freeman & Adelson, PAMI 13,
                  1991) in place of Gabor's filters, which it resembles                                    24 maps

Each map is scaled to 0 to 1 and weighted by (1 − mean of its other maxima)²: one that has a single peak counts, one
that is as strong everywhere does not. Maps of a kind are added up and weighted so once more; S is their mean. Itti,
Koch & Niebur, PAMI 20, 1998 (10.1109/34.730558). Maps that stay within noise are left out, so glass alone is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import scipy

from tilestream.pyramid import Pyramid
from tilestream.relevance.look import CELL_PX, Look, Mask, seen
from tilestream.relevance.planes import Plane, Sums, enlarged, filled
from tilestream.types import ScoreMap

CENTRES = 2, 3, 4
DELTAS = 3, 4
CELL_LEVEL = 3
"""Level whose pixels are the cells: 8 px of the picture."""
RGB = (("r", "g", "b"), ("red", "green", "blue"))

FLOOR_SHARE = 0.05
"""Share of the largest value up to which a place is like its surroundings."""
NOISE_CODES = 4.0
"""Difference of 8-bit codes that noise and compression make; of other types the same contrast. On glass 3 was seen, on
tissue 30 and more."""
NOISE_DIRECTION = 2.0
"""The same of the response of a direction."""
NOISE_COLOUR = 0.03
"""The same of colours, where the brightest channel is 1: eight codes in light."""
DARK_CODES = 25.5
"""Brightest channel below which there is no colour: a tenth of the range, as published."""
SIGMA_PX = 1.0
"""Of the Gaussian whose second derivative finds directions."""
PEAK_SHARE = 0.1
"""Share of the largest value below which a maximum is none."""


@dataclass(frozen=True, kw_only=True)
class CentreSurround:
    """The term `itti`: how much each cell differs from its surroundings in light, colour and direction."""

    group: ClassVar[Literal["saliency"]] = "saliency"

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image."""
        return {"term": "itti-1"}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return how much each cell of an image differs from its surroundings."""
        return self.of_look(Look.of(pyr))

    def of_look(self, look: Look) -> ScoreMap:
        """Return how much each cell of a coarse picture differs from its surroundings."""
        look.need_intensity("itti")
        known = seen(look.codes()[1], CELL_PX)
        light = _pyramid(look, look.intensity)
        kinds = [
            _conspicuity([(light, NOISE_CODES * look.unit)], known),
            _conspicuity([(one, NOISE_DIRECTION * look.unit) for one in _directions(light)], known),
        ]
        colours = _colours(look)
        if colours is not None:
            kinds.append(_conspicuity([(one, NOISE_COLOUR) for one in colours], known))
        values = np.mean([_peaked(one) for one in kinds], axis=0)
        notes = () if colours is not None else ("itti: no light in red, green and blue, so nothing of colour",)
        floor = FLOOR_SHARE * float(values.max())
        return look.score_map("itti", values, known, cell_px=CELL_PX, floor=floor, notes=notes)


def _pyramid(look: Look, plane: Any) -> list[Plane]:
    """Return levels 2 to 8 of a plane of the picture, without holes."""
    _, valid = look.codes()
    return filled(Sums.of(plane, valid, 2 ** CENTRES[0]), CENTRES[-1] + DELTAS[-1] - CENTRES[0] + 1)


def _colours(look: Look) -> tuple[list[Plane], list[Plane]] | None:
    """Return red against green and blue against yellow by level; None of an image without colours, or of dyes."""
    names = [channel.name.lower() for channel in look.info.channels]
    bands = next((rgb for rgb in RGB if all(names.count(name) == 1 for name in rgb)), None)
    if bands is None or look.info.modality == "fluorescence":
        return None
    red_green, blue_yellow = [], []
    for r, g, b in zip(*(_pyramid(look, look.plane(names.index(name))) for name in bands), strict=True):
        brightest = np.maximum(np.maximum(r, g), b)
        seen_as = np.where(brightest >= DARK_CODES, 1 / np.maximum(brightest, 1), 0)
        red_green.append((r - g) * seen_as)
        blue_yellow.append((b - np.minimum(r, g)) * seen_as)
    return red_green, blue_yellow


def _directions(light: Sequence[Plane]) -> Iterator[list[Plane]]:
    """Yield the response of each direction by level."""
    parts = [
        [
            scipy.ndimage.gaussian_filter(plane, SIGMA_PX, order=order, mode="nearest")
            for order in ((0, 2), (1, 1), (2, 0))
        ]
        for plane in light
    ]
    for angle in (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4):
        cos, sin = np.cos(angle), np.sin(angle)
        yield [np.abs(cos * cos * xx + 2 * cos * sin * xy + sin * sin * yy) for xx, xy, yy in parts]


def _conspicuity(features: Sequence[tuple[Sequence[Plane], float]], known: Mask) -> Plane:
    """Return the sum of the weighted centre-surround maps of features, each with its noise, on the grid of cells."""
    total = np.zeros(known.shape)
    for levels, noise in features:
        for centre in CENTRES:
            for delta in DELTAS:
                here, around = levels[centre - CENTRES[0]], levels[centre + delta - CENTRES[0]]
                difference = np.abs(here - enlarged(around, here.shape, 2.0**delta))
                cells = np.where(known, _in_cells(difference, centre, known.shape), 0)
                if cells.max() > noise:
                    total += _peaked(cells)
    return total


def _in_cells(plane: Plane, level: int, shape: tuple[int, ...]) -> Plane:
    if level >= CELL_LEVEL:
        return enlarged(plane, shape, 2.0 ** (level - CELL_LEVEL))
    every = np.ones(plane.shape, np.bool_)
    return Sums.of(plane, every, 2 ** (CELL_LEVEL - level)).means


def _peaked(plane: Plane) -> Plane:
    """Return a map scaled to 0 to 1, weighted by how much its highest peak exceeds the mean of the others."""
    most = plane.max()
    if most <= 0:
        return np.zeros_like(plane)
    scaled = plane / most
    peaks = scaled[(scaled == scipy.ndimage.maximum_filter(scaled, 3, mode="nearest")) & (scaled > PEAK_SHARE)]
    others = np.sort(peaks)[:-1]
    return np.asarray(scaled * (1 - (others.mean() if others.size else 0)) ** 2)
