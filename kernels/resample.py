"""Area-weighted resampling whose result does not depend on how the image is cut.

Output pixel j is the mean of the stored pixels under it, weighted by their overlaps, which are integers of global
positions only (see `tilestream.kernels.taps`):

    out_j = Σ_i w_y w_x x_i / Σ_i w_y w_x    over the valid stored pixels i

Accumulation: int32 down a column for samples of 8 and 16 bits on the CPU, int64 otherwise and along the row; integers
are rounded once, ties to even, to the same bits on CPU and CUDA. Floats accumulate down the column first, then along
the row, both in the order of positions: on the CPU in float64; on CUDA in the type of the samples, each sum with the
rounding error of its additions beside it (Knuth's two-sum), weights scaled by a power of two so that nothing
overflows. Tolerance of the tests, against exact fractions: 0 for integers. float64: 1e-12 of the result and of the
largest sample. float32: 1e-6 of the result; on CUDA 4e-7 of the largest sample besides.
"""

from __future__ import annotations

from fractions import Fraction
from numbers import Rational
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.area_rows import resample_rows
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, whole_pair
from tilestream.kernels.finite import needed_mask
from tilestream.kernels.language import core, cuda, cuda_kernel
from tilestream.kernels.mode import mode
from tilestream.kernels.place import Array, Place, dtype_of, place
from tilestream.kernels.rounding import accumulator_of, can_average, rounding_of, ties_even_core
from tilestream.kernels.rows import flat_view
from tilestream.kernels.taps import MAX_TERM, Axis, overlap_core, span_core, taps
from tilestream.types import Kind

THREADS = 128
"""Most of a block, which lies along a row."""
MAX_ROWS = 2**15
"""Blocks along y; a thread goes on to the row that many further down."""
INFINITY = np.float32(np.inf)


@core
def _two_sum_core(total: Any, error: Any, term: Any) -> Any:
    """Return `total + term` rounded, and `error` with what the rounding lost (Knuth, TAOCP 2, 4.2.2)."""
    found = total + term
    gained = found - total
    return found, error + ((total - (found - gained)) + (term - gained))


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2), boolean, UniTuple(int64, 5), "
    "UniTuple(int64, 5), UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 3), uint8[::1], int64, "
    "UniTuple(int64, 2))"
)
def _resample_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, axis_y: Any,
    axis_x: Any, shape: Any, out: Any, out_start: Any, out_steps: Any, out_valid: Any, flag_start: Any, flag_steps: Any,
) -> None:  # fmt: skip
    """Write one output pixel of integers of each so-manieth row a thread."""
    ox = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if ox >= shape[1]:
        return
    low_x, first_x, stop_x = span_core(axis_x, ox)
    for oy in range(cuda.blockIdx.y, shape[0], cuda.gridDim.y):
        low_y, first_y, stop_y = span_core(axis_y, oy)
        weight = 0
        for ch in range(shape[2]):
            total = np.int64(0)
            weight = 0
            for x in range(first_x, stop_x):
                column, column_weight = np.int64(0), 0
                at = start + (x - axis_x[2]) * steps[1] + ch * steps[2]
                for y in range(first_y, stop_y):
                    seen = valid_start + (y - axis_y[2]) * valid_steps[0] + (x - axis_x[2]) * valid_steps[1]
                    if not masked or valid[seen]:
                        wy = overlap_core(axis_y, low_y, y)
                        column += wy * np.int64(flat[at + (y - axis_y[2]) * steps[0]])
                        column_weight += wy
                wx = overlap_core(axis_x, low_x, x)
                total += wx * column
                weight += wx * column_weight
            mean = ties_even_core(total, weight) if weight > 0 else 0
            out[out_start + oy * out_steps[0] + ox * out_steps[1] + ch * out_steps[2]] = mean
        out_valid[flag_start + oy * flag_steps[0] + ox * flag_steps[1]] = 1 if weight > 0 else 0


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2), boolean, UniTuple(int64, 5), "
    "UniTuple(int64, 5), UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 3), uint8[::1], int64, "
    "UniTuple(int64, 2), UniTuple(float32, 2))"
)
def _resample_float_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, axis_y: Any,
    axis_x: Any, shape: Any, out: Any, out_start: Any, out_steps: Any, out_valid: Any, flag_start: Any, flag_steps: Any,
    scale: Any,
) -> None:  # fmt: skip
    """Do what `_resample_cuda` does for floats, with a second look where a sample turns out not to be finite."""
    ox = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if ox >= shape[1]:
        return
    zero = scale[0] - scale[0]
    low_x, first_x, stop_x = span_core(axis_x, ox)
    for oy in range(cuda.blockIdx.y, shape[0], cuda.gridDim.y):
        low_y, first_y, stop_y = span_core(axis_y, oy)
        weight = zero
        for look in range(2):
            good = True
            for ch in range(shape[2]):
                total, error, weight = zero, zero, zero
                for x in range(first_x, stop_x):
                    column, column_error, column_weight = zero, zero, zero
                    at = start + (x - axis_x[2]) * steps[1]
                    for y in range(first_y, stop_y):
                        here = at + (y - axis_y[2]) * steps[0]
                        seen = valid_start + (y - axis_y[2]) * valid_steps[0] + (x - axis_x[2]) * valid_steps[1]
                        counts = not masked or valid[seen] != 0
                        for other in range(shape[2] * look):
                            counts = counts and abs(flat[here + other * steps[2]]) < INFINITY
                        if counts:
                            wy = np.float32(overlap_core(axis_y, low_y, y)) * scale[0]
                            term = wy * flat[here + ch * steps[2]]
                            column, column_error = _two_sum_core(column, column_error, term)
                            column_weight += wy
                    wx = np.float32(overlap_core(axis_x, low_x, x)) * scale[1]
                    total, error = _two_sum_core(total, error + wx * column_error, wx * column)
                    weight += wx * column_weight
                mean = (total + error) / weight if weight > zero else zero
                good = good and abs(mean) < INFINITY
                out[out_start + oy * out_steps[0] + ox * out_steps[1] + ch * out_steps[2]] = mean
            if good:
                break
        out_valid[flag_start + oy * flag_steps[0] + ox * flag_steps[1]] = 1 if weight > zero else 0


