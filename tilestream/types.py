"""Records and protocols that the layers hand to each other; every record is frozen and pickles small."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError

Array: TypeAlias = npt.NDArray[Any]
Kind: TypeAlias = Literal["intensity", "labels"]
Modality: TypeAlias = Literal["brightfield", "fluorescence", "scene", "unknown"]


@dataclass(frozen=True, kw_only=True, order=True)
class Shape:
    """A height and a width in pixels or cells."""

    y: int
    """Rows."""
    x: int
    """Columns."""

    @property
    def yx(self) -> tuple[int, int]:
        """Return `(y, x)`."""
        return self.y, self.x

    @property
    def xy(self) -> tuple[int, int]:
        """Return `(x, y)`."""
        return self.x, self.y

    @property
    def area(self) -> int:
        """Return the number of pixels or cells."""
        return self.y * self.x


@dataclass(frozen=True, kw_only=True, order=True)
class Box:
    """A half-open rectangle of one level, in that level's pixels; it may reach outside the image."""

    level: int = 0
    """Level that the coordinates belong to; 0 is the finest."""
    y: int
    """First row."""
    x: int
    """First column."""
    height: int
    """Rows; at least 0."""
    width: int
    """Columns; at least 0."""

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0 or self.level < 0:
            raise ConfigError.of(
                "`Box`",
                got=f"level={self.level}, height={self.height}, width={self.width}",
                expected="numbers of at least 0",
                do="Order the corners before making a box.",
            )

    @property
    def y_stop(self) -> int:
        """Return the row after the last."""
        return self.y + self.height

    @property
    def x_stop(self) -> int:
        """Return the column after the last."""
        return self.x + self.width

    @property
    def shape(self) -> Shape:
        """Return height and width."""
        return Shape(y=self.height, x=self.width)

    @property
    def slices_yx(self) -> tuple[slice, slice]:
        """Return the row and column slices."""
        return slice(self.y, self.y_stop), slice(self.x, self.x_stop)

    def intersect(self, other: Box) -> Box:
        """Return the common part, of size 0 where there is none; both must be of one level."""
        if self.level != other.level:
            raise ConfigError.of(
                "`Box.intersect`",
                got=f"levels {self.level} and {other.level}",
                expected="boxes of one level",
                do="Convert one of them first.",
            )
        y, x = max(self.y, other.y), max(self.x, other.x)
        return Box(
            level=self.level,
            y=y,
            x=x,
            height=max(0, min(self.y_stop, other.y_stop) - y),
            width=max(0, min(self.x_stop, other.x_stop) - x),
        )

    def grow(self, halo_px: int) -> Box:
        """Return the box with `halo_px` more pixels on every side."""
        return Box(
            level=self.level,
            y=self.y - halo_px,
            x=self.x - halo_px,
            height=self.height + 2 * halo_px,
            width=self.width + 2 * halo_px,
        )


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

    def read_block(self, level: int, iy: int, ix: int) -> Block | None:
        """Return one decoded block, None where none is stored on purpose (sparse); raise `DamagedError`."""

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


@dataclass(frozen=True, kw_only=True)
class PlanLevel:
    """The resolution a plan works at: a stored level, or a virtual one between two."""

    stored: int
    """Stored level that pixels are read from."""
    ratio_yx: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    """Stored pixels per plan pixel, fixed once; 1 means that nothing is resampled."""
    shape: Shape
    """Size of the plan's level in plan pixels."""
    scale_yx: tuple[float, float]
    """Level-0 pixels per plan pixel."""

    @property
    def is_stored(self) -> bool:
        """Return whether plan pixels are stored pixels."""
        return self.ratio_yx == (Fraction(1), Fraction(1))


