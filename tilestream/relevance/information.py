"""How much each part of an image could tell: the entropy of its values.

    H = (log2 n − (1/n) Σ_b c_b log2 c_b) / log2 B,    0 ≤ H ≤ 1                  of the n valid pixels of a cell

Counts of cells add up to those of larger cells, so the entropy of every level comes from one pass over the pixels and
is that of all pixels under a cell. Shannon, Bell System Technical Journal 27, 1948.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.coarser_histograms import coarser_histograms
from tilestream.kernels.entropy import entropy
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.kernels.tile_histogram import BINS, tile_histograms
from tilestream.pyramid import Pyramid
from tilestream.relevance.look import CELL_PX, Look
from tilestream.types import ScoreMap

CLASSES = 256
"""Bins of class numbers."""
MOST_BINS = 256
FLOOR_BITS = 1.0
"""Entropy of two values in equal shares: as much as the noise of glass has that lies across an edge of bins."""


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """The term `entropy`: mean over channels of the normalised entropy of each cell's 8-bit codes, in 0 to 1.

    Channels of which no cell has more than one bit, such as the empty ones of a fluorescence image that is stored as
    RGB, are left out of the mean. Of class images it is the entropy of the classes of a cell.
    """

    cell_px: int = CELL_PX
    """Edge of a cell in pixels of the coarse picture, at least 2."""
    bins: int | None = None
    """Bins that the 256 codes are joined into, a power of two; None = 32 for 8-bit samples, else as many as make a bin
    a contrast of about 9 %, which 8 codes are in the middle of 8 bits; 256 for classes."""
    value_range: tuple[float, float] | None = None
    """Values that become the first and last code; None = the fixed mapping of the type."""

    group: ClassVar[Literal["information"]] = "information"

    def __post_init__(self) -> None:
        if self.cell_px < 2:
            raise ConfigError.of(
                "`cell_px` of `entropy`", got=self.cell_px, expected="at least 2 px", do="One pixel has no entropy."
            )

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image."""
        limits = None if self.value_range is None else list(self.value_range)
        return {"term": "entropy-1", "cell_px": self.cell_px, "bins": self.bins, "value_range": limits}

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return the entropy of each cell of an image."""
        return self.of_look(Look.of(pyr))

    def of_look(self, look: Look) -> ScoreMap:
        """Return the entropy of each cell of a coarse picture."""
        codes, valid = look.codes(self.value_range)
        bins = self._bins(look)
        mask = None if valid.all() else valid
        return self._map(look, tile_entropy(codes, mask, tile_px=self.cell_px, bins=bins), 1, None)

    def levels(self, pyr: Pyramid) -> tuple[ScoreMap, ...]:
        """Return the entropy of cells of every size, from one look at an image.

        Parameters
        ----------
        pyr : Pyramid
            The image.

        Returns
        -------
        tuple of ScoreMap
            Finest first, each with cells of twice the edge, up to a single one; exactly what a pass over the pixels
            with cells of that size gives. The channels are those that the finest one is the mean of.
        """
        look = Look.of(pyr)
        codes, valid = look.codes(self.value_range)
        bins = self._bins(look)
        mask = None if valid.all() else valid
        by_channel = []
        for channel in codes:
            counts = tile_histograms(channel, mask, tile_px=self.cell_px, bins=bins)
            chain = [entropy(counts, bins=bins)]
            while counts.shape[:2] != (1, 1):
                counts = coarser_histograms(counts)
                chain.append(entropy(counts, bins=bins))
            by_channel.append(chain)
        found = [np.stack(level) for level in zip(*by_channel, strict=True)]
        kept = _telling(found[0], FLOOR_BITS / log2(bins))
        return tuple(self._map(look, level, 2**k, kept) for k, level in enumerate(found))

    def _bins(self, look: Look) -> int:
        if self.bins is not None:
            return self.bins
        if look.is_labels:
            return CLASSES
        octave = look.codes_per_octave
        return BINS if octave is None or self.value_range is not None else min(MOST_BINS, 8 * MOST_BINS // octave)

    def _map(
        self, look: Look, by_channel: npt.NDArray[Any], factor: int, kept: npt.NDArray[np.bool_] | None
    ) -> ScoreMap:
        floor = FLOOR_BITS / log2(self._bins(look))
        kept = _telling(by_channel, floor) if kept is None else kept
        values = by_channel[kept].mean(axis=0)
        left_out = [channel.name for channel, keep in zip(look.info.channels, kept, strict=True) if not keep]
        notes = (f"entropy: nothing in {', '.join(left_out)}",) if left_out else ()
        return look.score_map(
            "entropy", values, ~np.isnan(values), cell_px=self.cell_px * factor, floor=floor, notes=notes
        )


def _telling(by_channel: npt.NDArray[Any], floor: float) -> npt.NDArray[np.bool_]:
    """Return which channels have a cell above the floor; all of them where none has."""
    kept = np.asarray(np.fmax.reduce(by_channel, axis=(1, 2)) > floor)
    return kept if kept.any() else np.ones_like(kept)
