"""What a downsampler loses: images made small and restored, beside the mean and Lanczos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.codecs.downsample.record import DownsamplerFile
from tilestream.codecs.downsample.smaller import Downsampler
from tilestream.kernels.fir import fir_of
from tilestream.kernels.mip import mip
from tilestream.kernels.mip_filter_gradient import filter_gradient

Pixels = npt.NDArray[np.uint8]
MOST_DB = 99.0
"""What stands for no difference at all."""


@dataclass(frozen=True, kw_only=True)
class LevelScore:
    """How well one level restores images, in dB over all of their samples."""

    level: int
    """Which one; each edge is 2^level times as short."""
    learned_db: float
    """PSNR of the image that the learned step down and up give back."""
    lanczos_db: float
    """Of Lanczos down and up."""
    box_db: float
    """Of means, and Lanczos up."""
    small_db: float
    """Of the small image against that of means: how much it looks like one."""
    worst_small_db: float
    """That of the worst image."""


def restored(file: DownsamplerFile, small: Pixels, level: int) -> Pixels:
    """Return the image that a small one stands for.

    Parameters
    ----------
    file : DownsamplerFile
        That the small image was made by.
    small : ndarray of uint8
        `(c, y, x)`, of a level up to those that were trained.
    level : int
        Which one.

    Returns
    -------
    ndarray of uint8
        `(c, y · 2^level, x · 2^level)`; of an odd image the last row or column is none of its own.
    """
    import torch

    from tilestream.codecs.downsample.network import DownsamplerNetwork

    network = DownsamplerNetwork(file.record)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in file.parameters.items()})
    with torch.inference_mode():
        large = network.larger(torch.from_numpy(small.astype(np.float32) / np.float32(255))[None], level)[0]
        found: Pixels = large.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return found


def lanczos_larger(small: Pixels, levels: int) -> Pixels:
    """Return an image of 2^levels times the edge, by Lanczos: the adjoint of the filter, divided by its weights."""
    for _ in range(levels):
        wide = small.astype(np.float64)
        shape = (len(small), 2 * small.shape[1], 2 * small.shape[2])
        total, weight = (
            filter_gradient(each, fir=fir_of("lanczos"), out=np.empty(shape)) for each in (wide, np.ones_like(wide))
        )
        small = np.clip(np.rint(total / weight), 0, 255).astype(np.uint8)
    return small


def scores(file: DownsamplerFile, images: Sequence[Pixels]) -> list[LevelScore]:
    """Return how well each trained level restores images it was not trained on.

    Parameters
    ----------
    file : DownsamplerFile
        The downsampler.
    images : sequence of ndarray of uint8
        `(c, y, x)`, with edges that are multiples of 2^levels.

    Returns
    -------
    list of LevelScore
        Level 1 first.
    """
    errors = np.array([_errors(file, image) for image in images])  # image, level, measure
    worst = errors[:, :, 3].max(axis=0)
    return [
        LevelScore(
            level=level,
            learned_db=_db(mean[0]),
            lanczos_db=_db(mean[1]),
            box_db=_db(mean[2]),
            small_db=_db(mean[3]),
            worst_small_db=_db(worst[level - 1]),
        )
        for level, mean in enumerate(errors.mean(axis=0), 1)
    ]


def _errors(file: DownsamplerFile, image: Pixels) -> list[tuple[float, float, float, float]]:
    """Return the mean squared errors of one image, a row a level."""
    downsampler, levels = Downsampler(file=file), file.record.levels
    means = mip(image, levels=levels)
    sharp = mip(image, levels=levels, filter="lanczos")
    small, found = image, []
    for level, (mean, lanczos) in enumerate(zip(means, sharp, strict=True), 1):
        small, _ = downsampler(small, None, level=level)
        larger = (restored(file, small, level), lanczos_larger(lanczos, level), lanczos_larger(mean, level))
        learned, by_lanczos, by_mean = (_mse(each, image) for each in larger)
        found.append((learned, by_lanczos, by_mean, _mse(small, mean)))
    return found


def _mse(a: Pixels, b: Pixels) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())


def _db(mse: float) -> float:
    return MOST_DB if mse == 0 else min(MOST_DB, float(10 * np.log10(255**2 / mse)))
