"""What a network of coordinates is asked with: plain coordinates, or their sines and cosines of many octaves.

    plain        x, y;                                        both −1 to 1 over the longer edge of the picture
    positional   sin(2^k π x), cos(2^k π x), the same of y;   k = 0 … octaves − 1
    integrated   the same, each times exp(−½ (2^k π)² σ²);    σ² = s² / 12, s = 2 · 2^level / extent

The integrated one is the expectation over a Gaussian that has the variance of a pixel's square, which is what a pixel
of any level, also between two, stands for: what it cannot resolve fades out. It needs no other notion of level; the
others take a number for it, 0 to `LEVEL_REACH` from the finest to the coarsest, beside their coordinates, or a network
of its own for each level. Every input is a function of x alone, of y alone, or of the level
(`tilestream.kernels.raster_mlp`).

Sources: positional, Mildenhall et al., NeRF, arXiv:2003.08934, eq. 4; integrated, Barron et al., Mip-NeRF,
arXiv:2103.13415, eq. 13–14, without the correlation of x and y, which a square has not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.codecs.fields.picture import Picture
from tilestream.errors import ConfigError

LEVEL_REACH = 0.25
"""Of the coordinate that stands for the level: so small that a network of sines changes slowly along it."""
MOST_OCTAVES = 24


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How positions and levels of a picture become inputs of a network: those of x, those of y, those of the level."""

    extent_px: int
    """Level-0 pixels of the longer edge."""
    levels: int
    """Of the picture that are fitted."""
    octaves: int = 0
    """Of sines and cosines; 0 is plain coordinates."""
    integrated: bool = False
    """Whether they fade with the footprint of a pixel."""
    takes_level: bool = True
    """Whether the level is an input."""

    def __post_init__(self) -> None:
        if not 0 <= self.octaves <= MOST_OCTAVES:
            raise ConfigError.of(
                "`octaves` of a field",
                got=self.octaves,
                expected=f"0 to {MOST_OCTAVES}",
                do="log2 of the longer edge is what pixels resolve.",
            )

    @classmethod
    def of(cls, picture: Picture, *, octaves: int = 0, integrated: bool = False, takes_level: bool = True) -> Encoding:
        """Return that of a picture; a single level is no input."""
        return cls(
            extent_px=picture.extent_px,
            levels=picture.levels,
            octaves=octaves,
            integrated=integrated,
            takes_level=takes_level and picture.levels > 1,
        )

    @property
    def axis_inputs(self) -> int:
        """Return how many inputs are functions of x, and as many of y."""
        return 2 * self.octaves or 1

    @property
    def inputs(self) -> int:
        """Return how many there are."""
        return 2 * self.axis_inputs + self.takes_level

    def axis(self, pixels: npt.NDArray[Any], level: float) -> npt.NDArray[np.float64]:
        """Return the inputs of the centres of pixels along one axis.

        Parameters
        ----------
        pixels : ndarray
            `(n,)`: numbers of pixels of the level, also between two.
        level : float
            Of the picture.

        Returns
        -------
        ndarray of float64
            `(axis_inputs, n)`; sines and cosines of an octave stand together.
        """
        x = (pixels.astype(np.float64) + 0.5) * (2.0 * 2.0**level / self.extent_px) - 1
        if not self.octaves:
            flat: npt.NDArray[np.float64] = x[None]
            return flat
        angles = self.frequencies[:, None] * x
        waves = np.stack([np.sin(angles), np.cos(angles)], axis=1) * self.fading(level)[:, None, None]
        found: npt.NDArray[np.float64] = waves.reshape(2 * self.octaves, -1)
        return found

    def shared(self, level: float) -> npt.NDArray[np.float64]:
        """Return the inputs `(0,)` or `(1,)` that all pixels of a level share."""
        if not self.takes_level:
            return np.zeros(0)
        return np.array([LEVEL_REACH * level / max(1, self.levels - 1)])

    @property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """Return 2^k π."""
        found: npt.NDArray[np.float64] = math.pi * 2.0 ** np.arange(self.octaves, dtype=np.float64)
        return found

    def fading(self, level: float) -> npt.NDArray[np.float64]:
        """Return what each octave is multiplied with, `(octaves,)`."""
        if not self.integrated:
            return np.ones(self.octaves)
        side = 2.0 * 2.0**level / self.extent_px
        found: npt.NDArray[np.float64] = np.exp(-0.5 * (self.frequencies * side) ** 2 / 12)
        return found
