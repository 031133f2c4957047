"""The value that covers most of an output pixel: how class numbers are reduced, since their mean is no class.

    out = argmax_v Σ_i w_i [x_i = v],  w_i = overlap of stored pixel i with the output pixel; ties to the smaller v

Weights are integers (see `tilestream.kernels.taps`), so the result is exact: the tolerance of its tests is 0. The CPU
keeps a list of the values met under a pixel. A CUDA thread has no memory for one: it weighs one value after the other
over the whole footprint, and stops when what is left of the footprint cannot outweigh the best, which on a map of
classes is soon; k stored pixels of k classes under one output pixel cost k² reads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.taps import Axis, overlap_core, span_core, taps

THREADS = 128
"""Most of a block, which lies along a row."""
MAX_ROWS = 2**15
"""Blocks along y; a thread goes on to the row that many further down."""


@cpu_kernel
def _heaviest(values: Any, weights: Any, n: int) -> int:
    best = 0
    for k in range(1, n):
        if weights[k] > weights[best] or (weights[k] == weights[best] and values[k] < values[best]):
            best = k
    return best


@cpu_kernel
def _add(values: Any, weights: Any, n: int, value: Any, weight: int) -> int:
    for k in range(n):
        if values[k] == value:
            weights[k] += weight
            return n
    values[n] = value
    weights[n] = weight
    return n + 1


@cpu_kernel
def _mode_cpu(source: Any, taps_y: Any, taps_x: Any, scratch: Any, band: Any, out: Any, out_valid: Any) -> None:
    flat, start, steps, valid, valid_start, valid_steps, masked = source
    first_y, weight_y = taps_y
    first_x, weight_x = taps_x
    values, weights = scratch
    for oy in range(band[0], band[1]):
        for ox in range(out.shape[1]):
            any_valid = False
            for ch in range(out.shape[2]):
                n = 0
                for ty in range(weight_y.shape[1]):
                    wy = weight_y[oy, ty]
                    if wy == 0:
                        continue
                    iy = first_y[oy] + ty
                    for tx in range(weight_x.shape[1]):
                        ix = first_x[ox] + tx
                        weight = wy * weight_x[ox, tx]
                        if weight == 0:
                            continue
                        if masked and not valid[valid_start + iy * valid_steps[0] + ix * valid_steps[1]]:
                            continue
                        value = flat[start + iy * steps[0] + ix * steps[1] + ch * steps[2]]
                        n = _add(values, weights, n, value, weight)
                if n == 0:
                    out[oy, ox, ch] = 0
                else:
                    any_valid = True
                    out[oy, ox, ch] = values[_heaviest(values, weights, n)]
            out_valid[oy, ox] = any_valid


@cuda_kernel(
    "void(uint16[::1], int64, UniTuple(int64, 3), uint8[::1], int64, UniTuple(int64, 2), boolean, UniTuple(int64, 5), "
    "UniTuple(int64, 5), UniTuple(int64, 3), uint16[::1], int64, UniTuple(int64, 3), uint8[::1], int64, "
    "UniTuple(int64, 2))"
)
def _mode_cuda(
    flat: Any, start: Any, steps: Any, valid: Any, valid_start: Any, valid_steps: Any, masked: Any, axis_y: Any,
    axis_x: Any, shape: Any, out: Any, out_start: Any, out_steps: Any, out_valid: Any, flag_start: Any, flag_steps: Any,
) -> None:  # fmt: skip
    """Write one output pixel of each so-manieth row a thread."""
    ox = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if ox >= shape[1]:
        return
    low_x, first_x, stop_x = span_core(axis_x, ox)
    wide = stop_x - first_x
    for oy in range(cuda.blockIdx.y, shape[0], cuda.gridDim.y):
        low_y, first_y, stop_y = span_core(axis_y, oy)
        n = max(0, stop_y - first_y) * max(0, wide)
        heaviest = 0
        for ch in range(shape[2]):
            first = start + (first_y - axis_y[2]) * steps[0] + (first_x - axis_x[2]) * steps[1] + ch * steps[2]
            seen = valid_start + (first_y - axis_y[2]) * valid_steps[0] + (first_x - axis_x[2]) * valid_steps[1]
            target = out_start + oy * out_steps[0] + ox * out_steps[1] + ch * out_steps[2]
            out[target] = 0
            heaviest, k, left = 0, 0, axis_y[0] * axis_x[0]
            # a value first met at k weighs at most what is left, one that was met before less than it did then
            while k < n and left >= heaviest:
                y, x = k // wide, k % wide
                left -= overlap_core(axis_y, low_y, first_y + y) * overlap_core(axis_x, low_x, first_x + x)
                value = flat[first + y * steps[0] + x * steps[1]]
                counts = not masked or valid[seen + y * valid_steps[0] + x * valid_steps[1]] != 0
                weight = 0
                for m in range(k, n if counts and (heaviest == 0 or value != out[target]) else k):
                    y, x = m // wide, m % wide
                    same = flat[first + y * steps[0] + x * steps[1]] == value
                    if same and (not masked or valid[seen + y * valid_steps[0] + x * valid_steps[1]] != 0):
                        weight += overlap_core(axis_y, low_y, first_y + y) * overlap_core(axis_x, low_x, first_x + x)
                if weight > heaviest or (weight == heaviest > 0 and value < out[target]):
                    out[target] = value
                    heaviest = weight
                k += 1
        out_valid[flag_start + oy * flag_steps[0] + ox * flag_steps[1]] = 1 if heaviest > 0 else 0


def mode(
    here: Place, pixels: Array, valid: Array | None, *, axes_yx: tuple[Axis, Axis], out: Array, out_valid: Array
) -> None:
    """Write into `out` the value with the largest weight under each output pixel.

    Parameters
    ----------
    here : Place
        Where it runs.
    pixels : array
        `(y, x, c)` class numbers; any strides.
    valid : array of bool or None
        `(y, x)`; pixels that are False weigh nothing.
    axes_yx : pair of Axis
        What each output pixel covers along each axis.
    out : array
        `(y, x, c)` of the dtype of `pixels`; 0 where nothing is valid.
    out_valid : array of bool
        `(y, x)`, False where nothing is valid.
    """
    source = flat_view(pixels)
    # where every pixel is valid the mask is not looked at: any bytes will do
    mask = flat_view(out_valid if valid is None else valid)
    if here.backend == "cuda":
        height, width, channels = out.shape
        block = min(THREADS, -(-width // 32) * 32)
        here.launch(
            _mode_cuda, (-(-width // block), min(height, MAX_ROWS)), block, *source, *mask, valid is not None,
            axes_yx[0].numbers, axes_yx[1].numbers, (height, width, channels), *flat_view(out, writable=True),
            *flat_view(out_valid, writable=True),
        )  # fmt: skip
        return
    taps_y, taps_x = (taps(axis) for axis in axes_yx)
    most = taps_y[1].shape[1] * taps_x[1].shape[1]

    def work(first: int, stop: int) -> None:
        scratch = (np.empty(most, source[0].dtype), np.empty(most, np.int64))
        _mode_cpu((*source, *mask, valid is not None), taps_y, taps_x, scratch, (first, stop), out, out_valid)

    over_bands(work, out.shape[0], threads=here.threads, least=max(1, 2**14 // out.shape[1]))