def _check(pixels: Array, valid: Array | None, ratio_yx: tuple[Fraction, Fraction], kind: Kind) -> None:
    dtype = dtype_of(pixels)
    if not can_average(dtype) and not (kind == "labels" and dtype.kind in "iu"):
        raise ConfigError.of(
            "`resample`",
            got=f"samples of type {dtype}",
            expected="integers of up to 32 bits, float32 or float64",
            do="Convert the image first, or mark it as labels.",
        )
    need("resample", "pixels", pixels, dtypes=(dtype.name,), ndim=3, empty=True)
    need("resample", "valid", valid, dtypes=("bool",), shape=pixels.shape[:2], empty=True)
    if kind not in ("intensity", "labels"):
        raise ConfigError.of(
            "`kind` of `resample`", got=repr(kind), expected="'intensity' or 'labels'", do="Say what the samples are."
        )
    given: Any = ratio_yx
    paired = isinstance(given, (tuple, list)) and len(given) == 2 and all(isinstance(r, Rational) for r in given)
    if not paired or not all(0 < r.numerator <= MAX_TERM and r.denominator <= MAX_TERM for r in ratio_yx):
        raise ConfigError.of(
            "`ratio_yx`",
            got=ratio_yx,
            expected=f"positive fractions with terms of at most {MAX_TERM}",
            do="Fix the ratio once, for instance with `limit_denominator`.",
        )


