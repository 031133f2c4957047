"""How much a tile could tell: the entropy of its values, one number a tile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.kernels.companding import compand
from tilestream.kernels.entropy import BINS, entropy
from tilestream.kernels.histogram import histogram
from tilestream.types import Batch, ImageInfo, StageContract, StageSpec


@dataclass(frozen=True, kw_only=True)
class InformationStage:
    """Mean over channels of the normalised entropy of a tile's 8-bit codes, in 0 to 1."""

    value_range: tuple[float, float] | None = None
    """Values that become the first and last code; None = the fixed mapping of the type."""

    @property
    def contract(self) -> StageContract:
        """Return that any tile and any channels will do."""
        return StageContract(name="entropy", px=256, dim=1)

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make it; the same for every image."""
        limits = None if self.value_range is None else list(self.value_range)
        return StageSpec(target="entropy", params={"value_range": limits})

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return the name of the one value."""
        return ("entropy",)

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return `(n, 1)` of the cores; 0 for a channel without a finite value."""
        halo, (height, width) = batch.halo_px, batch.pixels.shape[2:]
        core = np.s_[..., halo : height - halo, halo : width - halo]
        inside = None if batch.valid is None else batch.valid[core]
        codes, valid = compand(batch.pixels[core], inside, value_range=self.value_range, threads=1)
        by_channel = np.nan_to_num(entropy(histogram(codes, valid, threads=1), bins=BINS, threads=1))
        return np.asarray(by_channel.mean(axis=1, keepdims=True), np.float32)


def information(value_range: tuple[float, float] | list[float] | None = None) -> InformationStage:
    """Return the entropy stage.

    Parameters
    ----------
    value_range : (low, high), optional
        Values that become the first and last code of a linear mapping.

    Returns
    -------
    InformationStage
        The stage, called `entropy`.
    """
    return InformationStage(value_range=None if value_range is None else (float(value_range[0]), float(value_range[1])))
