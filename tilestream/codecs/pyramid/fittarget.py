"""What a fit of a pyramid is to come to: samples of 0 to 1 of each level, and what their errors count for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tilestream.codecs.fields.picture import Levels
from tilestream.errors import ConfigError
from tilestream.types import Array

COARSER_WEIGHT = 0.1
"""Of the error of each coarser level that has a synthesis, against that of level 0. A crop of tissue of 256 px at 0.6
bits a pixel takes 1.7 % more bytes for four levels so, and level 2 has 30 dB; at half of it 0.3 % and 28 dB."""


class Target:
    """Tensors of each level that has a synthesis.

    Parameters
    ----------
    pixels : sequence of ndarray
        `(c, h, w)` each, the finest first.
    weights : sequence of ndarray
        `(h, w)` each, by which squared errors are multiplied; they sum to what the level counts for.
    """

    def __init__(self, pixels: Sequence[Array], weights: Sequence[Array]) -> None:
        self.pixels = [torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in pixels]
        self.weights = [torch.from_numpy(np.ascontiguousarray(one, np.float32)) for one in weights]

    def distortion(self, found: Sequence[Tensor]) -> Tensor:
        """Return the weighted squared errors of pixels of each level."""
        total = found[0].new_zeros(())
        for one, wanted, weights in zip(found, self.pixels, self.weights, strict=True):
            total = total + ((one - wanted).square().mean(0) * weights).sum()
        return total

    @classmethod
    def of(cls, levels: Levels, count: int, weights: Array | None) -> Target:
        """Return the first levels of a tile: the mean colour where nothing is valid, which has no weight.

        Parameters
        ----------
        levels : Levels
            Of the tile; coarser ones are reduced where there are too few.
        count : int
            Of the finest levels.
        weights : ndarray, optional
            `(h, w)`, 0 or more, for each pixel of level 0.

        Raises
        ------
        ConfigError
            When the weights do not fit the tile.
        """
        if len(levels.pixels) < count:
            levels = Levels.of(levels.pixels[0], levels.valid[0], levels=count)
        units, shares = [], []
        for level in range(count):
            unit, valid = levels.picture.to_unit(levels.pixels[level]), levels.valid[level]
            share = np.ones(unit.shape[1:], np.float32)
            if weights is not None:
                step = 2**level
                share = _means(np.asarray(weights, np.float32), step)
            if valid is not None:
                share = share * valid
                mean = unit[:, valid].mean(axis=1) if valid.any() else np.zeros(len(unit), np.float32)
                unit = np.where(valid, unit, mean[:, None, None])
            units.append(unit)
            shares.append(share * ((COARSER_WEIGHT if level else 1.0) / share.size))
        if weights is not None and (weights.shape != levels.picture.shape.yx or not (np.asarray(weights) >= 0).all()):
            raise ConfigError.of(
                "`weights` of a fit",
                got=f"{weights.shape} {weights.dtype}",
                expected=f"numbers of 0 or more, {levels.picture.shape.yx}",
                do="Give one for each pixel.",
            )
        return cls(units, shares)


def _means(weights: Array, step: int) -> Array:
    """Return means of squares of weights, those beyond an edge replicated."""
    if step == 1:
        return weights
    height, width = (-(-size // step) * step for size in weights.shape)
    padded = np.pad(weights, ((0, height - weights.shape[0]), (0, width - weights.shape[1])), mode="edge")
    found: Array = padded.reshape(height // step, step, width // step, step).mean(axis=(1, 3))
    return found