def resample(
    pixels: Array,
    valid: Array | None,
    *,
    ratio_yx: tuple[Fraction, Fraction],
    src_yx: tuple[int, int],
    dst_yx: tuple[int, int],
    out: Array,
    out_valid: Array,
    kind: Kind = "intensity",
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> None:
    """Write into `out` the area-weighted mean (or the mode of labels) of the stored pixels under each output pixel.

    Parameters
    ----------
    pixels : array
        `(y, x, c)` stored samples, on the host or a device: integers of up to 32 bits, float32 or float64; labels of
        any integer type; any strides.
    valid : array of bool or None
        `(y, x)`; pixels that are False weigh nothing. None when all are valid. A float sample that is not finite makes
        its pixel invalid in any case.
    ratio_yx : pair of Fraction
        Stored pixels per output pixel; terms of at most `tilestream.kernels.taps.MAX_TERM`. Below 1 enlarges.
    src_yx : pair of int
        Global stored position of `pixels[0, 0]`.
    dst_yx : pair of int
        Global output position of `out[0, 0]`.
    out : array
        `(y, x, c)` of the dtype of `pixels`, any strides; 0 where nothing is valid.
    out_valid : array of bool
        `(y, x)`, False where nothing valid, or nothing of `pixels`, lies under the output pixel.
    kind : {"intensity", "labels"}
        Mean, or the value of the largest total weight (ties to the smaller).
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Raises
    ------
    ConfigError
        When dtype, ratio or `out` cannot be worked with, or the arrays are not in one place.

    Notes
    -----
    The CPU works in one row of accumulators a thread, and two of samples where those of a pixel do not lie side by
    side; 200 to 1,000 million stored 8-bit pixels a second and thread.
    """
    here = place(
        "resample", backend=backend, stream=stream, threads=threads, pixels=pixels, valid=valid, out=out,
        out_valid=out_valid,
    )  # fmt: skip
    _check(pixels, valid, ratio_yx, kind)
    src, dst = whole_pair("resample", "src_yx", src_yx), whole_pair("resample", "dst_yx", dst_yx)
    name, (*_, channels) = dtype_of(pixels).name, pixels.shape
    need("resample", "out", out, dtypes=(name,), shape=(*out.shape[:2], channels), empty=True)
    need("resample", "out_valid", out_valid, dtypes=("bool",), shape=out.shape[:2], empty=True)
    if 0 in pixels.shape or 0 in out.shape:
        if 0 not in out.shape:
            out[...] = 0
        out_valid[...] = False
        return
    axes_y, axes_x = (
        Axis(ratio=ratio_yx[a], src=src[a], n_src=pixels.shape[a], dst=dst[a], n_dst=out.shape[a]) for a in (0, 1)
    )
    if here.backend == "cpu":
        valid = needed_mask(here, pixels, valid)
    if kind == "labels":
        mode(here, pixels, valid, axes_yx=(axes_y, axes_x), out=out, out_valid=out_valid)
    elif here.backend == "cuda":
        _on_cuda(here, pixels, valid, (axes_y, axes_x), out, out_valid)
    else:
        _on_cpu(here, pixels, valid, (axes_y, axes_x), out, out_valid)


def _on_cuda(
    here: Place, pixels: Array, valid: Array | None, axes: tuple[Axis, Axis], out: Array, out_valid: Array
) -> None:
    height, width, channels = out.shape
    block = min(THREADS, -(-width // 32) * 32)
    grid = (-(-width // block), min(height, MAX_ROWS))
    # where every pixel is valid the mask is not looked at: any bytes will do
    mask = flat_view(out_valid if valid is None else valid)
    arguments = (
        *flat_view(pixels), *mask, valid is not None, axes[0].numbers, axes[1].numbers, (height, width, channels),
        *flat_view(out, writable=True), *flat_view(out_valid, writable=True),
    )  # fmt: skip
    dtype = dtype_of(pixels)
    if dtype.kind != "f":
        here.launch(_resample_cuda, grid, block, *arguments)
        return
    # the weights of a pixel add up to at most one half, exactly scaled
    scale = tuple(dtype.type(2.0 ** -axis.ratio.numerator.bit_length()) / 2 for axis in axes)
    here.launch(_resample_float_cuda, grid, block, *arguments, scale)


def _on_cpu(
    here: Place, pixels: Array, valid: Array | None, axes: tuple[Axis, Axis], out: Array, out_valid: Array
) -> None:
    (_, width, channels), (height, wide, _) = pixels.shape, out.shape
    taps_y, taps_x = taps(axes[0]), taps(axes[1])
    flat, start, steps = flat_view(pixels)
    interleaved = (channels == 1 or steps[2] == 1) and (width == 1 or steps[1] == channels)
    source = (flat, start, steps, width, channels, interleaved)
    mask = (*flat_view(out_valid if valid is None else valid), valid is not None)
    # the tail stays 0: weights that pad a row may point past its end
    padded = width + taps_x[1].shape[1]
    accumulator, how = accumulator_of(pixels.dtype), rounding_of(pixels.dtype)

    def work(first: int, stop: int) -> None:
        rows = np.empty((2, 1 if interleaved else width * channels), flat.dtype)
        sums, weights = np.zeros(padded * channels, accumulator), np.zeros(padded, np.int64)
        scratch = (sums, weights, rows, np.full(2, -1, np.int64))
        resample_rows(source, mask, taps_y, taps_x, scratch, how, (first, stop), out, out_valid)

    over_bands(work, height, threads=here.threads, least=max(1, 2**14 // wide))
