"""How much the picture changes within each part of an image.

    |∇I| = √( (1/C) Σ_ch (Iy² + Ix²) )        Sobel's filters, `tilestream.kernels.gradient`

in 8-bit codes a pixel, by the fixed mapping of the type (see `Look.codes`) before it is rounded: a contrast, whatever
the type. It is averaged over the pixels of a cell whose eight neighbours are all valid: the edge of what was measured
is no edge of what there is. Of class images it is the share of pixels that have another class beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import scipy

from tilestream.errors import ConfigError
from tilestream.kernels.gradient_magnitude import gradient_magnitude
from tilestream.pyramid import Pyramid
from tilestream.relevance.look import CELL_PX, Look, Mask, cell_means
from tilestream.types import Array, ScoreMap

FLOOR_CODES = 2.0
"""Codes of 8 bits a pixel up to which a change is noise of the camera and of compression; of other types the same
contrast."""

_AROUND = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The term `gradient`: mean length of the gradient in each cell, in 8-bit codes a pixel of the coarse picture."""

    cell_px: int = CELL_PX
    """Edge of a cell in pixels of the coarse picture."""

    group: ClassVar[Literal["saliency"]] = "saliency"

    def __post_init__(self) -> None:
        if self.cell_px < 1:
            raise ConfigError.of(
                "`cell_px` of `gradient`", got=self.cell_px, expected="at least 1 px", do="Leave it out."
            )

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image."""
        return {"term": "gradient-1", "cell_px": self.cell_px}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return how much each cell of an image changes."""
        return self.of_look(Look.of(pyr))

    def of_look(self, look: Look) -> ScoreMap:
        """Return how much each cell of a coarse picture changes."""
        codes, valid = look.codes()
        inside = surrounded(valid)
        lengths = _changes(codes) if look.is_labels else _lengths(look, codes)
        means, known = cell_means(lengths, inside, self.cell_px)
        floor = 0.0 if look.is_labels else FLOOR_CODES * look.unit
        return look.score_map("gradient", means, known, cell_px=self.cell_px, floor=floor)


def surrounded(valid: Mask) -> Mask:
    """Return the pixels that are valid with all their neighbours; beyond the picture everything counts as valid."""
    return valid if valid.all() else scipy.ndimage.binary_erosion(valid, _AROUND, border_value=1)


def _lengths(look: Look, codes: Array) -> npt.NDArray[np.float32]:
    if look.codes_per_octave is None:
        return np.asarray(gradient_magnitude(codes) / np.float32(sqrt(len(codes))))
    energy = np.zeros(codes.shape[1:], np.float32)
    for channel in range(len(codes)):
        energy += np.square(gradient_magnitude(look.plane(channel)))
    return np.asarray(np.sqrt(energy / np.float32(len(codes))))


def _changes(classes: Array) -> npt.NDArray[np.float32]:
    """Return 1 where a pixel's class differs from that of a neighbour, in any channel, else 0."""
    changes = np.zeros(classes.shape[1:], np.bool_)
    for plane in classes:
        down, right = plane[1:] != plane[:-1], plane[:, 1:] != plane[:, :-1]
        changes[1:] |= down
        changes[:-1] |= down
        changes[:, 1:] |= right
        changes[:, :-1] |= right
    return changes.astype(np.float32)
