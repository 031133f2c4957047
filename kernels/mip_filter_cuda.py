"""One level by a symmetric filter on CUDA: one pixel and channel a thread, all taps from global memory.

The formula is that of `tilestream.kernels.mip_filter`. Neighbouring threads read the same rows, which the first cache
holds; the sums of rows are not shared, so that the work grows with the square of the radius.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.constants import constant
from tilestream.kernels.fir import Fir, Light, codes_on_cuda, light_tables, limits_of, tap_core
from tilestream.kernels.language import cuda, cuda_core, cuda_kernel
from tilestream.kernels.mip_layout import THREADS, Reduction, frame, masks_of, shape_of
from tilestream.kernels.place import Place, dtype_of
from tilestream.kernels.rounding import always_core, finite_core, quotient_core, ties_even_core


@cuda_core
def _integer(mean: Any, lit: Any, edges: Any, limits: Any) -> Any:
    return codes_on_cuda(edges, mean) if lit else min(max(mean, limits[0]), limits[1])


@cuda_core
def _as_it_is(mean: Any, lit: Any, edges: Any, limits: Any) -> Any:
    return mean


def _good(sum_type: Any, finite_core: Any) -> Any:
    """Return the test of whether a pixel enters anything."""

    def good(flat: Any, at: Any, step: Any, channels: Any, nodata: Any, has_nodata: Any) -> Any:
        finite, other = True, not has_nodata
        for k in range(channels):
            finite = finite and finite_core(sum_type(flat[at + k * step]))
            other = other or flat[at + k * step] != nodata
        return finite and other

    return cuda_core(good)


def _filter_cuda(sum_type: Any, mean_core: Any, finite_core: Any, sample: str, scalar: str) -> Any:
    """Return the kernel that adds in `sum_type`."""
    is_good = _good(sum_type, finite_core)
    stored = _integer if np.issubdtype(sum_type, np.integer) else _as_it_is

    def kernel(
        flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any,
        nodata: Any, has_nodata: Any, fill: Any, limits: Any, weights: Any, radius: Any, table: Any, edges: Any,
        lit: Any, shape: Any, out: Any, out_start: Any, out_steps: Any, ok: Any, ok_start: Any, ok_steps: Any,
        wants_ok: Any,
    ) -> None:  # fmt: skip
        """Filter one pixel and channel a thread."""
        images, channels, height, width, oy0, rows, columns = shape
        index = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
        if index >= images * channels * rows * columns:
            return
        ox, ch = index % columns, index // columns % channels
        oy, image = oy0 + index // columns // channels % rows, index // columns // channels // rows
        first, valid_first = start + image * steps[0], valid_start + image * valid_steps[0]
        total, quad, weight, exists, count = sum_type(0), sum_type(0), np.int64(0), np.int64(0), 0
        for x in range(max(2 * ox + 1 - radius, 0), min(2 * ox + radius + 1, width)):
            wx = weights[tap_core(x - 2 * ox)]
            column, pair = sum_type(0), sum_type(0)
            for y in range(max(2 * oy + 1 - radius, 0), min(2 * oy + radius + 1, height)):
                at = first + y * steps[2] + x * steps[3]
                good = not masked or valid[valid_first + y * valid_steps[1] + x * valid_steps[2]] != 0
                good = good and is_good(flat, at, steps[1], channels, nodata, has_nodata)
                wy = weights[tap_core(y - 2 * oy)]
                exists += wx * wy
                if good:
                    value = sum_type(flat[at + ch * steps[1]])
                    if lit:
                        value = sum_type(table[np.int64(flat[at + ch * steps[1]])])
                    column += sum_type(wy) * value
                    weight += wx * wy
                    if y >= 2 * oy and y < 2 * oy + 2 and x >= 2 * ox and x < 2 * ox + 2:
                        count += 1
                        pair += value
            total += sum_type(wx) * column
            quad += pair
        if 2 * weight < exists:
            total, weight = quad, np.int64(max(count, 1))
        to = out_start + image * out_steps[0] + ch * out_steps[1] + oy * out_steps[2] + ox * out_steps[3]
        out[to] = stored(mean_core(total, sum_type(weight)), lit, edges, limits) if count > 0 else fill
        if wants_ok and ch == 0:
            ok[ok_start + image * ok_steps[0] + oy * ok_steps[1] + ox * ok_steps[2]] = 1 if count > 0 else 0

    kernel.__name__ = kernel.__qualname__ = f"_filter_{sample}_cuda"
    return cuda_kernel(
        f"void({sample}[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, {scalar}, "
        f"boolean, {scalar}, UniTuple(int64, 2), int64[::1], int64, uint16[::1], uint16[::1], boolean, "
        f"UniTuple(int64, 7), {sample}[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean)"
    )(kernel)


_KERNELS = {
    "i": _filter_cuda(np.int64, ties_even_core, always_core, "uint8", "int64"),
    "f4": _filter_cuda(np.float32, quotient_core, finite_core, "float32", "float32"),
    "f8": _filter_cuda(np.float64, quotient_core, finite_core, "float64", "float64"),
}


def filter_on_cuda(reduction: Reduction, here: Place, fir: Fir, light: Light) -> None:
    """Write one level of a reduction.

    Parameters
    ----------
    reduction : Reduction
        One level, on the device.
    here : Place
        Where that is.
    fir : Fir
        The filter.
    light : {"stored", "linear", "density"}
        What of the samples it averages.
    """
    images, channels, height, width = reduction.shape
    dtype = dtype_of(reduction.pixels)
    source = frame(reduction.pixels)
    mask, ok = masks_of(reduction)
    out = frame(reduction.outs[0], writable=True)
    _, _, rows, columns = shape_of(reduction.outs[0])
    kernel = _KERNELS[{"f2": "f4"}.get(dtype.str[1:], dtype.str[1:]) if dtype.kind == "f" else "i"]
    scalar = int if dtype.kind != "f" else np.float64 if dtype == np.float64 else np.float32
    table, edges = light_tables(light) if light != "stored" else (np.zeros(1, np.uint16), np.zeros(1, np.uint16))
    how = (
        limits_of(dtype), constant(here, np.array(fir.weights, np.int64)), fir.radius, constant(here, table),
        constant(here, edges), light != "stored",
    )  # fmt: skip
    bands = [(0, rows)]
    if reduction.boxes is not None:
        bands = [(int(y0) // 2, -(-int(y1) // 2)) for y0, _, y1, _ in reduction.boxes]
    for top, bottom in bands:
        shape = (images, channels, height, width, top, bottom - top, columns)
        here.launch(
            kernel, -(-images * channels * (bottom - top) * columns // THREADS), THREADS, *source,
            *mask, reduction.valid is not None, scalar(reduction.nodata or 0), reduction.nodata is not None,
            scalar(reduction.fill), *how, shape, *out, *ok[0], bool(reduction.valids),
        )  # fmt: skip
