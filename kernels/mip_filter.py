"""One level by a symmetric filter (`tilestream.kernels.fir`), on CPU and CUDA.

    out[y, x] = Σ w_i w_j x[2y+i, 2x+j] / Σ w_i w_j,   i, j = 1−radius … radius

over the valid pixels that exist, so that edges need no pixels that are not there, as in Pillow. Filters with negative
weights could divide by next to nothing where most of what they want is not valid: a pixel that gets less than half of
the weight that it has where everything is valid, is the mean of the valid ones of its four instead. A pixel is valid
where one of the four pixels 2y, 2y+1 × 2x, 2x+1 is, as with the mean. Exact integer sums, rounded once a level, ties to
even, and clipped to the type: tolerance 0. Floats add rows first, then columns; 1e-6 (float32) and 1e-12 (float64),
relative to the largest sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.bands import over_bands
from tilestream.kernels.fir import MAX_RADIUS, Fir, Light, codes_core, light_tables, limits_of, tap_core
from tilestream.kernels.language import cpu_kernel
from tilestream.kernels.mip_filter_cuda import filter_on_cuda
from tilestream.kernels.mip_layout import Reduction, box_of, frame, jobs_of, level_shape
from tilestream.kernels.place import Place
from tilestream.kernels.rounding import ties_even_core, ties_even_shift_core
from tilestream.kernels.rows import no_samples

_LEAST_PX = 2**14
FLOATS, NARROW, WIDE = 0, 1, 2
"""Samples: floats, integers of up to 16 bits, of which sums of columns fit 32 bits and all sums float64, and others."""


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
def _add_row_cpu(flat: Any, at: int, step: int, weight: Any, good: Any, table: Any, sums: Any) -> None:
    """Add a row of one channel times its weight to column sums; only what is good where anything is not."""
    kind = sums.dtype.type
    if good.size:
        for k in range(sums.size):
            if good[k]:
                sample = flat[at + k * step]
                sums[k] += weight * (kind(table[int(sample)]) if table.size else kind(sample))
    elif table.size:
        for k in range(sums.size):
            sums[k] += weight * kind(table[int(flat[at + k * step])])
    elif step == 1:  # apart, so that it is vectorised
        for k in range(sums.size):
            sums[k] += weight * kind(flat[at + k])
    else:
        for k in range(sums.size):
            sums[k] += weight * kind(flat[at + k * step])


@cpu_kernel
def _rounded_cpu(total: Any, weight: Any, shift: int, how: Any) -> Any:
    """Return a sum over its weight as a sample."""
    low, high, edges, samples = how
    if samples == FLOATS:
        return total / weight
    sum_, count = np.int64(total), np.int64(weight)  # no more than a name: for floats this must compile as well
    mean = ties_even_shift_core(sum_, shift) if count == 1 << shift else ties_even_core(sum_, count)
    return codes_core(edges, mean) if edges.size else min(max(mean, low[0]), high[0])


@cpu_kernel
def _inner_row_cpu(sums: Any, wide: Any, weights: Any, rows_weight: int, span: Any, how: Any, to: Any) -> None:
    """Write the pixels of a row of one channel whose filter lies inside what is there; `wide` takes their sums."""
    start, count = span
    radius, shift, _, rules = how
    low, high, edges, samples = rules
    run, first, step = to
    kind = wide.dtype.type
    wide[:count] = 0
    for k in range(radius):
        w, one, other = kind(weights[k]), start - k, start + k + 1
        for n in range(count):
            wide[n] += w * (kind(sums[one + 2 * n]) + kind(sums[other + 2 * n]))
    weight = rows_weight << (shift >> 1)
    if samples != NARROW or weight != 1 << shift:
        for n in range(count):
            run[first + n * step] = _rounded_cpu(wide[n], kind(weight), shift, rules)
        return
    # a float64 holds these sums and what a power of two leaves of them exactly, and is rounded eight at a time
    scale, least, most = 1.0 / weight, float(low[0]), float(high[0])
    if edges.size:
        for n in range(count):
            run[first + n * step] = codes_core(edges, np.rint(wide[n] * scale))
    else:
        for n in range(count):
            run[first + n * step] = min(max(np.rint(wide[n] * scale), least), most)


@cpu_kernel
def _whole_row_cpu(sums: Any, wide: Any, weights: Any, rows_weight: int, span: Any, how: Any, to: Any) -> None:
    """Write one row of one channel where everything is valid."""
    x0, x1, ox0, ox1 = span
    radius, shift, _, rules = how
    run, first, step = to
    kind = wide.dtype.type
    left, right = max(ox0, (x0 + radius) // 2), min(ox1, (x1 - 1 - radius) // 2 + 1)
    if left < right:
        _inner_row_cpu(
            sums, wide, weights, rows_weight, (2 * left - x0, right - left), how, (run, first + left * step, step)
        )
    for ox in range(ox0, ox1):
        if left <= ox < right:
            continue
        total, weight = kind(0), 0
        for i in range(max(2 * ox + 1 - radius, x0), min(2 * ox + radius + 1, x1)):
            w = weights[tap_core(i - 2 * ox)]
            total += kind(w) * kind(sums[i - x0])
            weight += w * rows_weight
        run[first + ox * step] = _rounded_cpu(total, kind(weight), shift, rules)


@cpu_kernel
def _masked_row_cpu(sums: Any, quads: Any, seen: Any, weights: Any, span: Any, how: Any, to: Any) -> None:
    """Write one row of one channel from sums and weights of columns, and from sums and counts of two rows."""
    x0, x1, ox0, ox1 = span
    radius, shift, fill, rules = how
    run, first, step = to
    columns, pairs, rows_weight = seen
    kind = quads.dtype.type
    for ox in range(ox0, ox1):
        total, weight, exists = kind(0), 0, 0
        for i in range(max(2 * ox + 1 - radius, x0), min(2 * ox + radius + 1, x1)):
            w = weights[tap_core(i - 2 * ox)]
            total += kind(w) * kind(sums[i - x0])
            weight += w * columns[i - x0]
            exists += w * rows_weight
        at, last = 2 * ox - x0, min(2 * ox + 2, x1) - x0
        count, quad = pairs[at], kind(quads[at])
        if at + 1 < last:
            count, quad = count + pairs[at + 1], quad + kind(quads[at + 1])
        if count == 0:
            run[first + ox * step] = fill[0]
        elif 2 * weight >= exists:
            run[first + ox * step] = _rounded_cpu(total, kind(weight), shift, rules)
        else:
            run[first + ox * step] = _rounded_cpu(quad, kind(count), shift, rules)


@cpu_kernel
def _seen_cpu(source: Any, mask: Any, at: Any, weights: Any, good: Any, seen: Any) -> bool:
    """Return whether all rows of a job are valid, after the weights of its columns and pairs are known."""
    image, channels, y0, top, x0 = at
    columns, pairs = seen
    n = good.shape[1]
    columns[:n], pairs[:n] = 0, 0
    is_whole = True
    for i in range(good.shape[0]):
        row, offset = good[i], top + i - y0
        _valid_row_cpu(source, mask, image, channels, top + i, x0, row)
        w = weights[tap_core(offset)]
        for k in range(n):
            columns[k] += w * row[k]
            pairs[k] += row[k] if 0 <= offset < 2 else 0
            is_whole &= row[k]
    return is_whole


@cpu_kernel
def _filter_cpu(source: Any, mask: Any, shape: Any, jobs: Any, band: Any, scratch: Any, to: Any) -> None:
    flat, start, steps, _, has_nodata, floating = source
    channels, height, width = shape
    sums, wide, quads, seen, good = scratch
    columns, pairs = seen
    weights, table, how, run, at, ok, ok_at = to
    radius = how[0]
    plain = not (mask[3] or has_nodata or floating)
    for index in range(band[0], band[1]):
        image, y0, left, right = jobs[index]
        x0, x1 = max(left + 1 - radius, 0), min(right + radius, width)
        top, stop = max(y0 + 1 - radius, 0), min(y0 + radius + 1, height)
        n = x1 - x0
        rows_weight = 0
        for i in range(top, stop):
            rows_weight += weights[tap_core(i - y0)]
        is_whole = plain or _seen_cpu(
            source, mask, (image, channels, y0, top, x0), weights, good[: stop - top, :n], seen
        )
        span = (x0, x1, left >> 1, (right + 1) >> 1)
        for ch in range(channels):
            sums[:n], quads[:n] = 0, 0
            for i in range(top, stop):
                w = sums.dtype.type(weights[tap_core(i - y0)])
                first = start + image * steps[0] + ch * steps[1] + i * steps[2] + x0 * steps[3]
                row = good[i - top, :0] if is_whole else good[i - top, :n]
                _add_row_cpu(flat, first, steps[3], w, row, table, sums[:n])
                if not is_whole and 0 <= i - y0 < 2:
                    _add_row_cpu(flat, first, steps[3], sums.dtype.type(1), row, table, quads[:n])
            place = (run, at[0] + image * at[1] + ch * at[2] + (y0 >> 1) * at[3], at[4])
            if is_whole:
                _whole_row_cpu(sums, wide, weights, rows_weight, span, how, place)
            else:
                _masked_row_cpu(sums, quads, (columns, pairs, rows_weight), weights, span, how, place)
        if ok_at.size:
            ok_first = ok_at[0] + image * ok_at[1] + (y0 >> 1) * ok_at[2]
            for ox in range(span[2], span[3]):
                k = 2 * ox - x0
                ok[ok_first + ox * ok_at[3]] = is_whole or pairs[k] > 0 or (k + 1 < n and pairs[k + 1] > 0)


def reduce_filtered(reduction: Reduction, here: Place, *, fir: Fir, light: Light = "stored") -> None:
    """Write one level of a reduction.

    Parameters
    ----------
    reduction : Reduction
        One level.
    here : Place
        Where its arrays are.
    fir : Fir
        The filter.
    light : {"stored", "linear", "density"}
        What of the samples it averages; other than the first only with uint8.
    """
    if here.backend == "cuda":
        filter_on_cuda(reduction, here, fir, light)
        return
    jobs = jobs_of(reduction)
    if len(jobs) == 0:
        return
    half = reduction.pixels.dtype == np.float16
    work = _half_work(reduction, jobs, fir) if half else _work(reduction, jobs, fir, light)
    width = int((jobs[:, 3] - jobs[:, 2]).max())
    over_bands(work, len(jobs), threads=here.threads, least=max(1, _LEAST_PX // (2 * width)))


def _tables(light: Light) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    return light_tables(light) if light != "stored" else (no_samples(np.uint16), no_samples(np.uint16))


def _work(reduction: Reduction, jobs: Any, fir: Fir, light: Light) -> Any:
    """Return what reduces a band of jobs."""
    _, channels, height, width = reduction.shape
    dtype = reduction.pixels.dtype
    flat, start, steps = frame(reduction.pixels)
    no_mask = no_samples(np.uint8)
    mask = (no_mask, 0, (0, 0, 0), False) if reduction.valid is None else (*frame(reduction.valid, axes=3), True)
    nodata = np.array([0 if reduction.nodata is None else reduction.nodata], flat.dtype)
    floating = dtype.kind == "f"
    sums, all_sums = (
        (flat.dtype, flat.dtype)
        if floating
        else (np.int32, np.float64)
        if dtype.itemsize <= 2
        else (np.int64, np.int64)
    )
    table, edges = _tables(light)
    low, high = limits_of(dtype)
    samples = FLOATS if floating else NARROW if dtype.itemsize <= 2 else WIDE
    rules = (np.array([low], np.int64), np.array([high], np.int64), edges, samples)
    how = (fir.radius, fir.shift, np.array([reduction.fill], flat.dtype), rules)
    run, out_start, out_steps = frame(reduction.outs[0], writable=True)
    ok, ok_at = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    if reduction.valids:
        ok, ok_start, ok_steps = frame(reduction.valids[0], axes=3, writable=True)
        ok_at = np.array((ok_start, *ok_steps), np.int64)
    weights = np.array(fir.weights, np.int64)
    to = (weights, table, how, run, np.array((out_start, *out_steps), np.int64), ok, ok_at)
    source = (flat, start, steps, nodata, reduction.nodata is not None, floating)
    n = int((jobs[:, 3] - jobs[:, 2]).max()) + 2 * fir.radius

    def work(first: int, stop: int) -> None:
        scratch = (
            np.empty(n, sums), np.empty(n // 2 + 1, all_sums), np.empty(n, sums),
            (np.empty(n, np.int64), np.empty(n, np.int64)), np.empty((2 * MAX_RADIUS, n), np.bool_),
        )  # fmt: skip
        _filter_cpu(source, mask, (channels, height, width), jobs, (first, stop), scratch, to)

    return work


def _half_work(reduction: Reduction, jobs: Any, fir: Fir) -> Any:
    """Return what reduces a band of jobs of float16: the rows that enter one are widened to float32."""
    height, width = reduction.shape[2:]
    reach = fir.radius - fir.radius % 2  # even, so that pixels of the level lie as in the whole

    def work(first: int, stop: int) -> None:
        for image, y0, x0, x1 in jobs[first:stop].tolist():
            above, left = max(y0 - reach, 0), max(x0 - reach, 0)
            rows, columns = slice(above, min(y0 + reach + 2, height)), slice(left, min(x1 + reach, width))
            pixels = box_of(reduction.pixels, image, rows, columns, axes=4).astype(np.float32)
            wide = np.empty(level_shape(pixels.shape, 1), np.float32)
            seen = np.empty(wide.shape[-2:], np.bool_)
            part = Reduction(
                pixels=pixels, boxes=None, nodata=reduction.nodata, fill=reduction.fill, outs=[wide], valids=[seen],
                valid=None if reduction.valid is None else box_of(reduction.valid, image, rows, columns, axes=3),
            )  # fmt: skip
            own = jobs_of(part)
            _work(part, own, fir, "stored")(0, len(own))
            to = (slice(y0 // 2, y0 // 2 + 1), slice(x0 // 2, -(-x1 // 2)))
            here = (..., slice((y0 - above) // 2, (y0 - above) // 2 + 1), slice((x0 - left) // 2, -(-(x1 - left) // 2)))
            box_of(reduction.outs[0], image, *to, axes=4)[...] = wide[here]
            for valid in reduction.valids:
                box_of(valid, image, *to, axes=3)[...] = seen[here]

    return work
