"""Where an image is unlike what its spectrum leads to expect: the spectral residual.

    L = log |F|      R = L − box3(L)      S = G_σ * |F⁻¹ exp(R + i φ)|²          F = |F| exp(i φ), the image's spectrum

of the intensity of a thumbnail 64 px long, σ = 2.5 px of it; Hou & Zhang, CVPR 2007 (10.1109/CVPR.2007.383267). The
scale is part of the method: it finds what a viewer sees at a glance. A spectrum goes round in circles: so does its box,
and so do images, of which the step from one edge to the opposite one is taken out before, as it would be what stands
out most. For the same reason holes are filled with their surroundings.

It is blind to contrast: on glass alone it would find the noise that is least like the other noise. A thumbnail whose
intensities have a standard deviation below one 8-bit code (of other types the same contrast) has a map of 0. Its unit
is none, so a share of the largest value is the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import scipy

from tilestream.errors import ConfigError
from tilestream.pyramid import Pyramid
from tilestream.relevance.look import CELL_PX, Look, seen
from tilestream.relevance.planes import Plane, Sums, enlarged, filled
from tilestream.types import ScoreMap

LONG_PX = 64
SIGMA_PX = 2.5
FLOOR_SHARE = 0.05
"""Share of the largest value up to which a place is like all others."""
CONTRAST_CODES = 1.0
"""Standard deviation of a thumbnail below which there is nothing but noise."""

_LEAST = 1e-12
"""Share of the largest amplitude below which one is rounding."""


@dataclass(frozen=True, kw_only=True)
class SpectralResidual:
    """The term `residual`: how unlike its spectrum an image is in each place."""

    long_px: int = LONG_PX
    """Long edge of the thumbnail; smaller pictures are taken as they are."""

    group: ClassVar[Literal["saliency"]] = "saliency"

    def __post_init__(self) -> None:
        if self.long_px < 8:
            raise ConfigError.of(
                "`long_px` of `residual`", got=self.long_px, expected="at least 8 px", do="64 is what was published."
            )

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image."""
        return {"term": "residual-1", "long_px": self.long_px}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return how unlike its spectrum an image is in each cell."""
        return self.of_look(Look.of(pyr))

    def of_look(self, look: Look) -> ScoreMap:
        """Return how unlike its spectrum a coarse picture is in each cell."""
        look.need_intensity("residual")
        _, valid = look.codes()
        edge_px = max(1, -(-max(valid.shape) // self.long_px))
        (thumbnail,) = filled(Sums.of(look.intensity, valid, edge_px), 1)
        known = seen(valid, CELL_PX)
        flat = thumbnail.std() < CONTRAST_CODES * look.unit
        found = np.zeros_like(thumbnail) if flat else spectral_residual(periodic(thumbnail))
        values = enlarged(found, known.shape, edge_px / CELL_PX)
        floor = FLOOR_SHARE * float(values.max())
        return look.score_map("residual", values, known, cell_px=CELL_PX, floor=floor)


def periodic(image: Plane) -> Plane:
    """Return an image without the part that makes its opposite edges differ.

    Parameters
    ----------
    image : ndarray of float64
        `(y, x)`.

    Returns
    -------
    ndarray of float64
        `(y, x)`: the image less the smoothest one that has the same steps from an edge to the opposite one; Moisan,
        Journal of Mathematical Imaging and Vision 39, 2011.
    """
    steps = np.zeros_like(image)
    for axis in (0, 1):
        first, last = image.take([0], axis), image.take([-1], axis)
        ends = [slice(None)] * 2
        ends[axis] = slice(0, 1)
        steps[tuple(ends)] += last - first
        ends[axis] = slice(image.shape[axis] - 1, None)
        steps[tuple(ends)] += first - last
    y, x = (2 * np.cos(2 * np.pi * np.arange(n) / n) for n in image.shape)
    laplacian = np.add.outer(y, x) - 4
    laplacian[0, 0] = 1  # the mean stays in the image
    smooth = scipy.fft.fft2(steps) / laplacian
    smooth[0, 0] = 0
    return np.asarray(image - scipy.fft.ifft2(smooth).real)


def spectral_residual(image: Plane) -> Plane:
    """Return the spectral residual of an image.

    Parameters
    ----------
    image : ndarray of float64
        `(y, x)`.

    Returns
    -------
    ndarray of float64
        `(y, x)`, at least 0; in no unit.
    """
    spectrum = scipy.fft.fft2(image)
    amplitude = np.abs(spectrum)
    logarithm = np.log(np.maximum(amplitude, _LEAST * amplitude.max()))
    residual = logarithm - scipy.ndimage.uniform_filter(logarithm, 3, mode="wrap")
    saliency = np.abs(scipy.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    return np.asarray(scipy.ndimage.gaussian_filter(saliency, SIGMA_PX, mode="reflect"))
