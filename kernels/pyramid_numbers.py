"""The numbers that kernels and files of the pyramid codec agree on, and what its networks look like to a kernel.

All values are whole: *features* are in 1/64, within ± 32,767; pixels are features of 0 to 16,320.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy.typing as npt

FEATURE_BITS = 6
"""Of the fraction of a feature."""
FEATURE_MOST = 32767
"""Largest magnitude of a feature between layers."""
PIXEL_MOST = 255 << FEATURE_BITS
"""What stands for the highest value of a picture."""
TAPS = 4
FILTER_BITS = 10
"""Of the fraction of a tap of an upsampling filter."""
PASSES = 3
"""In which a grid is decoded: places of even row and column; of odd row and column; the rest."""
NEIGHBOURS = 9
"""Inputs of a context: 4 of the grid itself, 4 of the next coarser one, 1 of the one after."""
CONTEXT_OUT = 2
"""A middle and the logarithm of a scale."""
MIDDLE_BITS, SCALE_BITS = 2, 4
"""Of the fraction of a feature that a middle, in 1/16, and the index of a scale do without."""
MIDDLE_MOST, SCALES_MOST = 255 << FEATURE_BITS - MIDDLE_BITS, 63
"""Largest magnitude of a middle, in 1/16, and largest index of a scale."""
MOST_SCALES, MOST_WIDTH = 8, 64
"""Most grids; most features between two layers, and most channels."""


class WholeLayer(Protocol):
    """Weights, a bias and a shift: `(W·a + bias + 2^(shift−1)) >> shift`."""

    @property
    def weights(self) -> npt.NDArray[Any]:
        """Return whole numbers, `(out, in)`; of a convolution `(out, in·9)`, its window innermost, row by row."""

    @property
    def bias(self) -> npt.NDArray[Any]:
        """Return whole numbers, `(out,)`."""

    @property
    def shift(self) -> int:
        """Return how many bits are rounded off."""


class WholeSynthesis(Protocol):
    """Turns raised grids into channels."""

    @property
    def first(self) -> WholeLayer:
        """Return grids to hidden features, of which negative ones become 0."""

    @property
    def second(self) -> WholeLayer:
        """Return hidden features, then the grids once more, to channels."""

    @property
    def convs(self) -> Sequence[WholeLayer]:
        """Return 3×3 convolutions over the channels, each added to what it takes."""


class WholePyramid(Protocol):
    """All that turns grids into channels."""

    @property
    def filters(self) -> npt.NDArray[Any]:
        """Return `(scales − 1, 4)` taps in 1/1,024: filter `l` raises grids to the size of grid `l`."""

    @property
    def synth(self) -> Sequence[WholeSynthesis]:
        """Return one for each of the finest levels, finest first."""