@dataclass(frozen=True, kw_only=True)
class SuperTile:
    """The unit of work: a square of plan pixels owned by one task, and which of its tiles are wanted."""

    plan: str
    """Digest of the plan."""
    level: PlanLevel
    """Resolution at which the tiles lie."""
    iy: int
    """Row in the grid of super-tiles."""
    ix: int
    """Column in the grid of super-tiles."""
    first_row: int
    """Feature row of its first tile; rows follow from the plan alone."""
    tile_yx: npt.NDArray[np.int64]
    """Top-left corners of the tile cores `(n, 2)` as y, x in plan pixels, in row order."""
    tile_px: int
    """Edge of a tile's core, plan pixels."""
    halo_px: int = 0
    """Overlap around a core, plan pixels."""
    share: npt.NDArray[np.float32] | None = None
    """`(n,)` share of each core that the plan's `where` selected; None = all of it."""

    @property
    def key(self) -> str:
        """Return the name of the unit, unique in its plan."""
        return f"L{self.level.stored}-y{self.iy}-x{self.ix}"

    @property
    def rows(self) -> range:
        """Return the feature rows that the unit owns."""
        return range(self.first_row, self.first_row + len(self.tile_yx))


class TileStatus(IntEnum):
    """What became of a tile; only `OK` tiles count in regions and slides."""

    OK = 0
    DAMAGED = 1
    """A block it touches could not be decoded; the reason is in the report."""
    EMPTY = 2
    """No valid pixel in it."""
    FAILED = 3
    """The stage returned a value that is not finite."""


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


@dataclass(frozen=True, kw_only=True)
class StageContract:
    """What a stage expects and gives; part of the recipe, and refused where an image differs."""

    name: str
    """Name under which its output is stored (`tile/<name>`)."""
    px: int
    """Tile edge it takes, px."""
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
    """Length of its vectors; None = follows from the image (see `output_names`)."""


class Stage(Protocol):
    """One step on a batch."""

    @property
    def contract(self) -> StageContract:
        """Return what it expects and gives."""

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return a name for each value of its vectors on this image."""

    def __call__(self, batch: Batch) -> npt.NDArray[np.float32]:
        """Return one vector a tile, `(n, d)` float32."""


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """How a worker makes a stage: picklable and part of the recipe."""

    target: str
    """Registered name or `module:callable`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of its factory; JSON values only."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The durable proof that a super-tile is done; a small JSON file written after its outputs are on disk."""

    key: str
    """Key of the super-tile."""
    recipe: str
    """Digest of everything the outputs are a function of."""
    outputs: Mapping[str, str]
    """Checksum of each output file, by its path relative to the work folder."""
    tiles: int
    """Tiles in the super-tile."""
    damaged: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Reason → feature rows of the tiles that could not be decoded."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Tiles that are `empty` or `failed`, and hits and misses of the block cache."""
    bytes_read: int = 0
    """Compressed bytes asked of the source."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by step (`read`, `decode`, a stage's name, `write`), summed over this task's threads."""
    scores: tuple[float, ...] = ()
    """Coarse scores for plans that look coarse to fine; at most 64."""
    worker: str = ""
    """Host and process that did it."""


class Plan(Protocol):
    """Which tiles at which level; pure and deterministic."""

    @property
    def digest(self) -> str:
        """Return the hex digest of all that decides the tiles."""

    def __len__(self) -> int:
        """Return the number of tiles (or tokens) known so far."""

    def start(self) -> Iterable[SuperTile]:
        """Yield the units that can run at once, in the order in which they should."""

    def after(self, receipt: Receipt) -> Iterable[SuperTile]:
        """Yield the units that a finished one opens; none for a plan of tiles."""


class Sink(Protocol):
    """Where results go; `write` runs on workers, the rest where the run was started."""

    def write(self, unit: SuperTile, results: Mapping[str, Array]) -> Mapping[str, str]:
        """Store the rows of one unit durably and return the checksum of each file, by relative path."""

    def finish(self, receipts: Iterable[Receipt]) -> None:
        """Turn parts into the final output, committed by one last rename, and remove the parts."""
