"""The value that most valid pixels under each pixel have, for several levels at once, on CPU and CUDA.

    level l, pixel (y, x) = argmax_v #{valid level-0 pixels in [2^l·y, 2^l·(y+1)) × [2^l·x, 2^l·(x+1)) equal to v}

ties to the smaller v, each channel on its own. Values are visited in ascending order, one pass over the block for each,
until no later one can win: no table, and one or two passes where classes form regions. Exact: tolerance 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel, device
from tilestream.kernels.mip_layout import THREADS, Reduction, frame, jobs_of, masks_of, shape_of
from tilestream.kernels.place import Place, dtype_of
from tilestream.kernels.rows import no_samples

_LEAST_PX = 2**12


@cpu_kernel
def _is_valid_cpu(source: Any, mask: Any, image: int, channels: int, y: int, x: int) -> bool:
    flat, start, steps, nodata, has_nodata = source
    valid, valid_start, valid_steps, masked = mask
    if masked and not valid[valid_start + image * valid_steps[0] + y * valid_steps[1] + x * valid_steps[2]]:
        return False
    other = not has_nodata
    for ch in range(channels):
        other |= flat[start + image * steps[0] + ch * steps[1] + y * steps[2] + x * steps[3]] != nodata[0]
    return other


@cpu_kernel
def _mode_cpu(flat: Any, first: int, steps: Any, good: Any, size: Any) -> Any:
    """Return the most frequent valid value of a block and how often it occurs."""
    height, width = size
    best, most, previous, begun = flat[first], 0, flat[first], False
    while True:
        current, count, seen = previous, 0, 0
        for y in range(height):
            for x in range(width):
                value = flat[first + y * steps[2] + x * steps[3]]
                if not good[y, x] or (begun and value <= previous):
                    continue
                seen += 1
                if count == 0 or value < current:
                    current, count = value, 1
                elif value == current:
                    count += 1
        if count > most:
            best, most = current, count
        if seen - count <= most:
            return best, most
        previous, begun = current, True


@cpu_kernel
def _labels_cpu(source: Any, mask: Any, shape: Any, jobs: Any, band: Any, good: Any, to: Any) -> None:
    flat, start, steps, _, _ = source
    channels, height, levels = shape
    fill, level, run, at, valid, valid_at = to
    for index in range(band[0], band[1]):
        image, y0, x0, x1 = jobs[index]
        y1, edge = min(y0 + (1 << levels), height), 1 << level
        for y in range(y0, y1, edge):
            for x in range(x0, x1, edge):
                size = (min(edge, y1 - y), min(edge, x1 - x))
                for i in range(size[0]):
                    for k in range(size[1]):
                        good[i, k] = _is_valid_cpu(source, mask, image, channels, y + i, x + k)
                oy, ox, most = y >> level, x >> level, 0
                for ch in range(channels):
                    first = start + image * steps[0] + ch * steps[1] + y * steps[2] + x * steps[3]
                    best, most = _mode_cpu(flat, first, steps, good, size)
                    to_first = at[0] + image * at[1] + ch * at[2] + oy * at[3] + ox * at[4]
                    run[to_first] = best if most else fill[0]
                if valid_at.size:
                    valid[valid_at[0] + image * valid_at[1] + oy * valid_at[2] + ox * valid_at[3]] = most > 0


@device
def _is_valid(source: Any, mask: Any, channels: Any, image: Any, y: Any, x: Any) -> Any:
    flat, start, steps, nodata, has_nodata = source
    valid, valid_start, valid_steps, masked = mask
    good = not masked or valid[valid_start + image * valid_steps[0] + y * valid_steps[1] + x * valid_steps[2]] != 0
    if good and has_nodata:
        good = False
        for ch in range(channels):
            at = start + image * steps[0] + ch * steps[1] + y * steps[2] + x * steps[3]
            good = good or flat[at] != nodata
    return good


@device
def _next(source: Any, mask: Any, channels: Any, where: Any, block: Any, after: Any) -> Any:
    """Return the smallest valid value after another, how often it occurs, and how many pixels are not before it."""
    flat, start, steps, _, _ = source
    image, ch = where
    previous, begun = after
    current, count, seen = previous, 0, 0
    for y in range(block[0], block[1]):
        for x in range(block[2], block[3]):
            value = flat[start + image * steps[0] + ch * steps[1] + y * steps[2] + x * steps[3]]
            if (begun and value <= previous) or not _is_valid(source, mask, channels, image, y, x):
                continue
            seen += 1
            if count == 0 or value < current:
                current, count = value, 1
            elif value == current:
                count += 1
    return current, count, seen


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, int64, boolean, "
    "int64, UniTuple(int64, 7), uint8[::1], int64, UniTuple(int64, 4), uint8[::1], int64, UniTuple(int64, 3), boolean, "
    "int64)"
)
def _labels_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any,
    nodata: Any, has_nodata: Any, fill: Any, shape: Any, out: Any, out_start: Any, out_steps: Any,
    ok: Any, ok_start: Any, ok_steps: Any, wants_ok: Any, level: Any,
) -> None:  # fmt: skip
    """Find the mode under one pixel and channel a thread."""
    images, channels, height, width, oy0, rows, columns = shape
    index = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
    if index >= images * channels * rows * columns:
        return
    ox, ch = index % columns, index // columns % channels
    oy, image = oy0 + index // columns // channels % rows, index // columns // channels // rows
    y, x, edge = oy << level, ox << level, 1 << level
    block = (y, min(y + edge, height), x, min(x + edge, width))
    source, mask = (flat, start, steps, nodata, has_nodata), (valid, valid_start, valid_steps, masked)
    best, most, previous, begun = flat[start], 0, flat[start], False
    while True:
        current, count, seen = _next(source, mask, channels, (image, ch), block, (previous, begun))
        if count > most:
            best, most = current, count
        if seen - count <= most:
            break
        previous, begun = current, True
    to = out_start + image * out_steps[0] + ch * out_steps[1] + oy * out_steps[2] + ox * out_steps[3]
    out[to] = best if most else fill
    if wants_ok and ch == 0:
        ok[ok_start + image * ok_steps[0] + oy * ok_steps[1] + ox * ok_steps[2]] = most > 0


def reduce_labels(reduction: Reduction, here: Place) -> None:
    """Write the levels of a reduction of class numbers.

    Parameters
    ----------
    reduction : Reduction
        Any number of levels of any integer type.
    here : Place
        Where its arrays are.
    """
    for level in range(1, len(reduction.outs) + 1):
        if here.backend == "cuda":
            _on_cuda(reduction, here, level)
        else:
            _on_cpu(reduction, here, level)


def _on_cpu(reduction: Reduction, here: Place, level: int) -> None:
    _, channels, height, _ = reduction.shape
    levels, jobs = len(reduction.outs), jobs_of(reduction)
    flat, start, steps = frame(reduction.pixels)
    no_mask = no_samples(np.uint8)
    mask = (no_mask, 0, (0, 0, 0), False) if reduction.valid is None else (*frame(reduction.valid, axes=3), True)
    nodata = np.array([0 if reduction.nodata is None else reduction.nodata], flat.dtype)
    run, out_start, out_steps = frame(reduction.outs[level - 1], writable=True)
    ok, ok_at = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    if reduction.valids:
        ok, ok_start, ok_steps = frame(reduction.valids[level - 1], axes=3, writable=True)
        ok_at = np.array((ok_start, *ok_steps), np.int64)
    to = (np.array([reduction.fill], flat.dtype), level, run, np.array((out_start, *out_steps), np.int64), ok, ok_at)
    source = (flat, start, steps, nodata, reduction.nodata is not None)

    def work(first: int, stop: int) -> None:
        good = np.empty((2**level, 2**level), np.bool_)
        _labels_cpu(source, mask, (channels, height, levels), jobs, (first, stop), good, to)

    block = 2**levels * int((jobs[:, 3] - jobs[:, 2]).max(initial=1))
    over_bands(work, len(jobs), threads=here.threads, least=max(1, _LEAST_PX // block))


def _on_cuda(reduction: Reduction, here: Place, level: int) -> None:
    images, channels, height, width = reduction.shape
    source = frame(reduction.pixels)
    out = frame(reduction.outs[level - 1], writable=True)
    mask, oks = masks_of(reduction)
    ok = oks[level - 1]
    _, _, rows, columns = shape_of(reduction.outs[level - 1])
    # beside int64, uint64 is compared and chosen in float64, which skips whole numbers above 2^53
    number = np.uint64 if dtype_of(reduction.pixels) == np.uint64 else int
    bands = [(0, rows)]
    if reduction.boxes is not None:
        bands = [(int(y0) >> level, -(-int(y1) >> level)) for y0, _, y1, _ in reduction.boxes]
    for top, bottom in bands:
        shape = (images, channels, height, width, top, bottom - top, columns)
        grid = -(-images * channels * (bottom - top) * columns // THREADS)
        here.launch(
            _labels_cuda, grid, THREADS, *source, *mask, reduction.valid is not None,
            number(reduction.nodata or 0), reduction.nodata is not None, number(reduction.fill), shape, *out,
            *ok, bool(reduction.valids), level,
        )  # fmt: skip
