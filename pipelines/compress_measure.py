"""How close the tiles of an image are to its pixels and what they cost: figures of receipts, added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tilestream.codecs.tilequality import LevelError
from tilestream.sinks.fieldstore import quality_record
from tilestream.types import Receipt

FIGURES = "squares", "samples", "low", "high"
"""Of `LevelError`: a receipt has each under its name and the level of the image, such as `squares 4`."""
BYTES = "bytes"
"""A receipt has it with the array that its tile lies in."""


WEIGHED = "weighed", "weight"
"""Of level 0, where some places matter more: squared errors times their weights, and these weights."""


def measures_of(
    errors: Iterable[LevelError], *, first: int, nbytes: int, weighed: tuple[float, float] | None = None
) -> dict[str, float]:
    """Return what a receipt tells of a tile.

    Parameters
    ----------
    errors : iterable of LevelError
        Of its levels, finest first.
    first : int
        Array that it lies in, which is the level of the image that its first level is.
    nbytes : int
        What is stored of it.
    weighed : tuple of float, optional
        As `weighed_error` gives it, of a tile of level 0.

    Returns
    -------
    dict
        Levels without a valid sample are left out.
    """
    measures = {f"{BYTES} {first}": float(nbytes)}
    if weighed is not None:
        measures |= dict(zip(WEIGHED, weighed, strict=True))
    for number, error in enumerate(errors, first):
        if error.samples:
            measures |= {f"{name} {number}": float(getattr(error, name)) for name in FIGURES}
    return measures


@dataclass
class Sums:
    """Figures of some tiles of one image."""

    errors: dict[int, LevelError] = field(default_factory=dict)
    """Of each level."""
    nbytes: dict[int, int] = field(default_factory=dict)
    """Bytes of the tiles of each array."""
    largest: int = 0
    """Bytes of the largest tile."""
    weighed: dict[str, float] = field(default_factory=dict)
    """Sums of `WEIGHED`; empty where all places matter alike."""

    @classmethod
    def of(cls, receipts: Iterable[Receipt]) -> Sums:
        """Return the sums over receipts, in the order of their keys: floats then add up to the same bits in every run.

        Parameters
        ----------
        receipts : iterable of Receipt
            Of tiles.

        Returns
        -------
        Sums
            Of all of them.
        """
        sums = cls()
        for receipt in sorted(receipts, key=lambda receipt: receipt.key):
            sums.add(receipt.measures)
        return sums

    def add(self, measures: Mapping[str, float]) -> None:
        """Take in the figures of one tile."""
        for name, value in measures.items():
            kind, _, number = name.partition(" ")
            if kind in WEIGHED:
                self.weighed[kind] = self.weighed.get(kind, 0.0) + value
            elif kind == BYTES:
                self.nbytes[int(number)] = self.nbytes.get(int(number), 0) + int(value)
                self.largest = max(self.largest, int(value))
            elif kind == FIGURES[0]:
                squares, samples, low, high = (measures[f"{figure} {number}"] for figure in FIGURES)
                error = LevelError(squares=squares, samples=int(samples), low=low, high=high)
                self.errors[int(number)] = self.errors.get(int(number), LevelError()) + error

    def psnr(self, level: int, dtype: np.dtype[Any], *, span_of: Sums | None = None) -> float | None:
        """Return dB over all valid samples of a level, by the mean of their squared errors: no mean of dB.

        Parameters
        ----------
        level : int
            Of the image.
        dtype : numpy.dtype
            Of its samples.
        span_of : Sums, optional
            Sums of the whole image, where these are of a part whose own span would flatter it.

        Returns
        -------
        float or None
            As `LevelError.psnr`.
        """
        error = self.errors.get(level, LevelError())
        if span_of is not None:
            whole = span_of.errors.get(level, error)
            error = LevelError(squares=error.squares, samples=error.samples, low=whole.low, high=whole.high)
        return error.psnr(dtype)

    def psnr_weighed(self, dtype: np.dtype[Any]) -> float | None:
        """Return dB of level 0 where each error counts as much as its place matters, None where all matter alike."""
        squares, weight = (self.weighed.get(name, 0.0) for name in WEIGHED)
        whole = self.errors.get(0)
        if not weight or whole is None:
            return None
        # a mean of squared errors, as if of so many samples
        mean = LevelError(
            squares=squares / weight * whole.samples, samples=whole.samples, low=whole.low, high=whole.high
        )
        return mean.psnr(dtype)

    def record(self, *, levels: int, dtype: np.dtype[Any], pixels: int) -> dict[str, Any]:
        """Return what a store says of itself: what it costs, and how close it is.

        Parameters
        ----------
        levels : int
            Levels of the image.
        dtype : numpy.dtype
            Of its samples.
        pixels : int
            Of level 0.

        Returns
        -------
        dict
            `psnr`, `bytes` and `bpp` of `quality_record`; `exact`, the levels that are no dB because they are stored as
            they were; `psnr_weighed` where some places matter more; `arrays` with the bytes of each,
            `largest_tile_bytes`, and `span`: the samples that PSNR of types wider than 8 bits refers to.
        """
        psnr = [self.psnr(level, dtype) for level in range(levels)]
        known = [None if one is None or math.isinf(one) else one for one in psnr]
        exact = [level for level, one in enumerate(psnr) if one == math.inf]
        whole, weighed = self.errors.get(0), self.psnr_weighed(dtype)
        return {
            **quality_record(psnr=known, stored_bytes=sum(self.nbytes.values()), pixels=pixels),
            "exact": exact,
            **({} if weighed is None or math.isinf(weighed) else {"psnr_weighed": round(weighed, 3)}),
            "arrays": {str(array): self.nbytes[array] for array in sorted(self.nbytes)},
            "largest_tile_bytes": self.largest,
            **({} if dtype.itemsize == 1 or whole is None else {"span": [whole.low, whole.high]}),
        }
