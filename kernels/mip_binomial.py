"""One level by the binomial filter of five taps, on CPU and CUDA: smoother than a mean of four, and dearer.

    out[y, x] = Σ w_i w_j x[2y+i, 2x+j] / Σ w_i w_j,   w = 1 4 6 4 1 for i, j = −2 … 2

over the valid pixels that exist, so that edges need no pixels that are not there (Burt & Adelson 1983; the even pixels
are kept, as in NVIDIA VPI's pyramid: pixel x is centred on pixel 2x). A pixel is valid where one of the four pixels
2y, 2y+1 × 2x, 2x+1 is, as with the mean. Exact integer sums, rounded once a level, ties to even: tolerance 0. Floats
add rows first, then columns; 1e-6 (float32) and 1e-12 (float64), relative to the largest sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.mip_layout import THREADS, Reduction, box_of, frame, jobs_of, level_shape, masks_of, shape_of
from tilestream.kernels.place import Place, dtype_of
from tilestream.kernels.rounding import always_core, finite_core, quotient_core, ties_even_core
from tilestream.kernels.rows import no_samples

REACH = 2
"""Pixels to each side that enter a pixel."""
_LEAST_PX = 2**14


@core
def weight_core(offset: int) -> int:
    """Return the weight of a pixel at an offset of -2 to 2."""
    if offset == 0:
        return 6
    return 4 if offset == 1 or offset == -1 else 1


@cpu_kernel
def _valid_row_cpu(source: Any, mask: Any, image: int, channels: int, y: int, x0: int, row: Any) -> None:
    flat, start, steps, nodata, has_nodata, floating = source
    valid, valid_start, valid_steps, masked = mask
    for k in range(row.size):
        x = x0 + k
        good = not masked or valid[valid_start + image * valid_steps[0] + y * valid_steps[1] + x * valid_steps[2]] != 0
        first = start + image * steps[0] + y * steps[2] + x * steps[3]
        if good and floating:
            for ch in range(channels):
                good &= np.isfinite(flat[first + ch * steps[1]])
        if good and has_nodata:
            other = False
            for ch in range(channels):
                other |= flat[first + ch * steps[1]] != nodata[0]
            good = other
        row[k] = good


@cpu_kernel
def _row_cpu(sums: Any, weights: Any, near: Any, span: Any, how: Any, to: Any) -> None:
    """Write one row of one channel from the column sums and weights of the stored pixels x0 to x1."""
    x0, x1, ox0, ox1 = span
    scales, integer, fill = how
    work = scales.dtype.type
    run, first, step = to
    for ox in range(ox0, ox1):
        total, weight = sums[0] * 0, 0
        for i in range(max(2 * ox - 2, x0), min(2 * ox + 3, x1)):
            w = weight_core(i - 2 * ox)
            total += sums.dtype.type(w) * sums[i - x0]
            weight += w * weights[i - x0]
        seen = near[2 * ox - x0] or (2 * ox + 1 < x1 and near[2 * ox + 1 - x0])
        if not seen:
            run[first + ox * step] = fill[0]
            continue
        mean = work(total) / work(weight)
        run[first + ox * step] = np.rint(mean) if integer else mean


@cpu_kernel
def _binomial_cpu(source: Any, mask: Any, shape: Any, jobs: Any, band: Any, scratch: Any, to: Any) -> None:
    flat, start, steps, _, _, _ = source
    channels, height, width = shape
    sums, weights, good, near = scratch
    how, run, at, ok, ok_at = to
    for index in range(band[0], band[1]):
        image, y0, left, right = jobs[index]
        x0, x1 = max(left - 2, 0), min(right + 2, width)
        n = x1 - x0
        weights[:n] = 0
        near[:n] = False
        for i in range(max(y0 - 2, 0), min(y0 + 3, height)):
            w = weight_core(i - y0)
            row = good[i - y0 + 2, :n]
            _valid_row_cpu(source, mask, image, channels, i, x0, row)
            for k in range(n):
                weights[k] += w * row[k]
                near[k] |= row[k] != 0 and 0 <= i - y0 < 2
        span = (x0, x1, left >> 1, (right + 1) >> 1)
        for ch in range(channels):
            sums[:n] = 0
            for i in range(max(y0 - 2, 0), min(y0 + 3, height)):
                w = sums.dtype.type(weight_core(i - y0))
                first = start + image * steps[0] + ch * steps[1] + i * steps[2] + x0 * steps[3]
                for k in range(n):
                    if good[i - y0 + 2, k]:
                        sums[k] += w * sums.dtype.type(flat[first + k * steps[3]])
            to_first = at[0] + image * at[1] + ch * at[2] + (y0 >> 1) * at[3]
            _row_cpu(sums, weights, near, span, how, (run, to_first, at[4]))
        if ok_at.size:
            ok_first = ok_at[0] + image * ok_at[1] + (y0 >> 1) * ok_at[2]
            for ox in range(span[2], span[3]):
                seen = near[2 * ox - x0] or (2 * ox + 1 < x1 and near[2 * ox + 1 - x0])
                ok[ok_first + ox * ok_at[3]] = seen


def _binomial_cuda(sum_type: Any, mean_core: Any, finite_core: Any, sample: str, scalar: str) -> Any:
    """Return the kernel that adds in `sum_type`."""

    def kernel(
        flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any,
        nodata: Any, has_nodata: Any, fill: Any, shape: Any, out: Any, out_start: Any, out_steps: Any,
        ok: Any, ok_start: Any, ok_steps: Any, wants_ok: Any,
    ) -> None:  # fmt: skip
        """Filter one pixel and channel a thread."""
        images, channels, height, width, oy0, rows, columns = shape
        index = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
        if index >= images * channels * rows * columns:
            return
        ox, ch = index % columns, index // columns % channels
        oy, image = oy0 + index // columns // channels % rows, index // columns // channels // rows
        first, valid_first = start + image * steps[0], valid_start + image * valid_steps[0]
        total, weight, near = sum_type(0), 0, False
        for x in range(max(2 * ox - 2, 0), min(2 * ox + 3, width)):
            wx = weight_core(x - 2 * ox)
            column = sum_type(0)
            for y in range(max(2 * oy - 2, 0), min(2 * oy + 3, height)):
                at = first + y * steps[2] + x * steps[3]
                good = not masked or valid[valid_first + y * valid_steps[1] + x * valid_steps[2]] != 0
                other = not has_nodata
                for k in range(channels):
                    good = good and finite_core(sum_type(flat[at + k * steps[1]]))
                    other = other or flat[at + k * steps[1]] != nodata
                if good and other:
                    wy = weight_core(y - 2 * oy)
                    column += sum_type(wy) * sum_type(flat[at + ch * steps[1]])
                    weight += wx * wy
                    near = near or (y >= 2 * oy and y < 2 * oy + 2 and x >= 2 * ox and x < 2 * ox + 2)
            total += sum_type(wx) * column
        to = out_start + image * out_steps[0] + ch * out_steps[1] + oy * out_steps[2] + ox * out_steps[3]
        if near:
            out[to] = mean_core(total, sum_type(weight))
        else:
            out[to] = fill
        if wants_ok and ch == 0:
            ok[ok_start + image * ok_steps[0] + oy * ok_steps[1] + ox * ok_steps[2]] = 1 if near else 0

    kernel.__name__ = kernel.__qualname__ = f"_binomial_{sample}_cuda"
    return cuda_kernel(
        f"void({sample}[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, {scalar}, "
        f"boolean, {scalar}, UniTuple(int64, 7), {sample}[::1], int64, UniTuple(int64, 4), uint8[::1], int64, "
        "UniTuple(int64, 3), boolean)"
    )(kernel)


_KERNELS = {
    "i": _binomial_cuda(np.int64, ties_even_core, always_core, "uint8", "int64"),
    "f4": _binomial_cuda(np.float32, quotient_core, finite_core, "float32", "float32"),
    "f8": _binomial_cuda(np.float64, quotient_core, finite_core, "float64", "float64"),
}


def reduce_binomial(reduction: Reduction, here: Place) -> None:
    """Write one level of a reduction.

    Parameters
    ----------
    reduction : Reduction
        One level.
    here : Place
        Where its arrays are.
    """
    if here.backend == "cuda":
        _on_cuda(reduction, here)
        return
    jobs = jobs_of(reduction)
    if len(jobs) == 0:
        return
    work = _half_work(reduction, jobs) if reduction.pixels.dtype == np.float16 else _work(reduction, jobs)
    width = int((jobs[:, 3] - jobs[:, 2]).max())
    over_bands(work, len(jobs), threads=here.threads, least=max(1, _LEAST_PX // (2 * width)))


def _work(reduction: Reduction, jobs: Any) -> Any:
    """Return what reduces a band of jobs."""
    _, channels, height, width = reduction.shape
    dtype = reduction.pixels.dtype
    flat, start, steps = frame(reduction.pixels)
    no_mask = no_samples(np.uint8)
    mask = (no_mask, 0, (0, 0, 0), False) if reduction.valid is None else (*frame(reduction.valid, axes=3), True)
    nodata = np.array([0 if reduction.nodata is None else reduction.nodata], flat.dtype)
    sums = flat.dtype if dtype.kind == "f" else np.dtype(np.int64)
    how = (
        np.zeros(0, np.float32 if sums == np.float32 else np.float64), dtype.kind != "f",
        np.array([reduction.fill], flat.dtype),
    )  # fmt: skip
    run, out_start, out_steps = frame(reduction.outs[0], writable=True)
    ok, ok_at = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    if reduction.valids:
        ok, ok_start, ok_steps = frame(reduction.valids[0], axes=3, writable=True)
        ok_at = np.array((ok_start, *ok_steps), np.int64)
    to = (how, run, np.array((out_start, *out_steps), np.int64), ok, ok_at)
    source = (flat, start, steps, nodata, reduction.nodata is not None, dtype.kind == "f")
    n = int((jobs[:, 3] - jobs[:, 2]).max()) + 2 * REACH

    def work(first: int, stop: int) -> None:
        scratch = (np.empty(n, sums), np.empty(n, np.int64), np.empty((5, n), np.uint8), np.empty(n, np.bool_))
        _binomial_cpu(source, mask, (channels, height, width), jobs, (first, stop), scratch, to)

    return work


def _half_work(reduction: Reduction, jobs: Any) -> Any:
    """Return what reduces a band of jobs of float16: the rows that enter one are widened to float32."""
    height, width = reduction.shape[2:]

    def work(first: int, stop: int) -> None:
        for image, y0, x0, x1 in jobs[first:stop].tolist():
            above, left = max(y0 - REACH, 0), max(x0 - REACH, 0)
            rows, columns = slice(above, min(y0 + REACH + 1, height)), slice(left, min(x1 + REACH, width))
            pixels = box_of(reduction.pixels, image, rows, columns, axes=4).astype(np.float32)
            wide = np.empty(level_shape(pixels.shape, 1), np.float32)
            seen = np.empty(wide.shape[-2:], np.bool_)
            part = Reduction(
                pixels=pixels, boxes=None, nodata=reduction.nodata, fill=reduction.fill, outs=[wide], valids=[seen],
                valid=None if reduction.valid is None else box_of(reduction.valid, image, rows, columns, axes=3),
            )  # fmt: skip
            own = jobs_of(part)
            _work(part, own)(0, len(own))
            to = (slice(y0 // 2, y0 // 2 + 1), slice(x0 // 2, -(-x1 // 2)))
            here = (..., slice((y0 - above) // 2, (y0 - above) // 2 + 1), slice((x0 - left) // 2, -(-(x1 - left) // 2)))
            box_of(reduction.outs[0], image, *to, axes=4)[...] = wide[here]
            for valid in reduction.valids:
                box_of(valid, image, *to, axes=3)[...] = seen[here]

    return work


def _on_cuda(reduction: Reduction, here: Place) -> None:
    images, channels, height, width = reduction.shape
    dtype = dtype_of(reduction.pixels)
    source = frame(reduction.pixels)
    mask, ok = masks_of(reduction)
    out = frame(reduction.outs[0], writable=True)
    _, _, rows, columns = shape_of(reduction.outs[0])
    kernel = _KERNELS[{"f2": "f4"}.get(dtype.str[1:], dtype.str[1:]) if dtype.kind == "f" else "i"]
    scalar = int if dtype.kind != "f" else np.float64 if dtype == np.float64 else np.float32
    bands = [(0, rows)]
    if reduction.boxes is not None:
        bands = [(int(y0) // 2, -(-int(y1) // 2)) for y0, _, y1, _ in reduction.boxes]
    for top, bottom in bands:
        shape = (images, channels, height, width, top, bottom - top, columns)
        here.launch(
            kernel, -(-images * channels * (bottom - top) * columns // THREADS), THREADS, *source,
            *mask, reduction.valid is not None, scalar(reduction.nodata or 0), reduction.nodata is not None,
            scalar(reduction.fill), shape, *out, *ok[0], bool(reduction.valids),
        )  # fmt: skip
