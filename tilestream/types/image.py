"""What an image is, and what a source gives of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.types.geometry import Box, Shape

Array: TypeAlias = npt.NDArray[Any]
Kind: TypeAlias = Literal["intensity", "labels"]
Modality: TypeAlias = Literal["brightfield", "fluorescence", "scene", "unknown"]
Validity: TypeAlias = Literal["nodata", "mask"]
"""Where validity comes from: `nodata`, the samples: who writes nodata (NaN for floats that have none) wherever a pixel
is not valid need say no more; `mask`, something beside them (a mask, alpha, tiles that are not stored, other bands)."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One stored resolution of an image."""

    index: int
    """Position in the pyramid; 0 is the finest."""
    shape: Shape
    """Size in pixels."""
    block: Shape
    """Size of the unit that is decoded at once (TIFF tile, group of strips, Zarr chunk), px."""
    scale_yx: tuple[float, float] = (1.0, 1.0)
    """Size of one pixel of this level in pixels of level 0."""

    @property
    def blocks(self) -> Shape:
        """Return the number of blocks along each axis."""
        return Shape(y=-(-self.shape.y // self.block.y), x=-(-self.shape.x // self.block.x))

    @property
    def box(self) -> Box:
        """Return the whole level as a box."""
        return Box(level=self.index, y=0, x=0, height=self.shape.y, width=self.shape.x)


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One channel or band."""

    name: str
    """Name by which users choose it (`R`, `DAPI`, `nir`)."""
    scale: float = 1.0
    """Factor from stored to physical value (product scale)."""
    offset: float = 0.0
    """Offset from stored to physical value, added after the factor."""
    color: str | None = None
    """Colour that the format gives it for display, six hex digits (`00FF00`); None where it states none."""
    window: tuple[float, float] | None = None
    """Stored values that the format shows as darkest and as brightest; None where it states none."""


@dataclass(frozen=True, kw_only=True)
class ClassBand:
    """A layer of class numbers or bit fields beside an image's channels (`SCL`, `QA_PIXEL`)."""

    name: str
    """Name by which users choose it."""
    values: Mapping[int, str] = field(default_factory=dict)
    """Name of each class by its number, where the product states them."""
    bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """First bit and number of bits of each field by its name, for a layer of bit fields."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What is known of one 2-D image before any pixel is read; unknown things are None, never guessed."""

    format: str
    """Short name of the format (`aperio-svs`, `ome-zarr-0.4`, `cog`)."""
    levels: tuple[Level, ...]
    """Stored levels, finest first."""
    dtype: np.dtype[Any]
    """Type of the samples."""
    channels: tuple[Channel, ...]
    """Channels in stored order, alpha and masks left out."""
    fingerprint: str
    """Hex digest of size, header and tile tables; the identity of the pixels."""
    kind: Kind = "intensity"
    """`labels` are class numbers: reduced by mode, never by mean."""
    modality: Modality = "unknown"
    """What lights the image; decides how tissue is told from background."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per pixel of level 0."""
    crs: str | None = None
    """`EPSG:n` where a code exists, else WKT2 or PROJJSON text."""
    affine: tuple[float, float, float, float, float, float] | None = None
    """`(a, b, c, d, e, f)`: x = a·col + b·row + c, y = d·col + e·row + f from pixel corners of level 0."""
    gcps: tuple[tuple[float, float, float, float, float], ...] = ()
    """Ground control points `(row, col, x, y, z)`, kept as given."""
    nodata: float | None = None
    """Stored value that means "no measurement"."""
    validity: Validity | None = None
    """What may say that a pixel was not measured; None where every pixel was."""
    axes: Mapping[str, int] = field(default_factory=dict)
    """Sizes of all axes that exist, also those that were selected away (`t`, `z`, `scene` …)."""
    selection: Mapping[str, int] = field(default_factory=dict)
    """The index chosen on each axis that is not `c`, `y` or `x`."""
    content: Box | None = None
    """Scanned part of level 0 where the format states one; QuPath puts its origin there."""
    associated: tuple[str, ...] = ()
    """Names of associated images that cannot identify a patient (never `label` or `macro`)."""
    notes: tuple[str, ...] = ()
    """What a user should know: wrong tags that were seen through, axes chosen by default, unknown mpp."""
    datetime: str | None = None
    """When a scene was taken, ISO 8601. Never that of a slide or series, which can identify a patient."""
    classes: tuple[ClassBand, ...] = ()
    """Layers of classes beside the channels of a scene, on its grid."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Channels and layers that the metadata of a scene names and that cannot be had, with the reason."""
    derived: tuple[str, ...] = ()
    """What a user's choice makes of the stored pixels (`invalid SCL=3,8`, `decibels of power`); in the fingerprint."""

    @property
    def shape(self) -> Shape:
        """Return the size of level 0."""
        return self.levels[0].shape

    @property
    def mpp(self) -> float | None:
        """Return micrometres per pixel of level 0 (geometric mean of both axes), None when unknown."""
        if self.mpp_yx is None:
            return None
        return float(np.sqrt(self.mpp_yx[0] * self.mpp_yx[1]))


@dataclass(frozen=True, kw_only=True)
class Block:
    """The decoded pixels of one block."""

    pixels: Array
    """Samples `(y, x, c)`, at most the block size; edge blocks may be full or cropped."""
    valid: npt.NDArray[np.bool_] | None = None
    """`(y, x)`, False where nothing was measured; None when everything is valid."""


class Source(Protocol):
    """Reads blocks of one image in one format; picklable, holds no open handle, safe under threads."""

    @property
    def info(self) -> ImageInfo:
        """Return the description of the selected 2-D image."""

    def read_block(self, level: int, iy: int, ix: int, out: Array | None = None) -> Block | None:
        """Return one decoded block, None where none is stored on purpose (sparse); raise `DamagedError`.

        A source that can decode straight into `out`, memory of a full block `(y, x, c)`, returns it as the pixels.
        """

    def isel(self, **index: int) -> Source:
        """Return the source with another choice on its extra axes."""

    def read_associated(self, name: str) -> Array:
        """Return an associated image `(y, x, c)`."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """The pixels of a box with what is known of their validity."""

    pixels: Array
    """`(c, y, x)` strided view of interleaved memory; 0 where not valid."""
    valid: npt.NDArray[np.bool_]
    """`(y, x)`, False outside the image, on nodata, sparse or damaged blocks."""
    damage: tuple[str, ...] = ()
    """Reason of each damaged block that the box touches; empty when all could be decoded."""
