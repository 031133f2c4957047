"""The synthesis of the pyramid codec on CUDA: raising, mixing, convolving and writing, a launch each.

A thread takes one place; what is between two launches is int16 in global memory, a few bytes a grid and place. The
network needs no shared memory: a hidden feature is used as soon as it is known.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.kernels.constants import constant
from tilestream.kernels.language import CudaKernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, empty_like
from tilestream.kernels.pyramid_layers import LAYOUT, add_input, clamp_core, feature_core, round_shift_core, start_sums
from tilestream.kernels.pyramid_numbers import FEATURE_MOST, MOST_SCALES, PIXEL_MOST
from tilestream.kernels.pyramid_raise import THREADS, Window, raise_cuda, windows_of
from tilestream.kernels.rows import flat_view

CHANNELS = (4, 16, 64)
"""Registers that the kernels of a network set aside for its channels."""


@functools.cache
def mix_kernel(most: int) -> CudaKernel:
    """Return the CUDA kernel of the first two layers for up to `most` channels."""

    def mix(raised: Any, shape: Any, run: Any, layout: Any, out: Any) -> None:
        """Write the channels of one place; `shape` are grids, places and channels."""
        values = cuda.local.array(MOST_SCALES, np.int32)
        sums = cuda.local.array(most, np.int32)
        grids, places, channels = shape
        p = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
        if p >= places:
            return
        hidden, wide = layout[1], layout[LAYOUT]
        narrow, first, bias, shift = layout[0], layout[2], layout[3], layout[4]
        second, bias_2, shift_2 = layout[LAYOUT + 2], layout[LAYOUT + 3], layout[LAYOUT + 4]
        for j in range(MOST_SCALES):
            values[j] = np.int32(raised[j * places + p]) if j < grids else np.int32(0)
        start_sums(run, bias_2, channels, most, sums)
        for i in range(hidden):
            total = run[bias + i]
            for j in range(MOST_SCALES):  # past the row are numbers of the run, and values of 0
                total = np.int32(total + run[first + i * narrow + j] * values[j])
            add_input(
                run, second + i, wide, clamp_core(round_shift_core(total, shift), 0, FEATURE_MOST), channels, most, sums
            )
        for j in range(MOST_SCALES):
            add_input(run, second + hidden + j, wide, values[j], channels, most, sums)
        for c in range(most):
            if c < channels:
                out[c * places + p] = feature_core(round_shift_core(sums[c], shift_2))

    mix.__qualname__ = f"pyramid_mix_{most}"  # by which compiled kernels are told apart
    return cuda_kernel("void(int16[::1], UniTuple(int64, 3), int32[::1], int64[::1], int16[::1])")(mix)


mix_kernel(4)  # known to the tests from now on; all are compiled when they are launched


@cuda_kernel("void(int16[::1], UniTuple(int64, 3), int32[::1], int64[::1], UniTuple(int64, 2), int16[::1])")
def _convolve_cuda(values: Any, shape: Any, run: Any, layout: Any, asked: Any, out: Any) -> None:
    """Write one place and channel with a convolution added; `asked` are its layer and the least that is written."""
    channels, height, width = shape
    p, c = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x, cuda.blockIdx.y
    if p >= height * width:
        return
    y, x, at = p // width, p % width, LAYOUT * asked[0]
    weight = layout[at + 2] + c * layout[at]
    total = run[layout[at + 3] + c]
    for source in range(channels):
        for k in range(9):
            row, column = clamp_core(y + k // 3 - 1, 0, height - 1), clamp_core(x + k % 3 - 1, 0, width - 1)
            value = np.int32(values[(source * height + row) * width + column])
            total = np.int32(total + run[weight + source * 9 + k] * value)
    found = np.int32(values[c * height * width + p]) + round_shift_core(total, layout[at + 4])
    out[c * height * width + p] = clamp_core(found, asked[1], FEATURE_MOST)


@cuda_kernel(
    "void(int16[::1], UniTuple(int64, 6), uint8[::1], int64, uint8[::1], int64, UniTuple(int64, 3))",
    "void(int16[::1], UniTuple(int64, 6), uint16[::1], int64, uint16[::1], int64, UniTuple(int64, 3))",
    "void(int16[::1], UniTuple(int64, 6), int16[::1], int64, int16[::1], int64, UniTuple(int64, 3))",
)
def _write_cuda(values: Any, views: Any, samples: Any, count: Any, out: Any, start: Any, steps: Any) -> None:
    """Write one place and channel, through a table of `count` samples a channel where there is one.

    `views` are rows and columns of the values, the first ones wanted, rows and columns wanted.
    """
    high, wide, first_y, first_x, height, width = views
    p, c = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x, cuda.blockIdx.y
    if p >= height * width:
        return
    y, x = p // width, p % width
    value = values[(c * high + first_y + y) * wide + first_x + x]
    to = start + c * steps[0] + y * steps[1] + x * steps[2]
    out[to] = samples[c * count + clamp_core(value, 0, PIXEL_MOST)] if count else value


def synthesise_on_device(
    here: Place, grids: Sequence[Array], filters: Any, packed: tuple[Any, Any], channels: int, window: Window,
    samples: Array | None, out: Array,
) -> None:  # fmt: skip
    """Write a window of the finest grid's level, in the order of the stream; returns before it has run."""
    run, layout = packed
    windows = windows_of(grids, window, len(layout) - 2)
    on_device = constant(here, run), constant(here, layout)
    raised = _raised_on_device(here, grids, filters, windows)
    y, x, height, width = windows[0]
    blocks = -(-height * width // THREADS)
    values, other = (_run_like(grids[0], channels * height * width) for _ in range(2))
    kernel = mix_kernel(next(most for most in CHANNELS if most >= channels))
    here.launch(kernel, blocks, THREADS, raised, (len(grids), height * width, channels), *on_device, values)
    for row in range(2, len(layout)):
        low = -FEATURE_MOST if row == len(layout) - 1 else 0
        here.launch(
            _convolve_cuda,
            (blocks, channels),
            THREADS,
            values,
            (channels, height, width),
            *on_device,
            (row, low),
            other,
        )
        values, other = other, values
    views = (height, width, window[0] - y, window[1] - x, window[2], window[3])
    target = flat_view(out, writable=True)
    table = values if samples is None else flat_view(samples)[0]
    count = 0 if samples is None else PIXEL_MOST + 1
    blocks = -(-window[2] * window[3] // THREADS)
    here.launch(_write_cuda, (blocks, channels), THREADS, values, views, table, count, *target)


def _raised_on_device(here: Place, grids: Sequence[Array], filters: Any, windows: Sequence[Window]) -> Any:
    """Return windows of all grids at the size of the finest, as a run."""
    taps = constant(here, filters if len(filters) else np.zeros((1, 4), np.int32))
    raised, shape, coarse_yx = _run_like(grids[0], 1), (0, 1, 1), (0, 0)
    for number in range(len(grids) - 1, -1, -1):
        y, x, height, width = windows[number]
        count = shape[0] + 1
        found = _run_like(grids[0], count * height * width)
        here.launch(
            raise_cuda, (-(-height * width // THREADS), count), THREADS, raised, shape, *flat_view(grids[number]), taps,
            number, (*coarse_yx, y, x), found, (height, width),
        )  # fmt: skip
        raised, shape, coarse_yx = found, (count, height, width), (y, x)
    return raised


def _run_like(grid: Array, size: int) -> Any:
    """Return memory for so many features where a grid lives."""
    return flat_view(empty_like(grid, (size,), np.int16), writable=True)[0]
