"""Steps on batches of tiles, and the contracts that they state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from tilestream.types.image import Array, ImageInfo

Output: TypeAlias = Literal["vector", "dense"]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tiles that enter a stage together; never crosses a super-tile, holds decodable tiles only."""

    pixels: Array
    """`(n, c, h, w)` view of interleaved memory in the source's dtype, halo included."""
    valid: npt.NDArray[np.bool_] | None
    """`(n, h, w)`; None when every pixel of every tile is valid."""
    valid_share: npt.NDArray[np.float32]
    """`(n,)` share of valid pixels in each core."""
    rows: npt.NDArray[np.int64]
    """`(n,)` feature rows."""
    tile_yx: npt.NDArray[np.int64]
    """`(n, 2)` top-left corners of the cores in plan pixels."""
    halo_px: int = 0
    """Overlap on each side that `pixels` includes."""
    source: str = ""
    """What tells the image in its state, and the level, from all others; empty = nobody may keep these pixels."""


@dataclass(frozen=True, kw_only=True)
class StageContract:
    """What a stage expects and gives; part of the recipe, and refused where an image differs."""

    name: str
    """Name under which its output is stored (`tile/<name>`)."""
    px: int
    """Tile edge it takes, px; of a dense stage the halo is part of it."""
    mpp: float | None = None
    """Micrometres per pixel it was made for; None = native resolution."""
    needs_mpp: bool = False
    """Whether an image of unknown mpp is refused instead of read at native resolution."""
    channels: int | tuple[str, ...] | None = None
    """Number or names of the channels it takes; None = any."""
    scale: float = 1.0
    """Factor applied to the samples first."""
    mean: tuple[float, ...] = ()
    """Subtracted per channel after scaling; empty = none."""
    std: tuple[float, ...] = ()
    """Divided by per channel after the mean; empty = none."""
    dtype: str = "source"
    """Type it takes: `source` for the image's own, else a NumPy name."""
    dim: int | None = None
    """Length of its vectors, or channels of its maps; None = follows from the image (see `output_names`)."""
    output: Output = "vector"
    """`vector`: one a tile, `(n, d)`. `dense`: a map of k channels, `(n, k, h / stride, w / stride)`."""
    stride: int = 1
    """Dense: edge of the square of pixels under one pixel of the map."""
    halo_px: int = 0
    """Dense: pixels along the edges of a tile of which its output does not count, since it looked beyond the tile."""
    void_px: int = 0
    """Dense: how far a pixel that is not valid spoils its output; 0 for networks that take it in their stride."""
    stored: str | None = None
    """Dense: type that is stored, `float32`, `uint8` or `uint16`; None = the one that it returns."""
    value_range: tuple[float, float] | None = None
    """Dense: smallest and largest value; others are clipped. Integers are scaled between them, nodata comes after."""
    keeps_place: bool = False
    """Dense: whether a tile at the edge of the image reaches beyond it, where pixels are 0 and not valid, instead of
    being moved inside: for regions, whose place says which tiles of an encoder they hold."""
    classes: tuple[str, ...] = ()
    """Dense: what its channels are the scores of; stored is the number of the greatest one, as labels."""
    framework: str = "numpy"
    """What its samples come as: `numpy` for an array on the host, `torch` for a tensor on the process's device."""
    input_px: int | None = None
    """Edge that it resizes tiles to by itself, px, so that it takes tiles of any; None = they enter as they are."""
    pooling: str | None = None
    """How tokens become a vector, in words."""
    source: str | None = None
    """Where its weights are published."""
    licence: str | None = None
    """Licence of its weights."""
    weights: str | None = None
    """Digest of its weights, or `random:SEED`."""

    @property
    def is_model(self) -> bool:
        """Return whether it computes on a CUDA device where the process sees one."""
        return self.framework == "torch"


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """How a worker makes a stage: picklable and part of the recipe."""

    target: str
    """Registered name or `module:callable`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of its factory; JSON values only."""


Pending: TypeAlias = Callable[[], Array]
"""Waits for what a stage computes and returns it."""


