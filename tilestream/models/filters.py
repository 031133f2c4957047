"""Maps that need no weights: what our kernels say of each pixel, or of each square of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tilestream.errors import StageError
from tilestream.kernels.companding import compand
from tilestream.kernels.gradient_magnitude import gradient_magnitude
from tilestream.kernels.orientation_coherence import orientation_coherence
from tilestream.kernels.stain import stain_separation
from tilestream.kernels.structure_tensor import halo_px, structure_tensor
from tilestream.kernels.tile_entropy import tile_entropy
from tilestream.types import Array, Batch, ImageInfo, StageContract, StageSpec

TILE_PX = 256
"""Edge of a tile without its halo."""


@dataclass(frozen=True, kw_only=True)
class FilterStage:
    """A kernel over the tiles of a batch."""

    recorded: StageContract
    """Its halo is the reach of the kernel: what it gives for a cut is what it gives for the whole."""
    names: tuple[str, ...]
    """Of its channels; empty for one a channel of the image, under the stage's name."""
    spec: StageSpec
    """How it is made."""
    run: Callable[[Batch], Array]
    """The kernel."""
    light: str | None = None
    """Light that it is for."""

    @property
    def contract(self) -> StageContract:
        """Return what it expects and gives."""
        return self.recorded

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make it; raise `StageError` for an image in another light."""
        if self.light is not None and (image.modality != self.light or len(image.channels) != 3):
            raise StageError.of(
                f"`{self.recorded.name}`",
                got=f"an image of {len(image.channels)} channels in {image.modality} light",
                expected=f"red, green and blue of {self.light}",
                do=f"Where it is, say so: a column `light` with `{self.light}` in the manifest, or "
                f"`ts.open_pyramid(url).choose(light='{self.light}')`. Else leave this image out.",
            )
        return self.spec

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return the names of its channels."""
        return self.names or tuple(f"{channel.name}_{self.recorded.name}" for channel in image.channels)

    def __call__(self, batch: Batch) -> Array:
        """Return maps `(n, k, h / stride, w / stride)`."""
        return self.run(batch)


def _each(kernel: Callable[[Array], Array]) -> Callable[[Batch], Array]:
    return lambda batch: np.stack([kernel(pixels) for pixels in batch.pixels])


def gradient() -> FilterStage:
    """Return the stage `gradient`: how much the image changes at a pixel, over all channels, in samples a pixel."""
    contract = StageContract(name="gradient", px=TILE_PX + 2, output="dense", dim=1, halo_px=1, void_px=1)
    run = _each(lambda pixels: gradient_magnitude(pixels, threads=1)[None])
    return FilterStage(recorded=contract, names=("gradient",), spec=StageSpec(target="gradient"), run=run)


def structure(sigma: float = 2.0) -> FilterStage:
    """Return the stage `structure`: how much an image is striped around a pixel, and which way.

    Parameters
    ----------
    sigma : float
        Standard deviation in px of the Gaussian that it looks through, at most 4.

    Returns
    -------
    FilterStage
        Channels `coherence` in 0 to 1; `cos` and `sin` of twice the angle of the stripes' normal times coherence, which
        unlike angles can be averaged, as coarser levels do; and `energy`, all change in (samples a pixel)², where it is
        that of noise the others mean nothing.
    """
    reach = halo_px(sigma)
    px = TILE_PX + 2 * reach
    contract = StageContract(name="structure", px=px, output="dense", dim=4, halo_px=reach, void_px=reach)

    def run(pixels: Array) -> Array:
        tensor = structure_tensor(pixels, sigma, threads=1)
        found = orientation_coherence(tensor, threads=1)
        share, twice = found.coherence, 2 * found.theta
        return np.stack([share, share * np.cos(twice), share * np.sin(twice), tensor[0] + tensor[2]])

    spec = StageSpec(target="structure", params={"sigma": sigma})
    return FilterStage(recorded=contract, names=("coherence", "cos", "sin", "energy"), spec=spec, run=_each(run))


def stain() -> FilterStage:
    """Return the stage `stain`: how much hematoxylin, eosin and DAB a pixel holds, in optical density."""
    contract = StageContract(name="stain", px=TILE_PX, channels=3, output="dense", dim=3)
    return FilterStage(
        recorded=contract, names=("hematoxylin", "eosin", "dab"), spec=StageSpec(target="stain"),
        run=lambda batch: np.asarray(stain_separation(batch.pixels, threads=1)), light="brightfield",
    )  # fmt: skip


def local_entropy(px: int = 16, value_range: tuple[float, float] | list[float] | None = None) -> FilterStage:
    """Return the stage `local_entropy`: how many different values each square of an image has, by channel, in 0 to 1.

    Parameters
    ----------
    px : int
        Edge of a square, a divisor of 256: the stride of the map.
    value_range : (low, high), optional
        Values that become the first and last of 256 codes; by default the fixed mapping of the type.

    Returns
    -------
    FilterStage
        A channel for each of the image's.
    """
    limits = None if value_range is None else (float(value_range[0]), float(value_range[1]))
    contract = StageContract(name="local_entropy", px=TILE_PX, output="dense", stride=px)

    def run(batch: Batch) -> Array:
        codes, valid = compand(batch.pixels, batch.valid, value_range=limits, threads=1)
        masks = [None] * len(codes) if valid is None else list(valid)
        parts = [tile_entropy(one, mask, tile_px=px, threads=1) for one, mask in zip(codes, masks, strict=True)]
        return np.stack(parts)

    params = {"px": px, "value_range": None if limits is None else list(limits)}
    return FilterStage(recorded=contract, names=(), spec=StageSpec(target="local_entropy", params=params), run=run)
