"""What blended tiles come to: the mean of their weighted sums, and where there is one.

    mean = total / (weight · 2^shift)        see `tilestream.kernels.blend_sums`

Integers are rounded once from the exact quotient, ties to even, and clipped to the type asked for: tolerance 0. A
float32 is a first quotient and the quotient of the exact remainder: 2⁻²³ of the mean, and exact where the mean is a
value that was quantised, such as a constant. The same bits on CPU and CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.blend_sums import INTEGERS, MAX_WEIGHT, BlendSums
from tilestream.kernels.checks import need, need_kind
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

THREADS = 128
"""Of a block, which lies along a row."""
MAX_ROWS = 2**15
"""Blocks along y; a thread goes on to the row that many further down."""
LEAST_PX = 2**15
"""Fewest pixels that are worth a band."""


@dataclass(frozen=True, kw_only=True)
class Blended:
    """The mean of what was added."""

    pixels: Array
    """`(c, y, x)`; 0 where not valid."""
    valid: Array
    """bool `(y, x)`: where some tile was valid."""


@core
def _float_core(total: Any, weight: Any, unit: Any) -> Any:
    """Return total / weight · unit: a first quotient in float32, and what it left, which is exact."""
    below = np.float32(weight)
    first = np.float32(total) / below
    # every float32 of this size is whole or becomes so here, and goes back to float32 unchanged
    whole = np.int64(first)
    return (np.float32(whole) + np.float32(total - whole * weight) / below) * unit


@core
def _integer_core(total: Any, weight: Any, shift: Any, low: Any, high: Any) -> Any:
    """Return total / (weight · 2^shift) to nearest, ties to even, clipped."""
    quotient = total // weight
    rest = total - quotient * weight
    whole = quotient >> shift
    part = quotient - (whole << shift)
    # twice the remainder against the divisor: of the shift where there is one, its ties broken by what lies below
    above, tie = 2 * rest > weight, 2 * rest == weight
    if shift > 0:
        half = np.int64(1) << (shift - 1)
        above, tie = part > half or (part == half and rest > 0), part == half and rest == 0
    if above or (tie and whole & 1 == 1):
        whole += 1
    return min(max(whole, low), high)


@cpu_kernel
def _finish_cpu(total: Any, weight: Any, rule: Any, band: Any, out: Any, out_valid: Any) -> int:
    """Write a band of rows; return how many positions have a weight that total may not have held."""
    floats, unit, shift, low, high = rule
    channels, _, width = out.shape
    weights = np.empty(width, np.int64)
    heavy = 0
    for y in range(band[0], band[1]):
        for x in range(width):
            w = np.int64(weight[y, x])
            heavy += 1 if w > MAX_WEIGHT else 0
            weights[x] = w if w <= MAX_WEIGHT else 0
            out_valid[y, x] = weights[x] > 0
        for ch in range(channels):
            for x in range(width if floats else 0):
                mean = _float_core(total[ch, y, x], max(weights[x], 1), unit)
                out[ch, y, x] = mean if weights[x] > 0 else 0
            for x in range(0 if floats else width):
                mean = _integer_core(total[ch, y, x], max(weights[x], 1), shift, low, high)
                out[ch, y, x] = mean if weights[x] > 0 else 0
    return heavy


@cuda_kernel(
    "void(int64[::1], int32[::1], boolean, float32, UniTuple(int64, 3), UniTuple(int64, 3), uint8[::1], int64, "
    "UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2))",
    "void(int64[::1], int32[::1], boolean, float32, UniTuple(int64, 3), UniTuple(int64, 3), float32[::1], int64, "
    "UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2))",
)
def _finish_cuda(
    total: Any, weight: Any, floats: Any, unit: Any, rule: Any, shape: Any, out: Any, start: Any, steps: Any,
    valid: Any, valid_start: Any, valid_steps: Any,
) -> None:  # fmt: skip
    channels, height, width = shape
    x = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if x >= width:
        return
    for y in range(cuda.blockIdx.y, height, cuda.gridDim.y):
        w = np.int64(weight[y * width + x])
        good = 0 < w <= MAX_WEIGHT
        valid[valid_start + y * valid_steps[0] + x * valid_steps[1]] = 1 if good else 0
        for ch in range(channels):
            value, at = total[(ch * height + y) * width + x], start + ch * steps[0] + y * steps[1] + x * steps[2]
            if not good:
                out[at] = 0
            elif floats:
                out[at] = _float_core(value, w, unit)
            else:
                out[at] = _integer_core(value, w, rule[0], rule[1], rule[2])


def finish_blend(
    sums: BlendSums,
    dtype: str = "float32",
    *,
    out: Array | None = None,
    out_valid: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Blended:
    """Return the weighted mean of the tiles that were added, and where there is one.

    Parameters
    ----------
    sums : BlendSums
        Not changed: more tiles can be added afterwards.
    dtype : str
        float32, or an integer type of up to 32 bits: rounded once, ties to even, and clipped.
    out : array, optional
        `(c, y, x)` of that type, any strides; overwritten.
    out_valid : array of bool, optional
        `(y, x)`, any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    Blended
        Pixels, 0 where not valid, and validity.

    Raises
    ------
    ConfigError
        When the type cannot be had, the arrays do not belong together, or, on the host, more than 511 tiles of full
        weight lie over one position. On a device such a position is not valid.
    """
    need_kind("finish_blend", "sums", sums, BlendSums, do="Make them with blend_sums.")
    here = place(
        "finish_blend", backend=backend, stream=stream, threads=threads, total=sums.total, weight=sums.weight, out=out,
        out_valid=out_valid,
    )  # fmt: skip
    if dtype not in (*INTEGERS, "float32") or (dtype != "float32" and sums.shift < 0):
        raise ConfigError.of(
            "`dtype` of `finish_blend`",
            got=f"{dtype!r} with a limit of {sums.limit}",
            expected="'float32', or an integer type of up to 32 bits where `limit` is at most 2**38",
            do="Finish as float32 and convert.",
        )
    shape = tuple(int(edge) for edge in sums.total.shape)
    need("finish_blend", "out", out, dtypes=(dtype,), shape=shape)
    need("finish_blend", "out_valid", out_valid, dtypes=("bool",), shape=shape[1:])
    pixels = empty_like(sums.total, shape, dtype) if out is None else out
    valid = empty_like(sums.total, shape[1:], np.bool_) if out_valid is None else out_valid
    floats, unit = dtype == "float32", np.float32(2.0**-sums.shift)
    rule = (sums.shift, 0, 0) if floats else (sums.shift, int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if here.backend == "cuda":
        block = min(THREADS, -(-shape[2] // 32) * 32)
        here.launch(
            _finish_cuda, (-(-shape[2] // block), min(shape[1], MAX_ROWS)), block, flat_view(sums.total)[0],
            flat_view(sums.weight)[0], floats, unit, rule, shape, *flat_view(pixels, writable=True),
            *flat_view(valid, writable=True),
        )  # fmt: skip
        return Blended(pixels=pixels, valid=valid)
    heavy: list[int] = []
    over_bands(
        lambda start, stop: heavy.append(
            _finish_cpu(sums.total, sums.weight, (floats, unit, *rule), (start, stop), pixels, valid)
        ),
        shape[1], threads=here.threads, least=max(1, LEAST_PX // shape[2]),
    )  # fmt: skip
    if sum(heavy):
        raise ConfigError.of(
            "`sums` of `finish_blend`",
            got=f"{sum(heavy)} positions with a weight above {MAX_WEIGHT}",
            expected="at most 511 tiles of full weight over a position",
            do="Finish more often, or add fewer tiles.",
        )
    return Blended(pixels=pixels, valid=valid)
