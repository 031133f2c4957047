"""The encoder that needs no weights: named statistics of a tile's 8-bit codes, from exact integer sums.

========================  ==========================================================  ===============================
name                      what (unit)                                                 source
========================  ==========================================================  ===============================
<ch>_mean, _std           mean, standard deviation of the codes (0 … 1)
<ch>_skewness             third standardised moment (none); 0 for a single code       Haralick, Proc. IEEE 67, 1979, §II
<ch>_p05 … _p95           5, 25, 50, 75, 95 % of the pixels are at most that (0 … 1)
<ch>_entropy              entropy of 32 bins over log2 32 (0 … 1)                     Shannon 1948
<ch>_<ch>_correlation     Pearson's r of two channels; 0 where one is constant
luma_gradient_<s>         √(Σ(Ix² + Iy²) / terms) at scale s, white = 1
luma_coherence_<s>        √((Jxx − Jyy)² + 4 Jxy²) / (Jxx + Jyy) (0 … 1)              Bigün & Granlund, ICCV 1987
luma_laplacian_<s>        √(ΣL² / terms) / 4 at scale s, white = 1                    Marr & Hildreth 1980
<ch>_optical_density      mean of −log10((v + 1) / 256)                               Beer-Lambert law
hematoxylin, eosin, dab   mean amount of each stain, in optical density               Ruifrok & Johnston, AQCH 23, 2001
========================  ==========================================================  ===============================

`<ch>` is the name of a channel. Scale s is 1/2^s of the tile's resolution. Luma is that of ITU-R BT.601 for red, green
and blue, else the mean of all channels. The last two lines only for 8-bit red, green, blue of a brightfield slide,
where a sample means transmitted light. Values of another type are coded first (`tilestream.kernels.companding`), by the
user's `value_range` where there is one. Only valid pixels of a tile's core count; structure measured nowhere is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.companding import compand
from tilestream.kernels.descriptors import SCALES, DescriptorSums, descriptors
from tilestream.kernels.entropy import BINS, entropy
from tilestream.kernels.moments import PERCENTILES, Moments, moments
from tilestream.kernels.stain import HED, density_table, unmixing
from tilestream.types import Batch, ImageInfo, StageContract, StageSpec

Values = npt.NDArray[np.float64]

CHANNEL_VALUES = ("mean", "std", "skewness", *(f"p{p:02d}" for p in PERCENTILES), "entropy")
"""Values of each channel, in order."""

STRUCTURE_VALUES = ("gradient", "coherence", "laplacian")
"""Values of luma at each scale, in order."""

STAINS = ("hematoxylin", "eosin", "dab")
"""Stains that optical density is split into."""

TILE_PX = 256
"""Edge of a tile unless another is asked for."""

LEAST_PX = 4
"""Smallest edge of a tile: coarser scales of its structure have no pixel below that."""

DENSITY_UNIT = 2.0**-32
"""Step of the integer optical densities, so that their sum over a histogram is exact."""

DENSITIES: npt.NDArray[np.int64] = np.rint(density_table("uint8") / DENSITY_UNIT).astype(np.int64)
"""Optical density of each code in steps of `DENSITY_UNIT`."""


UNMIXING = unmixing(HED)
"""`amounts = densities @ UNMIXING`."""


@dataclass(frozen=True, kw_only=True)
class HandcraftedStage:
    """Named statistics of tiles of any type and number of channels."""

    value_range: tuple[float, float] | None = None
    """Values that become the codes 0 and 255; None = the fixed mapping of the type."""
    rgb: bool | None = None
    """Whether the channels are red, green, blue; None = three channels of 8 bits are."""
    brightfield: bool = False
    """Whether a sample means transmitted light, so that 8-bit red, green, blue have an optical density."""
    tile_px: int = TILE_PX
    """Edge of the tiles that it asks for; it describes tiles of any."""

    def __post_init__(self) -> None:
        if type(self.tile_px) is not int or self.tile_px < LEAST_PX:
            raise ConfigError.of(
                "`tile_px` of `handcrafted`", got=repr(self.tile_px), expected=f"a whole number of at least {LEAST_PX}",
                do="Fewer pixels have no statistics.",
            )  # fmt: skip

    @property
    def contract(self) -> StageContract:
        """Return that tiles of 256 px at 0.5 µm/px are meant, and that native resolution will do."""
        return StageContract(name="handcrafted", px=self.tile_px, mpp=0.5)

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make the stage for one image.

        Parameters
        ----------
        image : ImageInfo
            Its channels' names, type and modality decide about luma and optical density.

        Returns
        -------
        StageSpec
            JSON values only; part of the recipe.
        """
        names = tuple(channel.name.casefold() for channel in image.channels)
        rgb = names in (("r", "g", "b"), ("red", "green", "blue"))
        return StageSpec(
            target="handcrafted",
            params={
                "value_range": None if self.value_range is None else list(self.value_range),
                "rgb": rgb,
                "brightfield": rgb and image.dtype == np.uint8 and image.modality == "brightfield",
                **({} if self.tile_px == TILE_PX else {"tile_px": self.tile_px}),
            },
        )

    def _is_rgb(self, channels: int, dtype: np.dtype[Any]) -> bool:
        return channels == 3 and (dtype == np.uint8 if self.rgb is None else self.rgb)

    def _has_density(self, channels: int, dtype: np.dtype[Any]) -> bool:
        # a stated value range is another mapping than that of light to samples
        plain = self._is_rgb(channels, dtype) and dtype == np.uint8 and self.value_range is None
        return self.brightfield and plain

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return a name for each value; see the table at the top of the file.

        Parameters
        ----------
        image : ImageInfo
            The image with the channels that tiles have.

        Returns
        -------
        tuple of str
            In the order of the vectors.
        """
        channels = [channel.name for channel in image.channels]
        names = [f"{channel}_{value}" for channel in channels for value in CHANNEL_VALUES]
        names += [f"{one}_{other}_correlation" for one, other in combinations(channels, 2)]
        names += [f"luma_{value}_{scale}" for scale in range(SCALES) for value in STRUCTURE_VALUES]
        if self._has_density(len(channels), image.dtype):
            names += [f"{channel}_optical_density" for channel in channels]
            names += STAINS
        return tuple(names)

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return the vectors of a batch.

        Parameters
        ----------
        batch : Batch
            Tiles of any type; the halo is left out.

        Returns
        -------
        ndarray of float32
            `(n, d)`; NaN for a tile without a valid pixel. A row does not depend on the others.
        """
        channels, dtype = batch.pixels.shape[1], batch.pixels.dtype
        codes, valid = compand(batch.pixels, batch.valid, value_range=self.value_range, threads=1)
        sums = descriptors(codes, valid, rgb=self._is_rgb(channels, dtype), halo_px=batch.halo_px, threads=1)
        found = moments(sums.histogram, threads=1)
        parts = [_channel_values(sums, found), _correlations(sums, found), _structure(sums)]
        if self._has_density(channels, dtype):
            parts.append(_densities(sums))
        vectors = np.concatenate(parts, axis=1).astype(np.float32)
        vectors[sums.count == 0] = np.nan
        return vectors


