"""Sums of overlapping tiles in integers, which come out the same in whatever order they are added.

    total[c, y, x] = Σ_tiles w · q(v),   weight[y, x] = Σ_tiles w,   blended = total / (weight · 2^shift)

Integer tiles are summed as they are (shift 0). A float32 becomes q(v) = v · 2^shift rounded to nearest, ties to even,
with the shift that brings the largest magnitude promised, `limit`, to at most 2³⁸: an error of at most
limit · 2⁻³⁸, and none for values of at least limit · 2⁻¹⁵. Weights are at most 2¹⁶ (see `tilestream.kernels.blend`), so
511 tiles of full weight fit one position in int64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need, number_of, whole_pair
from tilestream.kernels.language import core, cuda, cuda_kernel, floor
from tilestream.kernels.place import Array, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

VALUE_BITS = 38
"""Of a quantised float."""
MAX_WEIGHT = 2**25 - 1
"""Of a position: with `VALUE_BITS` its total stays inside int64."""
LIMITS = (2.0**-24, 2.0**100)
"""Least and greatest `limit`."""
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
HALF = np.float32(0.5)
THREADS = 128
MAX_BLOCKS = 2**15


@dataclass(frozen=True, kw_only=True)
class BlendSums:
    """The sums of a region of a raster, on the host or a device; `blend` adds to them in place."""

    total: Array
    """int64 `(c, y, x)`, contiguous: weighted sums of quantised values."""
    weight: Array
    """int32 `(y, x)`, contiguous: sums of weights; 0 where no tile is valid."""
    refused: Array
    """int64 `(1,)`: samples on a device that weighed nothing because they were not finite or beyond `limit`. On the
    host they are an error instead, and this stays 0."""
    origin_yx: tuple[int, int]
    """Position of the first sum in the raster, px."""
    limit: float | None
    """Largest magnitude of float tiles; None for integer ones."""

    @property
    def shift(self) -> int:
        """Values are held in units of 2^-shift."""
        return 0 if self.limit is None else VALUE_BITS - math.ceil(math.log2(self.limit))


@core
def quantise_core(sample: Any, scale: Any) -> Any:
    """Return the int64 nearest to `sample · scale`, ties to even; exact in float32 since `scale` is a power of two."""
    scaled = np.float32(sample) * scale
    low = floor(scaled)
    rest = scaled - low  # a float32 with a fraction is below 2^23: exact
    whole = np.int64(low)
    # without branches, for the vector units of CPUs
    return whole + ((rest > HALF) | ((rest == HALF) & ((whole & 1) == 1)))


@cuda_kernel("void(int64[::1], int32[::1], int64[::1])")
def _zero_cuda(total: Any, weight: Any, refused: Any) -> None:
    step = cuda.gridDim.x * cuda.blockDim.x
    first = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    for k in range(first, total.size, step):
        total[k] = 0
        if k < weight.size:
            weight[k] = 0
        if k < refused.size:
            refused[k] = 0


def blend_sums(
    like: Array,
    shape_yx: tuple[int, int],
    *,
    origin_yx: tuple[int, int] = (0, 0),
    limit: float | None = None,
    backend: str | None = None,
    stream: int = 0,
) -> BlendSums:
    """Return the sums of a region to which no tile was added yet.

    Parameters
    ----------
    like : array
        Tiles `(n, c, h, w)` such as will be added: their place, channels and type decide.
    shape_yx : pair of int
        Size of the region, px.
    origin_yx : pair of int
        Position of the region in the raster, px.
    limit : float, optional
        Largest magnitude that float tiles may have, 2⁻²⁴ to 2¹⁰⁰: needed for them, and for them only.
    backend : {"cpu", "cuda"}, optional
        By default where `like` is.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.

    Returns
    -------
    BlendSums
        All 0, where `like` is.

    Raises
    ------
    ConfigError
        When the tiles cannot be summed, or `limit` does not fit them.
    """
    here = place("blend_sums", backend=backend, stream=stream, threads=1, like=like)
    need("blend_sums", "like", like, dtypes=(*INTEGERS, "float32"), ndim=4, empty=True)
    floats = dtype_of(like).kind == "f"
    if limit is not None:
        limit = number_of("blend_sums", "limit", limit)
    if floats != (limit is not None) or (limit is not None and not LIMITS[0] <= limit <= LIMITS[1]):
        raise ConfigError.of(
            "`limit` of `blend_sums`",
            got=limit,
            expected="2**-24 to 2**100 for float tiles" if floats else "None for integer tiles",
            do="State the largest magnitude that the values can have." if floats else "Leave it out.",
        )
    height, width = whole_pair("blend_sums", "shape_yx", shape_yx)
    if min(height, width, like.shape[1]) < 1:
        raise ConfigError.of(
            "`shape_yx` of `blend_sums`", got=(height, width), expected="at least one pixel and channel", do="Fix it."
        )
    shape = (int(like.shape[1]), height, width)
    sums = BlendSums(
        total=empty_like(like, shape, np.int64),
        weight=empty_like(like, shape[1:], np.int32),
        refused=empty_like(like, (1,), np.int64),
        origin_yx=whole_pair("blend_sums", "origin_yx", origin_yx),
        limit=None if limit is None else float(limit),
    )
    if here.backend == "cuda":
        runs = [flat_view(array, writable=True)[0] for array in (sums.total, sums.weight, sums.refused)]
        here.launch(_zero_cuda, min(-(-math.prod(shape) // THREADS), MAX_BLOCKS), THREADS, *runs)
        return sums
    for array in (sums.total, sums.weight, sums.refused):
        array[...] = 0
    return sums
