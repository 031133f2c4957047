"""Feathered accumulation of overlapping tiles into a raster, the same in whatever order the tiles arrive.

Each pixel of a tile weighs w = w_y · w_x, integers that rise from the edges of the tile over `feather_px` = f pixels.
With d the distance in pixels to the nearer edge along an axis and t = (2d + 1) / 2f:

    w = 2⁸                                d ≥ f
    w = max(1, ⌊2⁸ t⌋)                    a trapezoid
    w = max(1, ⌊2⁸ t² (3 − 2t)⌋)          "smooth": the cubic that stands for a raised cosine

so every valid pixel weighs something, and what no tile covers is not valid. Sums are integers (see
`tilestream.kernels.blend_sums`): addition commutes, and results are bit-equal for any order of tiles and batches, any
number of threads, on CPU and CUDA. Tolerance of the tests: 0 for integers; float32: 2⁻²³ of the mean and limit · 2⁻³⁸.
Where all tiles agree the result is what they say, to the quantisation of floats. The means are made by
`tilestream.kernels.blend_finish`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.blend_sums import INTEGERS, BlendSums, quantise_core
from tilestream.kernels.checks import need, need_kind, whole
from tilestream.kernels.constants import constant
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, dtype_of, need_writable, place
from tilestream.kernels.rows import flat_view

Ramp = Literal["linear", "smooth"]
FULL = 2**8
"""Weight along one axis where the ramp has ended."""
MAX_FEATHER_PX = 2**14
THREADS = 128
"""Of a block, which lies along a row of a tile."""
MAX_TILES = 2**15
"""Blocks along the tiles or rows; a thread goes on to the one that many further on."""
LEAST_PX = 2**15
"""Fewest pixels that are worth a band."""


def _ramp(n: int, feather: int, kind: Ramp) -> npt.NDArray[np.int64]:
    """Return the weights of the positions along an axis."""
    position = np.arange(n, dtype=np.int64)
    t, full = 2 * np.minimum(position, n - 1 - position) + 1, 2 * max(1, feather)
    rising = FULL * t // full if kind == "linear" else FULL * t * t * (3 * full - 2 * t) // full**3
    return np.where(t >= 2 * feather, FULL, np.maximum(rising, 1))


@cpu_kernel
def _within_cpu(run: Any, limit: Any) -> bool:
    beyond = 0
    for x in range(run.shape[0]):
        beyond |= not abs(run[x]) <= limit
    return beyond == 0


@cpu_kernel
def _refused_cpu(tiles: Any, valid: Any, table: Any, limit: Any, shape: Any, band: Any) -> int:
    """Return how many samples that would be added are not finite or too large."""
    flat, start, steps = tiles
    mask, mask_start, mask_steps, masked = valid
    _, channels, height, width = shape
    count = 0
    for i in range(band[0], band[1]):
        for y in range(height if table[3 * i + 2] else 0):
            first = mask_start + i * mask_steps[0] + y * mask_steps[1]
            for ch in range(channels):
                at = start + i * steps[0] + ch * steps[1] + y * steps[2]
                # a quick look where samples lie side by side
                good = steps[3] == 1 and _within_cpu(flat[at : at + width], limit)
                for x in range(0 if good else width):
                    if not abs(flat[at + x * steps[3]]) <= limit:
                        count += 1 if not masked or mask[first + x * mask_steps[2]] else 0
    return count


@cpu_kernel
def _add_cpu(flat: Any, at: int, step: int, weights: Any, scale: Any, total: Any) -> None:
    """Add one row of one channel; `scale` is 0 for integers."""
    n = weights.shape[0]
    if step == 1 and scale == 0:
        run = flat[at : at + n]
        for x in range(n):
            total[x] += np.int64(weights[x]) * np.int64(run[x])
        return
    zero = flat.dtype.type(0)
    if step == 1:
        run = flat[at : at + n]
        for x in range(n):
            # what weighs nothing may be anything, NaN too
            total[x] += np.int64(weights[x]) * quantise_core(run[x] if weights[x] > 0 else zero, scale)
        return
    for x in range(n):
        sample = flat[at + x * step] if weights[x] > 0 else zero
        total[x] += np.int64(weights[x]) * (np.int64(sample) if scale == 0 else quantise_core(sample, scale))


@cpu_kernel
def _blend_cpu(
    tiles: Any, valid: Any, table: Any, ramp: Any, scale: Any, shape: Any, origin: Any, band: Any, total: Any,
    weight: Any,
) -> None:  # fmt: skip
    """Add what lies in a band of rows of the region."""
    flat, start, steps = tiles
    mask, mask_start, mask_steps, masked = valid
    n, channels, height, width = shape
    down, across = ramp
    weights = np.empty(width, np.int32)
    for i in range(n):
        top, left = table[3 * i] - origin[0], table[3 * i + 1] - origin[1]
        x0, x1 = max(0, -left), min(width, weight.shape[1] - left)
        if table[3 * i + 2] == 0 or x0 >= x1:
            continue
        for y in range(max(band[0], top), min(band[1], top + height)):
            first = mask_start + i * mask_steps[0] + (y - top) * mask_steps[1]
            for x in range(x0, x1):
                weights[x] = down[y - top] * across[x]
                if masked and not mask[first + x * mask_steps[2]]:
                    weights[x] = 0
            for x in range(x0, x1):
                weight[y, left + x] += weights[x]
            at = start + i * steps[0] + (y - top) * steps[2] + x0 * steps[3]
            for ch in range(channels):
                row = total[ch, y, left + x0 : left + x1]
                _add_cpu(flat, at + ch * steps[1], steps[3], weights[x0:x1], scale, row)


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, int64[::1], "
    "int64[::1], int64[::1], float32, float32, UniTuple(int64, 4), UniTuple(int64, 4), int64[::1], "
    "int32[::1], int64[::1])",
    "void(float32[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, int64[::1], "
    "int64[::1], int64[::1], float32, float32, UniTuple(int64, 4), UniTuple(int64, 4), int64[::1], "
    "int32[::1], int64[::1])",
)
def _blend_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, table: Any,
    down: Any, across: Any, scale: Any, limit: Any, shape: Any, region: Any, total: Any, weight: Any, refused: Any,
) -> None:  # fmt: skip
    """Add one pixel a thread, by integer atomics, whose order does not matter."""
    n, channels, height, width = shape
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if x >= width:
        return
    for i in range(cuda.blockIdx.z, n, cuda.gridDim.z):
        left = table[3 * i + 1] - region[1] + x
        for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
            top = table[3 * i] - region[0] + y
            inside = table[3 * i + 2] != 0 and 0 <= top < region[2] and 0 <= left < region[3]
            seen = valid_start + i * valid_steps[0] + y * valid_steps[1] + x * valid_steps[2]
            if not inside or (masked and not valid[seen]):
                continue
            at, target = start + i * steps[0] + y * steps[2] + x * steps[3], top * region[3] + left
            bad = 0
            for ch in range(channels if scale > 0 else 0):
                bad += 0 if abs(flat[at + ch * steps[1]]) <= limit else 1
            if bad > 0:
                cuda.atomic.add(refused, 0, bad)
                continue
            w = down[y] * across[x]
            cuda.atomic.add(weight, target, w)
            for ch in range(channels):
                sample = flat[at + ch * steps[1]]
                value = quantise_core(sample, scale) if scale > 0 else np.int64(sample)
                cuda.atomic.add(total, ch * region[2] * region[3] + target, w * value)


def blend(
    sums: BlendSums,
    tiles: Array,
    origins_yx: npt.NDArray[np.int64],
    valid: Array | None = None,
    *,
    feather_px: int,
    ramp: Ramp = "linear",
    ok: npt.NDArray[np.bool_] | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> BlendSums:
    """Return the sums after the tiles were added to them, each pixel with its feathered weight.

    Parameters
    ----------
    sums : BlendSums
        From `tilestream.kernels.blend_sums.blend_sums`; changed in place.
    tiles : array
        `(n, c, h, w)`, of the kind the sums were made for, on the host or a device; any strides.
    origins_yx : ndarray of int64
        `(n, 2)` positions of the tiles in the raster, px, always on the host. What lies outside the region is left out.
    valid : array of bool, optional
        `(n, h, w)`; pixels that are False weigh nothing and may hold anything.
    feather_px : int
        Length of the ramp along each edge, 0 to 16,384: the overlap of neighbours, or half of it.
    ramp : {"linear", "smooth"}
        Trapezoid, or cubic ramp with flat ends.
    ok : ndarray of bool, optional
        `(n,)` which tiles to add, always on the host: those whose status is good. By default all.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    BlendSums
        `sums`.

    Raises
    ------
    ConfigError
        When the arrays do not belong together, or, on the host, a valid float is not finite or larger than
        `sums.limit`; nothing was added then. On a device such a pixel weighs nothing and is counted in `sums.refused`.

    Notes
    -----
    On the host one call at a time may add to the same sums.
    """
    need_kind("blend", "sums", sums, BlendSums, do="Make them with blend_sums.")
    here = place(
        "blend", backend=backend, stream=stream, threads=threads, tiles=tiles, valid=valid, total=sums.total,
        weight=sums.weight,
    )  # fmt: skip
    need_writable("blend", "sums.total", sums.total)
    need_writable("blend", "sums.weight", sums.weight)
    need("blend", "tiles", tiles, dtypes=INTEGERS if sums.limit is None else ("float32",), ndim=4, empty=True)
    n, _, height, width = (int(edge) for edge in tiles.shape)
    need(
        "blend",
        "tiles",
        tiles,
        dtypes=(dtype_of(tiles).name,),
        shape=(n, sums.total.shape[0], height, width),
        empty=True,
    )
    need("blend", "valid", valid, dtypes=("bool",), shape=(n, height, width), empty=True)
    feather_px = whole("blend", "feather_px", feather_px)
    if not 0 <= feather_px <= MAX_FEATHER_PX or ramp not in ("linear", "smooth"):
        raise ConfigError.of(
            "`feather_px` and `ramp` of `blend`",
            got=(feather_px, ramp),
            expected=f"0 to {MAX_FEATHER_PX} px, and 'linear' or 'smooth'",
            do="Use the overlap of neighbouring tiles.",
        )
    table = constant(here, _table(origins_yx, ok, n))
    if 0 in tiles.shape:
        return sums
    ramps = (constant(here, _ramp(height, feather_px, ramp)), constant(here, _ramp(width, feather_px, ramp)))
    (_on_cuda if here.backend == "cuda" else _on_cpu)(here, sums, tiles, valid, table, ramps)
    return sums


def _table(origins_yx: npt.NDArray[np.int64], ok: npt.NDArray[np.bool_] | None, n: int) -> npt.NDArray[np.int64]:
    """Return y, x and whether to add it, of each tile."""
    for name, array, dtypes, shape in (("origins_yx", origins_yx, ("int64",), (n, 2)), ("ok", ok, ("bool",), (n,))):
        if array is not None and not isinstance(array, np.ndarray):
            raise ConfigError.of(
                f"`{name}` of `blend`", got=type(array).__name__, expected="a NumPy array", do="Keep it on the host."
            )
        need("blend", name, array, dtypes=dtypes, shape=shape, empty=True)
    table = np.ones((n, 3), np.int64)
    table[:, :2] = origins_yx
    if ok is not None:
        table[:, 2] = ok
    return table


def _scale(sums: BlendSums) -> tuple[Any, Any]:
    """Return scale and limit of floats, or zeros."""
    if sums.limit is None:
        return np.float32(0), np.float32(0)
    return np.float32(2.0**sums.shift), np.float32(sums.limit)


def _on_cuda(
    here: Place, sums: BlendSums, tiles: Array, valid: Array | None, table: Array, ramps: tuple[Array, Array]
) -> None:
    n, _, height, width = tiles.shape
    # where every pixel is valid the mask is not looked at: any bytes will do
    mask = flat_view(valid) if valid is not None else (flat_view(sums.weight)[0].view(np.uint8), 0, (0, 0, 0))
    block = min(THREADS, -(-width // 32) * 32)
    runs = [flat_view(array, writable=True)[0] for array in (sums.total, sums.weight, sums.refused)]
    here.launch(
        _blend_cuda, (-(-width // block), min(height, MAX_TILES), min(n, MAX_TILES)), block, *flat_view(tiles), *mask,
        valid is not None, table, *ramps, *_scale(sums), tuple(tiles.shape),
        (*sums.origin_yx, *sums.weight.shape), *runs,
    )  # fmt: skip


def _on_cpu(
    here: Place, sums: BlendSums, tiles: Array, valid: Array | None, table: Array, ramps: tuple[Array, Array]
) -> None:
    n, _, height, width = tiles.shape
    samples = flat_view(tiles)
    mask = (*flat_view(valid), True) if valid is not None else (table.view(np.uint8), 0, (0, 0, 0), False)
    scale, limit = _scale(sums)
    if sums.limit is not None:
        refused: list[int] = []
        over_bands(
            lambda start, stop: refused.append(_refused_cpu(samples, mask, table, limit, tiles.shape, (start, stop))),
            n, threads=here.threads, least=max(1, LEAST_PX // (height * width)),
        )  # fmt: skip
        if sum(refused):
            raise ConfigError.of(
                "`tiles` of `blend`",
                got=f"{sum(refused)} samples that are not finite or larger than {sums.limit:g}",
                expected="finite values within `limit` of the sums wherever `valid` and `ok` are True",
                do="Mark them as not valid, or make the sums with a larger `limit`.",
            )
    rows = sums.weight.shape[0]
    over_bands(
        lambda start, stop: _blend_cpu(
            samples, mask, table, ramps, scale, tiles.shape, sums.origin_yx, (start, stop), sums.total, sums.weight
        ),
        rows, threads=here.threads, least=max(1, LEAST_PX * rows // (n * height * width)),
    )  # fmt: skip