def _channel_values(sums: DescriptorSums, found: Moments) -> Values:
    n = len(sums.count)
    scaled = np.stack([found.mean, found.std], axis=-1) / 255.0
    information = entropy(sums.histogram, bins=BINS, threads=1)[..., None]
    return np.concatenate([scaled, found.skewness[..., None], found.percentiles / 255.0, information], axis=-1).reshape(
        n, -1
    )


def _correlations(sums: DescriptorSums, found: Moments) -> Values:
    n, channels = found.mean.shape
    values = np.zeros((n, sums.cross.shape[1]), np.float64)
    count = np.maximum(sums.count, 1)
    for k, (i, j) in enumerate(combinations(range(channels), 2)):
        covariance = sums.cross[:, k] / count - found.mean[:, i] * found.mean[:, j]
        spread = found.std[:, i] * found.std[:, j]
        np.divide(covariance, spread, out=values[:, k], where=spread > 0)
    return np.clip(values, -1.0, 1.0)


def _structure(sums: DescriptorSums) -> Values:
    parts = []
    for scale in range(SCALES):
        terms, xx, xy, yy, laplace = (sums.structure[:, scale, k].astype(np.float64) for k in range(5))
        white = 255.0 * 4.0**scale
        terms = np.maximum(terms, 1.0)
        energy = xx + yy
        difference = np.sqrt((xx - yy) * (xx - yy) + 4.0 * xy * xy)
        coherence = np.divide(difference, energy, out=np.zeros_like(energy), where=energy > 0)
        # clipped: the two square roots can differ by a rounding error
        parts += [np.sqrt(energy / terms) / white, np.minimum(coherence, 1.0), np.sqrt(laplace / terms) / (4.0 * white)]
    return np.stack(parts, axis=1)


def _densities(sums: DescriptorSums) -> Values:
    total = (sums.histogram.astype(np.int64) * DENSITIES).sum(axis=2)
    red, green, blue = (total * DENSITY_UNIT / np.maximum(sums.count, 1)[:, None]).T
    # written out: a matrix product may add up in another order for another number of rows
    stains = [red * UNMIXING[0][k] + green * UNMIXING[1][k] + blue * UNMIXING[2][k] for k in range(len(STAINS))]
    return np.stack([red, green, blue, *stains], axis=1)


def handcrafted(
    value_range: Sequence[float] | None = None,
    rgb: bool | None = None,
    brightfield: bool = False,
    tile_px: int = TILE_PX,
) -> HandcraftedStage:
    """Return the stage of named statistics.

    Parameters
    ----------
    value_range : (low, high), optional
        Values that become the codes 0 and 255 of a linear mapping; by default the fixed mapping of the type.
    rgb : bool, optional
        Whether the channels are red, green, blue; by default three channels of 8 bits are.
    brightfield : bool
        Whether 8-bit red, green, blue are transmitted light, so that they have an optical density.
    tile_px : int
        Edge of the tiles that it asks for.

    Returns
    -------
    HandcraftedStage
        Call `for_image` to let an image decide about the last two.
    """
    limits = None if value_range is None else (float(value_range[0]), float(value_range[1]))
    return HandcraftedStage(value_range=limits, rgb=rgb, brightfield=brightfield, tile_px=tile_px)
