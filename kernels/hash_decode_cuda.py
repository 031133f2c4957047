"""The fused decoder on CUDA: a thread makes the features of one pixel, then takes them through the network.

Features go straight to the shared memory that the network reads its inputs from (`tilestream.kernels.mlp_cuda`). The
floor of 2^20 pixels of L = 16, F = 2, 32-64-64-3 on an H200 is 199 µs of float32 multiply-adds and 2 µs of traffic.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.hash_encode import grid_on
from tilestream.kernels.hash_raster import (
    between_core,
    code_core,
    fraction_bits,
    raster_cell_core,
    raster_frac_core,
    row_weight_core,
)
from tilestream.kernels.hash_vertex import (
    ZERO,
    add_core,
    entry_core,
    index_core,
    level_kept_core,
    position_core,
    weight_core,
)
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.language import SIMULATED, CudaKernel, cuda, cuda_kernel, device
from tilestream.kernels.mlp_cuda import (
    ALIGNED,
    LAYOUT,
    STRIP,
    WIDTHS,
    fused_width,
    layout_on_device,
    threads_of,
    through_layers,
)
from tilestream.kernels.mlp_layers import MlpLayers
from tilestream.kernels.place import Array, Place, dtype_of
from tilestream.kernels.rows import flat_samples, flat_view
from tilestream.types import Box

CORNERS = 8
_BOX_SIGNATURE = (
    "void(int64[::1], UniTuple(int64, 6), float32[::1], int64[::1], UniTuple(int64, 4), float32[::1], int64[::1], "
    "int64, {}[::1], int64, UniTuple(int64, 3))"
)
_COORDS_SIGNATURE = (
    "void(float32[::1], int64, UniTuple(int64, 2), float32[::1], int64[::1], float32[::1], UniTuple(int64, 3), "
    "float32[::1], int64, int64, float32, float32[::1], int64[::1], int64, {}[::1], int64, UniTuple(int64, 2))"
)


@device
def hold_box_features(
    positions: Any, pixel: Any, table: Any, layout: Any, shape: Any, threads: Any, held: Any, entries: Any, shares: Any
) -> None:
    """Write the features of one pixel of a box to its column of `held`; `entries` and `shares` are registers.

    `positions` is `raster_positions` as a run, `pixel` y and x of the image's level; `shape` is axes, features of an
    entry, levels that are kept, and binary places of positions.
    """
    dims, features, kept, bits = shape
    me = cuda.threadIdx.x
    for level in range(kept):
        row, at = level * 4, level * 5
        px = positions[at] + pixel[1] * positions[at + 1]
        py = positions[at + 2] + pixel[0] * positions[at + 3]
        x, y, z = raster_cell_core(px, bits), raster_cell_core(py, bits), raster_cell_core(positions[at + 4], bits)
        fx, fy, fz = raster_frac_core(px, bits), raster_frac_core(py, bits), raster_frac_core(positions[at + 4], bits)
        for corner in range(CORNERS // 2):
            if corner < 1 << (dims - 1):
                shares[corner] = row_weight_core(corner, fy, fz, dims)
                for right in range(2):
                    entry = index_core(
                        x + right, y + (corner & 1), z + (corner >> 1), layout[row + 1], layout[row + 2],
                        layout[row + 3],
                    )  # fmt: skip
                    entries[2 * corner + right] = (layout[row] + entry) * features
        for f in range(features):
            low, high = ZERO, ZERO
            for corner in range(CORNERS // 2):
                if corner < 1 << (dims - 1):
                    low = add_core(shares[corner], table[entries[2 * corner] + f], low)
                    high = add_core(shares[corner], table[entries[2 * corner + 1] + f], high)
            held[(level * features + f) * threads + me] = between_core(low, high, fx)


@device
def hold_coords_features(
    point: Any, most: Any, table: Any, layout: Any, scales: Any, shape: Any, threads: Any, held: Any, entries: Any,
    shares: Any,
) -> None:  # fmt: skip
    """Write the features at x, y, z to a column of `held`; levels above `most`, of here and of all, are zero."""
    dims, features, levels = shape
    me = cuda.threadIdx.x
    for level in range(levels):
        row = level * 4
        px, py = position_core(scales[level], point[0]), position_core(scales[level], point[1])
        pz = position_core(scales[level], point[2])
        kept = level_kept_core(level, most[0], most[1])
        for corner in range(CORNERS):
            if corner < 1 << dims:
                entry = entry_core(corner, px, py, pz, dims, layout[row + 1], layout[row + 2], layout[row + 3])
                entries[corner] = (layout[row] + entry) * features
                shares[corner] = weight_core(corner, px, py, pz, dims)
        for f in range(features):
            total = ZERO
            for corner in range(CORNERS):
                if corner < 1 << dims:
                    total = add_core(shares[corner], table[entries[corner] + f], total)
            held[(level * features + f) * threads + me] = total if kept else ZERO


@functools.cache
def box_kernel(width: int, codes: bool) -> CudaKernel:
    """Return the kernel that decodes a box through layers of up to `width`."""
    threads = threads_of(width)
    held_size, strip_size = width * threads, STRIP * width

    def decode(
        positions: Any, box: Any, table: Any, layout: Any, shape: Any, weights: Any, sizes: Any, layers: Any,
        out: Any, to: Any, steps: Any,
    ) -> None:  # fmt: skip
        """Decode one pixel a thread; `box` is y, x, height, width, levels of the grid and channels."""
        held = cuda.shared.array(held_size, np.float32)
        strip = cuda.shared.array(strip_size, np.float32, alignment=ALIGNED)
        sums = cuda.local.array(width, np.float32)
        entries = cuda.local.array(CORNERS, np.int64)
        shares = cuda.local.array(CORNERS, np.float32)
        me = cuda.threadIdx.x
        p = cuda.blockIdx.x * threads + me
        y, x = p // box[3], p % box[3]
        inside = p < box[2] * box[3]
        if inside:
            hold_box_features(positions, (box[0] + y, box[1] + x), table, layout, shape, threads, held, entries, shares)
            for i in range(shape[2] * shape[1], box[4] * shape[1]):
                held[i * threads + me] = ZERO
        through_layers(weights, sizes, layers, inside, width, threads, held, strip, sums)
        if inside:
            for i in range(width):
                if i < box[5]:
                    value = code_core(sums[i]) if codes else sums[i]
                    out[to + i * steps[0] + y * steps[1] + x * steps[2]] = value

    decode.__qualname__ = f"hash_decode_box_{width}_{'codes' if codes else 'values'}"
    return cuda_kernel(_BOX_SIGNATURE.format("uint8" if codes else "float32"))(decode)


@functools.cache
def coords_kernel(width: int, codes: bool) -> CudaKernel:
    """Return the kernel that decodes coordinates through layers of up to `width`."""
    threads = threads_of(width)
    held_size, strip_size = width * threads, STRIP * width

    def decode(
        coords: Any, start: Any, coord_steps: Any, table: Any, layout: Any, scales: Any, shape: Any, limits: Any,
        limit: Any, limit_step: Any, most: Any, weights: Any, sizes: Any, layers: Any, out: Any, to: Any, steps: Any,
    ) -> None:  # fmt: skip
        """Decode one position a thread; `shape` is positions, axes and features of an entry."""
        held = cuda.shared.array(held_size, np.float32)
        strip = cuda.shared.array(strip_size, np.float32, alignment=ALIGNED)
        sums = cuda.local.array(width, np.float32)
        entries = cuda.local.array(CORNERS, np.int64)
        shares = cuda.local.array(CORNERS, np.float32)
        positions, dims, features = shape
        me = cuda.threadIdx.x
        p = cuda.blockIdx.x * threads + me
        inside = p < positions
        if inside:
            first = start + p * coord_steps[0]
            point = (coords[first], coords[first + coord_steps[1]], coords[first + (dims - 1) * coord_steps[1]])
            here = limits[limit + p * limit_step]
            hold_coords_features(
                point, (here, most), table, layout, scales, (dims, features, sizes[0] // features), threads, held,
                entries, shares,
            )  # fmt: skip
        through_layers(weights, sizes, layers, inside, width, threads, held, strip, sums)
        if inside:
            for i in range(width):
                if i < sizes[(layers - 1) * LAYOUT + 1]:
                    value = code_core(sums[i]) if codes else sums[i]
                    out[to + p * steps[0] + i * steps[1]] = value

    decode.__qualname__ = f"hash_decode_coords_{width}_{'codes' if codes else 'values'}"
    return cuda_kernel(_COORDS_SIGNATURE.format("uint8" if codes else "float32"))(decode)


box_kernel(64, True)  # known to the tests from now on; all are compiled when they are launched
coords_kernel(16, False)


def _width(layers: MlpLayers) -> int:
    width = fused_width(layers)
    if width is None:
        raise ConfigError.of(
            "`layers` of `hash_decode`",
            got=f"a width of {max(layers.widths)}",
            expected=f"at most {WIDTHS[-1]} on CUDA",
            do="Use `hash_encode` and `mlp` one after the other.",
        )
    return width


def decode_box_on_device(
    here: Place, box: Box, positions: Any, table: Array, weights: Array, grid: HashGrid, layers: MlpLayers, kept: int,
    out: Array,
) -> None:  # fmt: skip
    """Put the decoding of a box on the stream; see `tilestream.kernels.hash_decode.hash_decode`."""
    width, threads = _width(layers), threads_of(_width(layers))
    run, start, steps = flat_view(out, writable=True)
    shape = (grid.dims, grid.features, kept, fraction_bits(grid))
    here.launch(
        box_kernel(width, dtype_of(out) == np.uint8), -(-box.height * box.width // threads), threads,
        _on_device(positions.tobytes(), here.device, os.getpid()),
        (box.y, box.x, box.height, box.width, grid.levels, layers.widths[-1]), flat_samples(table),
        grid_on(here, grid)[0], shape, flat_samples(weights), layout_on_device(layers, here.device, os.getpid()),
        len(layers.widths) - 1, run, start, steps,
    )  # fmt: skip


def decode_coords_on_device(
    here: Place, coords: Array, table: Array, weights: Array, grid: HashGrid, layers: MlpLayers, max_level: Any,
    out: Array,
) -> None:  # fmt: skip
    """Put the decoding of coordinates on the stream; see `tilestream.kernels.hash_decode.hash_decode`."""
    width, threads, n = _width(layers), threads_of(_width(layers)), int(coords.shape[0])
    run, start, steps = flat_view(out, writable=True)
    layout, scales = grid_on(here, grid)
    here.launch(
        coords_kernel(width, dtype_of(out) == np.uint8), -(-n // threads), threads, *flat_view(coords),
        flat_samples(table), layout, scales, (n, grid.dims, grid.features), *max_level, flat_samples(weights),
        layout_on_device(layers, here.device, os.getpid()), len(layers.widths) - 1, run, start, steps,
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _on_device(positions: bytes, device: int, process: int) -> Any:
    """Return positions as a run on a device, kept for the next call of the process."""
    with contextlib.nullcontext() if SIMULATED else cuda.gpus[device]:
        run = cuda.to_device(np.frombuffer(positions, np.int64).copy())
        # to_device may return before the copy has arrived, and other streams do not wait for the default one
        cuda.default_stream().synchronize()
    return run
