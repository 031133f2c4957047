"""Shannon entropy of the tiles of an image, in one pass: pixels are read once, no histogram is stored.

    H = (log2 n − (1/n) Σ_b c_b log2 c_b) / log2 B,    0 ≤ H ≤ 1

with c_b of a tile's n valid samples in bin b of B. The same map as `entropy(tile_histograms(image))`, in float32. On
the CPU c·log2 c comes from a table of integers, in units of 2⁻¹⁴ for tiles of 64 px, which costs a fraction of 32
logarithms (float64 for tiles above 128 px and those less than half valid); on a device it is float32, added pairwise.
Tolerance of the tests: 1e-6 on the CPU and 3e-6 on CUDA against the textbook form −Σ p log2 p. Shannon, Bell System
Technical Journal 27, 1948.
"""

from __future__ import annotations

import numpy as np

from tilestream.kernels.checks import need
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.tile_histogram import BINS, DTYPES, TILE_PX, binning, count_tiles, grid_shape


def tile_entropy(
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
    """Return the entropy of each tile of an image as a share of log2 of the number of bins, by channel.

    Parameters
    ----------
    image : array of uint8, uint16, int16 or float32
        `(y, x)` or `(c, y, x)`, on the host or a device; any strides.
    valid : array of bool, optional
        `(y, x)`; by default every pixel is valid. NaN never is.
    tile_px : int
        Edge of a tile, 1 to 65,535 px; tiles at the far edges are smaller.
    bins : int
        Equal bins, 2 to 256; a power of two for 8-bit codes. Up to 32 are the fast ones.
    value_range : (low, high), optional
        Values that the bins divide among them; what lies outside falls into the first or the last. By default the 256
        codes of 8-bit samples.
    out : array of float32, optional
        `(ny, nx)` or `(c, ny, nx)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(ny, nx)` or `(c, ny, nx)` in [0, 1], NaN where a tile has no valid sample: `out`, or a new array of the kind
        of `image`.

    Raises
    ------
    ConfigError
        When type, shapes, bins or range do not fit together, or the arrays are not in one place.
    """
    name = "tile_entropy"
    here = place(name, backend=backend, stream=stream, threads=threads, image=image, valid=valid, out=out)
    need(name, "image", image, dtypes=DTYPES, ndim=(2, 3))
    need(name, "valid", valid, dtypes=("bool",), shape=tuple(image.shape[-2:]))
    how = binning(name, image, tile_px, bins, value_range)
    shape = grid_shape(image, tile_px)
    need(name, "out", out, dtypes=("float32",), shape=shape, contiguous=True)
    found = empty_like(image, shape, np.float32) if out is None else out
    count_tiles(here, image, valid, how, entropies=found)
    return found