class Stage(Protocol):
    """One step on a batch."""

    @property
    def contract(self) -> StageContract:
        """Return what it expects and gives."""

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make it for one image: channels found by name, what the image's light allows."""

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return a name for each value of its vectors on this image."""

    def __call__(self, batch: Batch) -> Array:
        """Return one vector a tile, `(n, d)` float32, or one map a tile as `contract.output` says."""


@runtime_checkable
class ExampleStage(Protocol):
    """A stage of maps that takes long for a tile, and says itself what one looks like."""

    def example(self, batch: Batch) -> Array:
        """Return maps like those of some tiles, after its networks were tried on less than that."""


@runtime_checkable
class DeviceStage(Protocol):
    """A stage that computes beside the host, so that the next batch can be decoded and sent meanwhile."""

    @property
    def device(self) -> str:
        """Return where it computes in this process: `cpu`, or a device such as `cuda:0`."""

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return memory from which the device copies best; batches are decoded into it."""

    def start(self, batch: Batch) -> Pending:
        """Begin with a batch, whose memory stays as it is until the result was taken."""


@dataclass(frozen=True, kw_only=True)
class RegionContract:
    """What a region stage was made for."""

    tiles: int | None = None
    """Edge of a region in tiles; None = whatever regions a run has."""
    whole_regions: bool = False
    """Whether it has only seen regions of which every tile was there, so that all tiles of a region are to be made."""
    framework: str = "numpy"
    """What its arrays come as: `numpy` on the host, `torch` for tensors on the process's device."""


class RegionStage(Protocol):
    """Second step of a hierarchy: the vectors of a region's tiles, in their places, to one vector of the region.

    An optional attribute `contract`, a `RegionContract` or a mapping of its fields, says what it was made for.
    """

    def __call__(self, grid: Any, mask: Any) -> Any:
        """Return `(n, d')` for vectors `(n, d, gh, gw)` float32 and `mask` `(n, gh, gw)`, True where a tile counts.

        Cells that do not count hold zeros: damaged, empty and unwanted tiles, and places outside the image.
        """


class Aggregator(Protocol):
    """Last step of a hierarchy: a bag of vectors to one vector."""

    def __call__(self, x: Any, mask: Any) -> Any:
        """Return `(b, d')` for bags `(b, n, d)` float32 and `mask` `(b, n)`, True where a row counts."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A chain over sparse 2-D grids: tiles to vectors, those of a region's tiles to one, those of regions to another.

    Picklable, and part of the recipe: each part is a name with parameters, made once a process where it is used.
    Weights are the parameter `weights`, the path of a file, or `random_weights`, a seed.
    """

    tile: StageSpec
    """Tile stage, `(n, c, h, w)` to `(n, d)`."""
    region: StageSpec | None = None
    """Region stage, `(n, d, gh, gw)` with a mask to `(n, d')`; None = mean and standard deviation of the tiles."""
    slide: StageSpec | None = None
    """Aggregator of regions, or of tiles where there is no region stage; None = their mean."""
    region_px: int | None = None
    """Edge of a region in plan pixels; None = what the region stage was made for, else the super-tile."""

    @classmethod
    def of(
        cls,
        tile: str | StageSpec,
        *,
        region: str | StageSpec | None = None,
        slide: str | StageSpec | None = None,
        region_px: int | None = None,
    ) -> Hierarchy:
        """Return a hierarchy of parts by name.

        Parameters
        ----------
        tile : str or StageSpec
            Registered name, `module:callable`, or a spec with parameters, such as weights.
        region : str or StageSpec, optional
            Region stage; by default regions are pooled.
        slide : str or StageSpec, optional
            Aggregator; by default the slide is the mean of its regions.
        region_px : int, optional
            Edge of a region in plan pixels.

        Returns
        -------
        Hierarchy
            For `ts.map_tiles`.

        Examples
        --------
        >>> from tilestream.types import StageSpec
        >>> vit4k = StageSpec(target="vit4k", params={"weights": "vit4k_xs_dino.pth"})
        >>> Hierarchy.of(StageSpec(target="hipt", params={"weights": "vit256_small_dino.pth"}), region=vit4k).slide
        """
        return cls(
            tile=_named(tile),
            region=None if region is None else _named(region),
            slide=None if slide is None else _named(slide),
            region_px=region_px,
        )


def _named(given: str | StageSpec) -> StageSpec:
    return StageSpec(target=given) if isinstance(given, str) else given
