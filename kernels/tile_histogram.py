"""Histograms of the square tiles of an image, and of the tiles of twice the size, from one pass over the pixels.

    histograms[ch, i, j, b] = #{valid samples of tile (i, j) in bin b}       bins: see `tilestream.kernels.tile_bins`
    coarser[ch, i, j, b]    = Σ_{k, l ∈ {0, 1}} finer[ch, 2i + k, 2j + l, b]

Tiles lie on a grid from the image's corner; those at its far edges are smaller. Counts add up, so the coarser
histograms are bit for bit those of a pass over the pixels with tiles of twice the size, and the entropy of every level
is exact. Integers: tolerance of the tests is 0.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, numbers_of, whole
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view, no_samples
from tilestream.kernels.tile_bins import MAX_BINS, tiles_cpu
from tilestream.kernels.tile_cuda import tiles_on_cuda

TILE_PX = 64
BINS = 32
"""With 256, a tile of 64² pixels has too few pixels a bin to tell noise from texture."""

DTYPES = ("uint8", "uint16", "int16", "float32")
"""Types of samples."""

MAX_TILE_PX = 65_535
"""Longest edge of a tile, whose pixels uint32 can count."""

_TABLED_PX = 128
"""Longest edge of tiles whose c·log2 c is tabulated (64 KiB); beyond, a logarithm a bin is lost in the counting."""


@dataclass(frozen=True, kw_only=True)
class Binning:
    """How samples become bins, checked."""

    tile_px: int
    """Edge of a tile."""
    bins: int
    """Equal bins."""
    rule: tuple[np.float32, np.float32, np.float32] | None
    """Low, bins per unit, last bin; None for 8-bit codes."""


def binning(operation: str, image: Array, tile_px: int, bins: int, value_range: tuple[float, float] | None) -> Binning:
    """Return how an operation bins the samples of `image`.

    Parameters
    ----------
    operation : str
        Its name, for errors.
    image : array
        Samples, of which only the type is looked at.
    tile_px : int
        Edge of a tile.
    bins : int
        Equal bins.
    value_range : (low, high) or None
        Values that the bins divide among them; None for 8-bit codes.

    Returns
    -------
    Binning
        Checked.

    Raises
    ------
    ConfigError
        When the bins, the tile or the range make no sense, or a range is missing.
    """
    tile_px, bins = whole(operation, "tile_px", tile_px), whole(operation, "bins", bins)
    if not 1 <= tile_px <= MAX_TILE_PX:
        _refuse(operation, "tile_px", tile_px, f"1 to {MAX_TILE_PX} px", "Join coarser histograms for larger tiles.")
    if not 2 <= bins <= MAX_BINS:
        _refuse(operation, "bins", bins, f"2 to {MAX_BINS}", "Choose a power of two.")
    if value_range is None:
        if dtype_of(image) != np.uint8:
            do = "State the values that the bins divide among them, such as (0, 4095) for 12 bits."
            _refuse(operation, "value_range", f"None with {dtype_of(image)}", "(low, high)", do)
        if MAX_BINS % bins:
            _refuse(operation, "bins", bins, "a power of two for 8-bit codes", "Choose one, or state a `value_range`.")
        return Binning(tile_px=tile_px, bins=bins, rule=None)
    low, high = numbers_of(operation, "value_range", value_range, 2)
    if not low < high:
        _refuse(operation, "value_range", value_range, "two finite values, the lower first", "Leave it out for codes.")
    scale = np.float32(bins / (high - low))
    return Binning(tile_px=tile_px, bins=bins, rule=(np.float32(low), scale, np.float32(bins - 1)))


def _refuse(operation: str, name: str, got: object, expected: str, do: str) -> None:
    raise ConfigError.of(f"`{name}` of `{operation}`", got=got, expected=expected, do=do)


@functools.lru_cache(maxsize=8)
def _terms(tile_px: int) -> tuple[npt.NDArray[np.int32], float]:
    """Return c·log2 c of every count that a tile can have, and their unit; nothing where the table would be large."""
    if tile_px > _TABLED_PX:
        return np.zeros(1, np.int32), 1.0
    counts = np.arange(tile_px * tile_px + 1, dtype=np.float64)
    counts[1:] *= np.log2(counts[1:])
    unit = 2.0 ** (math.ceil(math.log2(max(counts[-1], 1.0))) - 30)
    return np.rint(counts / unit).astype(np.int32), unit


def count_tiles(
    here: Place,
    image: Array,
    valid: Array | None,
    bins: Binning,
    *,
    histograms: Array | None = None,
    entropies: Array | None = None,
) -> None:
    """Write histograms or entropies of all tiles; arrays are checked.

    Parameters
    ----------
    here : Place
        Where to run.
    image : array
        `(y, x)` or `(c, y, x)`.
    valid : array or None
        `(y, x)`.
    bins : Binning
        Tiles and bins.
    histograms, entropies : array, optional
        What to write, contiguous: uint32 `(c, ny, nx, bins)`, float32 `(c, ny, nx)`.
    """
    *outer, height, width = image.shape
    flat, start, steps = flat_view(image)
    pixels = (flat, start, steps if outer else (0, *steps))
    channels = outer[0] if outer else 1
    shape = (int(channels), int(height), int(width), bins.tile_px, bins.bins)
    if here.backend == "cuda":
        tiles_on_cuda(here, pixels, valid, shape, bins.rule, histograms, entropies)
        return
    mask = (no_samples(np.uint8), 0, (0, 0), False) if valid is None else (*flat_view(valid), True)
    ny, nx = (-(-n // bins.tile_px) for n in (height, width))
    out = (
        np.empty((1, 1, 1, 1), np.uint32) if histograms is None else histograms.reshape(channels, ny, nx, bins.bins),
        histograms is not None,
        np.empty((1, 1, 1), np.float32) if entropies is None else entropies.reshape(channels, ny, nx),
        entropies is not None,
        *_terms(bins.tile_px),
    )
    codes = 8 - int(math.log2(bins.bins)) if bins.rule is None else None
    least = max(1, 2**17 // (channels * width * min(bins.tile_px, height)))
    over_bands(
        lambda first, last: tiles_cpu(pixels, mask, shape, codes, bins.rule, (first, last), out),
        ny, threads=here.threads, least=least,
    )  # fmt: skip


def grid_shape(image: Array, tile_px: int) -> tuple[int, ...]:
    """Return `(…, ny, nx)`, how many tiles an image `(…, y, x)` has."""
    *outer, height, width = (int(n) for n in image.shape)
    return (*outer, -(-height // tile_px), -(-width // tile_px))


def tile_histograms(
    image: Array,
    valid: Array | None = None,
    *,
    tile_px: int = TILE_PX,
    bins: int = BINS,
    value_range: tuple[float, float] | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return how many valid samples of each tile of an image fall into each bin, by channel.

    Parameters
    ----------
    image : array of uint8, uint16, int16 or float32
        `(y, x)` or `(c, y, x)`, on the host or a device; any strides.
    valid : array of bool, optional
        `(y, x)`; by default every pixel is valid. NaN never is.
    tile_px : int
        Edge of a tile, 1 to 65,535 px.
    bins : int
        Equal bins, 2 to 256; a power of two for 8-bit codes. Up to 32 are the fast ones.
    value_range : (low, high), optional
        Values that the bins divide among them; what lies outside falls into the first or the last. By default the 256
        codes of 8-bit samples.
    out : array of uint32, optional
        `(ny, nx, bins)` or `(c, ny, nx, bins)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of uint32
        `(ny, nx, bins)` or `(c, ny, nx, bins)` with ny = ⌈y / tile_px⌉, nx = ⌈x / tile_px⌉: `out`, or a new array of
        the kind of `image`.

    Raises
    ------
    ConfigError
        When type, shapes, bins or range do not fit together, or the arrays are not in one place.
    """
    name = "tile_histograms"
    here = place(name, backend=backend, stream=stream, threads=threads, image=image, valid=valid, out=out)
    need(name, "image", image, dtypes=DTYPES, ndim=(2, 3))
    need(name, "valid", valid, dtypes=("bool",), shape=tuple(image.shape[-2:]))
    how = binning(name, image, tile_px, bins, value_range)
    shape = (*grid_shape(image, tile_px), bins)
    need(name, "out", out, dtypes=("uint32",), shape=shape, contiguous=True)
    found = empty_like(image, shape, np.uint32) if out is None else out
    count_tiles(here, image, valid, how, histograms=found)
    return found
