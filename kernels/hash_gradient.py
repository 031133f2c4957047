"""Gradients of the hash encoding: to the table, deterministic, and to the coordinates.

    ∂/∂table[offset_l + i, k] = Σ over positions and corners at entry i of weight · g[n, l·F + k]
    ∂/∂x[n, d] = Σ over levels and corners of s_l · ∂weight/∂frac_d · Σ_k g[n, l·F + k] · table[offset_l + i, k]

The sums of the table are whole numbers (`tilestream.kernels.fixed_sum`), so that they are the same in every run and on
every number of threads; tiny-cuda-nn adds floats in any order. `deterministic=False` does that on CUDA, in half the
memory. Formulas: `tilestream.kernels.hash_vertex`. Tolerance of the tests: 1e-6 of the sum of absolute terms in
float32; the sums of float64 are kept to 2^-40 of the largest term.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.fixed_sum import (
    binary_places_core,
    clear,
    finish,
    fixed_core,
    fixed_with_core,
    headroom_bits,
    largest_on_device,
    largest_on_host,
    power_core,
    scaled_core,
)
from tilestream.kernels.hash_encode import BLOCK_POSITIONS, check_encoding, grid_on, levels_kept, samples_of
from tilestream.kernels.hash_vertex import (
    ZERO,
    add_core,
    entries_of_corner,
    entry_core,
    level_kept_core,
    locate,
    position_core,
    slope_core,
    weight_core,
    weights_of_corner,
    widen_core,
)
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.language import atomic_add, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_samples, flat_view

THREADS = 256


@cpu_kernel
def _table_cpu(
    upstream: Any, coords: Any, max_level: Any, layout: Any, scales: Any, shape: Any, fixed: Any, band: Any, out: Any
) -> None:
    """Write the gradient of the levels of a band, each summed by one thread."""
    limits, limit, limit_step, most = max_level
    positions, dims, features = shape
    largest, headroom = fixed
    kind = coords[0].dtype
    places = binary_places_core(largest, headroom)
    at, weights = np.empty(BLOCK_POSITIONS, np.int64), np.empty(BLOCK_POSITIONS, kind)
    cells, fracs = np.zeros((3, BLOCK_POSITIONS), np.int32), np.zeros((3, BLOCK_POSITIONS), kind)
    lines, terms = np.empty((features, BLOCK_POSITIONS), kind), np.empty(BLOCK_POSITIONS, np.int64)
    line = np.empty(BLOCK_POSITIONS, kind)
    for level in range(band[0], band[1]):
        totals = np.zeros((features, layout[level, 1]), np.int64)
        for first in range(0, positions, BLOCK_POSITIONS):
            n = min(BLOCK_POSITIONS, positions - first)
            _locate_block(coords, first, scales[level], (dims, n), line, cells, fracs)
            _read_lines(upstream, first, n, level * features, lines)
            for p in range(n):
                if not level_kept_core(level, limits[limit + (first + p) * limit_step], most):
                    lines[:, p] = 0
            for corner in range(1 << dims):
                entries_of_corner(cells, corner, layout[level], at[:n])
                weights_of_corner(fracs, corner, dims, weights[:n])
                for f in range(features):
                    _add_terms(weights[:n], lines[f], places, at, terms, totals[f])
        for entry in range(layout[level, 1]):
            for f in range(features):
                out[layout[level, 0] + entry, f] = totals[f, entry]
                value = out[layout[level, 0] + entry, f]
                out[layout[level, 0] + entry, f] = scaled_core(value, largest, places)


@cpu_kernel
def _locate_block(coords: Any, first: Any, scale: Any, shape: Any, line: Any, cells: Any, fracs: Any) -> None:
    """Write cells and fractions of n positions along every axis."""
    flat, start, steps = coords
    dims, n = shape
    for axis in range(dims):
        for p in range(n):
            line[p] = flat[start + (first + p) * steps[0] + axis * steps[1]]
        locate(scale, line[:n], cells[axis, :n], fracs[axis, :n])


@cpu_kernel
def _read_lines(upstream: Any, first: Any, n: Any, column: Any, lines: Any) -> None:
    """Copy the features of one level of n positions to features × positions."""
    up, start, steps = upstream
    for f in range(lines.shape[0]):
        source = start + first * steps[0] + (column + f) * steps[1]
        for p in range(n):
            lines[f, p] = up[source + p * steps[0]]


@cpu_kernel
def _add_terms(weights: Any, values: Any, places: Any, at: Any, terms: Any, totals: Any) -> None:
    """Add the terms of one corner and feature: as vectors up to the sums, whose places may be equal."""
    half, other_half = power_core(places), power_core(places + 1)
    for p in range(weights.shape[0]):
        terms[p] = fixed_with_core(weights[p], values[p], half, other_half)
    for p in range(weights.shape[0]):
        totals[at[p]] += terms[p]


@cpu_kernel
def _coords_cpu(
    upstream: Any, coords: Any, table: Any, max_level: Any, layout: Any, scales: Any, shape: Any, band: Any, out: Any
) -> None:
    up, up_start, up_steps = upstream
    flat, start, steps = coords
    plain, bits, is_half = table
    limits, limit, limit_step, most = max_level
    dims, features = shape
    for n in range(band[0], band[1]):
        out[n] = 0
        first = start + n * steps[0]
        for level in range(layout.shape[0]):
            if not level_kept_core(level, limits[limit + n * limit_step], most):
                continue
            px, py = position_core(scales[level], flat[first]), position_core(scales[level], flat[first + steps[1]])
            pz = position_core(scales[level], flat[first + (dims - 1) * steps[1]])
            source = up_start + n * up_steps[0] + level * features * up_steps[1]
            for corner in range(1 << dims):
                entry = entry_core(corner, px, py, pz, dims, layout[level, 1], layout[level, 2], layout[level, 3])
                row = (layout[level, 0] + entry) * features
                pull = flat[first] * 0  # in the type of the coordinates
                for f in range(features):
                    value = widen_core(bits[row + f]) if is_half else plain[row + f]
                    pull = add_core(up[source + f * up_steps[1]], value, pull)
                for axis in range(dims):
                    slope = slope_core(corner, axis, px, py, pz, dims, scales[level])
                    out[n, axis] = add_core(slope, pull, out[n, axis])


_FRONT = "void(float32[::1], int64, UniTuple(int64, 2), float32[::1], int64, UniTuple(int64, 2), "
_BACK = "float32[::1], int64, int64, float32, int64[::1], float32[::1], UniTuple(int64, 3), "


@cuda_kernel(_FRONT + _BACK + "float32[::1], int64, int64[::1])")
def _table_cuda(
    up: Any, up_start: Any, up_steps: Any, coords: Any, start: Any, steps: Any, limits: Any, limit: Any,
    limit_step: Any, most: Any, layout: Any, scales: Any, shape: Any, largest: Any, headroom: Any, totals: Any,
) -> None:  # fmt: skip
    """Add one position at one level a thread, as whole numbers."""
    positions, dims, features = shape
    n, level = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, cuda.blockIdx.y
    if n >= positions or not level_kept_core(level, limits[limit + n * limit_step], most):
        return
    places = binary_places_core(largest[0], headroom)
    first, row = start + n * steps[0], level * 4
    px, py = position_core(scales[level], coords[first]), position_core(scales[level], coords[first + steps[1]])
    pz = position_core(scales[level], coords[first + (dims - 1) * steps[1]])
    source = up_start + n * up_steps[0] + level * features * up_steps[1]
    for corner in range(1 << dims):
        entry = entry_core(corner, px, py, pz, dims, layout[row + 1], layout[row + 2], layout[row + 3])
        weight = weight_core(corner, px, py, pz, dims)
        to = (layout[row] + entry) * features
        for f in range(features):
            cuda.atomic.add(totals, to + f, fixed_core(weight, up[source + f * up_steps[1]], places))


@cuda_kernel(_FRONT + _BACK + "float32[::1])")
def _table_any_order_cuda(
    up: Any, up_start: Any, up_steps: Any, coords: Any, start: Any, steps: Any, limits: Any, limit: Any,
    limit_step: Any, most: Any, layout: Any, scales: Any, shape: Any, totals: Any,
) -> None:  # fmt: skip
    """Add one position at one level a thread, as floats in whatever order."""
    positions, dims, features = shape
    n, level = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, cuda.blockIdx.y
    if n >= positions or not level_kept_core(level, limits[limit + n * limit_step], most):
        return
    first, row = start + n * steps[0], level * 4
    px, py = position_core(scales[level], coords[first]), position_core(scales[level], coords[first + steps[1]])
    pz = position_core(scales[level], coords[first + (dims - 1) * steps[1]])
    source = up_start + n * up_steps[0] + level * features * up_steps[1]
    for corner in range(1 << dims):
        entry = entry_core(corner, px, py, pz, dims, layout[row + 1], layout[row + 2], layout[row + 3])
        weight = weight_core(corner, px, py, pz, dims)
        for f in range(features):
            to = (layout[row] + entry) * features + f
            atomic_add(totals, to, weight * up[source + f * up_steps[1]])


@cuda_kernel(_FRONT + "float32[::1], " + _BACK + "float32[::1])")
def _coords_cuda(
    up: Any, up_start: Any, up_steps: Any, coords: Any, start: Any, steps: Any, table: Any, limits: Any, limit: Any,
    limit_step: Any, most: Any, layout: Any, scales: Any, shape: Any, out: Any,
) -> None:  # fmt: skip
    """Sum over all levels for one position a thread."""
    positions, dims, features = shape
    n = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if n >= positions:
        return
    first = start + n * steps[0]
    for axis in range(dims):
        out[n * dims + axis] = ZERO
    for level in range(scales.size - 1):
        row = level * 4
        px, py = position_core(scales[level], coords[first]), position_core(scales[level], coords[first + steps[1]])
        pz = position_core(scales[level], coords[first + (dims - 1) * steps[1]])
        source = up_start + n * up_steps[0] + level * features * up_steps[1]
        kept = level_kept_core(level, limits[limit + n * limit_step], most)
        for corner in range(1 << dims if kept else 0):
            entry = entry_core(corner, px, py, pz, dims, layout[row + 1], layout[row + 2], layout[row + 3])
            at = (layout[row] + entry) * features
            pull = coords[first] * ZERO  # in the type of the coordinates
            for f in range(features):
                pull = add_core(up[source + f * up_steps[1]], table[at + f], pull)
            for axis in range(dims):
                slope = slope_core(corner, axis, px, py, pz, dims, scales[level])
                out[n * dims + axis] = add_core(slope, pull, out[n * dims + axis])


def hash_encode_backward(
    upstream: Array,
    coords_xyz: Array,
    table: Array,
    *,
    grid: HashGrid,
    max_level: float | Array | None = None,
    to_table: bool = True,
    to_coords: bool = True,
    deterministic: bool = True,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> tuple[Array | None, Array | None]:
    """Return the gradients of a loss to table and coordinates, given that to the features.

    Parameters
    ----------
    upstream : array of the type of the coordinates
        `(n, grid.width)`, any strides: the gradient to what `hash_encode` returned.
    coords_xyz, table, grid, max_level
        As they were handed to `tilestream.kernels.hash_encode.hash_encode`.
    to_table, to_coords : bool
        Which gradients are wanted.
    deterministic : bool
        Whether sums over positions are the same in every run; on the CPU they always are. Needs 8 bytes a parameter of
        scratch on CUDA, and on the CPU as much for one level a thread.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    tuple of array or None
        `(grid.entries, grid.features)` and `(n, grid.dims)`, in the type of the coordinates.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the grid, or the arrays are not in one place.
    """
    per_position = max_level if max_level is not None and not isinstance(max_level, (int, float)) else None
    here = place(
        "hash_encode_backward", backend=backend, stream=stream, threads=threads,
        upstream=upstream, coords_xyz=coords_xyz, table=table, max_level=per_position,
    )  # fmt: skip
    check_encoding("hash_encode_backward", grid, coords_xyz, table, per_position)
    n, dtype = int(coords_xyz.shape[0]), dtype_of(coords_xyz)
    need("hash_encode_backward", "upstream", upstream, dtypes=(dtype.name,), shape=(n, grid.width), empty=True)
    kept = levels_kept(here, grid, max_level, per_position)
    of_table = empty_like(coords_xyz, (grid.entries, grid.features), dtype) if to_table else None
    of_coords = empty_like(coords_xyz, (n, grid.dims), dtype) if to_coords else None
    if here.backend == "cpu":
        _on_host(here, upstream, coords_xyz, table, grid, kept, of_table, of_coords)
    else:
        _on_device(here, upstream, coords_xyz, table, grid, kept, of_table, of_coords, deterministic)
    return of_table, of_coords


def _on_host(
    here: Place, upstream: Array, coords: Array, table: Array, grid: HashGrid, kept: Any, of_table: Array | None,
    of_coords: Array | None,
) -> None:  # fmt: skip
    n = coords.shape[0]
    source, points = flat_view(upstream), flat_view(coords)
    if of_table is not None and n == 0:
        of_table[...] = 0
    elif of_table is not None:
        fixed = (largest_on_host(upstream), headroom_bits(n << grid.dims))
        over_bands(
            lambda start, stop: _table_cpu(
                source, points, kept, grid.layout, grid.scales, (n, grid.dims, grid.features), fixed, (start, stop),
                of_table,
            ),
            grid.levels, threads=here.threads,
        )  # fmt: skip
    if of_coords is not None:
        samples = samples_of(table, coords.dtype)
        over_bands(
            lambda start, stop: _coords_cpu(
                source, points, samples, kept, grid.layout, grid.scales, (grid.dims, grid.features), (start, stop),
                of_coords,
            ),
            n, threads=here.threads, least=1024,
        )  # fmt: skip


def _on_device(
    here: Place, upstream: Array, coords: Array, table: Array, grid: HashGrid, kept: Any, of_table: Array | None,
    of_coords: Array | None, deterministic: bool,
) -> None:  # fmt: skip
    n = int(coords.shape[0])
    layout, scales = grid_on(here, grid)
    source, points, shape = flat_view(upstream), flat_view(coords), (n, grid.dims, grid.features)
    blocks = (-(-n // THREADS), grid.levels)
    if of_table is not None:
        run, _, _ = flat_view(of_table, writable=True)
        if not deterministic or n == 0:
            clear(here, run)
        if n and not deterministic:
            here.launch(
                _table_any_order_cuda, blocks, THREADS, *source, *points, *kept, layout, scales, shape, run
            )  # fmt: skip
        elif n:
            totals, _, _ = flat_view(empty_like(coords, (run.size,), np.int64), writable=True)
            clear(here, totals)
            largest, headroom = largest_on_device(here, upstream), headroom_bits(n << grid.dims)
            here.launch(
                _table_cuda, blocks, THREADS, *source, *points, *kept, layout, scales, shape, largest, headroom, totals
            )  # fmt: skip
            finish(here, totals, largest, headroom, run)
    if of_coords is not None and n:
        run, _, _ = flat_view(of_coords, writable=True)
        values = flat_samples(table)
        here.launch(
            _coords_cuda, blocks[0], THREADS, *source, *points, values, *kept, layout, scales, shape, run
        )  # fmt: skip
