"""The multiresolution hash encoding of Instant-NGP: positions to the features around them, level by level.

    f[n, l·F + k] = Σ over the corners of the cell of position n at level l of weight · table[offset_l + i, k]

Levels above `max_level` are zero. Formulas and tolerance: `tilestream.kernels.hash_vertex`, levels:
`tilestream.kernels.hashgrid`; gradients: `tilestream.kernels.hash_gradient`. A table of float16 is read as it is and
summed in float32: the error is that of storing it, 2^-11 of each entry.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind
from tilestream.kernels.hash_vertex import (
    ZERO,
    add_core,
    entry_core,
    level_features,
    level_kept_core,
    locate,
    position_core,
    weight_core,
)
from tilestream.kernels.hashgrid import HashGrid
from tilestream.kernels.language import SIMULATED, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_samples, flat_view, no_samples

BLOCK_POSITIONS = 128
"""Worked on at once: coordinates, entries and weights stay in the first cache."""
THREADS = 256


@cpu_kernel
def _encode_cpu(
    coords: Any, table: Any, max_level: Any, layout: Any, scales: Any, shape: Any, band: Any, out: Any
) -> None:
    flat, start, steps = coords
    dims, features = shape
    limits, limit, limit_step, most = max_level
    target, target_start, target_steps = out
    at, weights = np.empty(BLOCK_POSITIONS, np.int64), np.empty(BLOCK_POSITIONS, flat.dtype)
    cells, fracs = np.zeros((3, BLOCK_POSITIONS), np.int32), np.zeros((3, BLOCK_POSITIONS), flat.dtype)
    found, line = np.empty((features, BLOCK_POSITIONS), flat.dtype), np.empty(BLOCK_POSITIONS, flat.dtype)
    for level in range(layout.shape[0]):
        for first in range(band[0], band[1], BLOCK_POSITIONS):
            n = min(BLOCK_POSITIONS, band[1] - first)
            for axis in range(dims):
                for p in range(n):
                    line[p] = flat[start + (first + p) * steps[0] + axis * steps[1]]
                locate(scales[level], line[:n], cells[axis, :n], fracs[axis, :n])
            level_features(table, layout[level], dims, features, cells, fracs, at[:n], weights[:n], found)
            for p in range(n):
                kept = level_kept_core(level, limits[limit + (first + p) * limit_step], most)
                to = target_start + (first + p) * target_steps[0] + level * features * target_steps[1]
                for f in range(features):
                    target[to + f * target_steps[1]] = found[f, p] if kept else 0


_SIGNATURE = (
    "void(float32[::1], int64, UniTuple(int64, 2), {}[::1], float32[::1], int64, int64, float32, int64[::1], "
    "float32[::1], UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 2))"
)


@cuda_kernel(_SIGNATURE.format("float32"), _SIGNATURE.format("float16"))
def _encode_cuda(
    coords: Any, start: Any, steps: Any, table: Any, limits: Any, limit: Any, limit_step: Any, most: Any,
    layout: Any, scales: Any, shape: Any, out: Any, out_start: Any, out_steps: Any,
) -> None:  # fmt: skip
    """Encode one position at one level a thread."""
    positions, dims, features = shape
    n, level = cuda.blockIdx.x * THREADS + cuda.threadIdx.x, cuda.blockIdx.y
    if n >= positions:
        return
    entries = cuda.local.array(8, np.int64)
    weights = cuda.local.array(8, coords.dtype)
    first, row = start + n * steps[0], level * 4
    px = position_core(scales[level], coords[first])
    py = position_core(scales[level], coords[first + steps[1]])
    pz = position_core(scales[level], coords[first + (dims - 1) * steps[1]])
    for corner in range(8):
        if corner < 1 << dims:
            found = entry_core(corner, px, py, pz, dims, layout[row + 1], layout[row + 2], layout[row + 3])
            entries[corner] = (layout[row] + found) * features
            weights[corner] = weight_core(corner, px, py, pz, dims)
    to = out_start + n * out_steps[0] + level * features * out_steps[1]
    kept = level_kept_core(level, limits[limit + n * limit_step], most)
    for f in range(features):
        total = add_core(weights[0], table[entries[0] + f], ZERO)
        for corner in range(1, 8):
            if corner < 1 << dims:
                total = add_core(weights[corner], table[entries[corner] + f], total)
        out[to + f * out_steps[1]] = total if kept else ZERO


def hash_encode(
    coords_xyz: Array,
    table: Array,
    *,
    grid: HashGrid,
    max_level: float | Array | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the features of a hash grid at positions.

    Parameters
    ----------
    coords_xyz : array of float32 or float64
        `(n, 2)` x, y or `(n, 3)` x, y, z, each 0 to 1 over the grid; any strides. Others wrap, as in tiny-cuda-nn.
    table : array of float32 or float64 as the coordinates, or of float16
        `(grid.entries, grid.features)`, contiguous.
    grid : HashGrid
        What the table holds.
    max_level : float or array of float32, optional
        Levels above this number are zero; one for all, or `(n,)` one for each position. tiny-cuda-nn's argument of
        this name is the same divided by the number of levels.
    out : array of the type of the coordinates, optional
        `(n, grid.width)`, any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(n, grid.width)`: `out`, or a new array of the kind of the coordinates. Column `l · F + k` is feature k of
        level l, the coarsest first.

    Raises
    ------
    ConfigError
        When types or shapes do not fit the grid, coordinates on the host are not finite, or the arrays are not in one
        place.
    """
    per_position = max_level if max_level is not None and not isinstance(max_level, (int, float)) else None
    here = place(
        "hash_encode", backend=backend, stream=stream, threads=threads,
        coords_xyz=coords_xyz, table=table, max_level=per_position, out=out,
    )  # fmt: skip
    check_encoding("hash_encode", grid, coords_xyz, table, per_position)
    n, dtype = int(coords_xyz.shape[0]), dtype_of(coords_xyz)
    need("hash_encode", "out", out, dtypes=(dtype.name,), shape=(n, grid.width), empty=True)
    found = empty_like(coords_xyz, (n, grid.width), dtype) if out is None else out
    if n:
        _encode(here, coords_xyz, table, grid, levels_kept(here, grid, max_level, per_position), found)
    return found


def _encode(here: Place, coords: Array, table: Array, grid: HashGrid, max_level: Any, out: Array) -> None:
    n = int(coords.shape[0])
    layout, scales = grid_on(here, grid)
    run = flat_view(out, writable=True)
    if here.backend == "cuda":
        values = flat_samples(table)
        blocks = (-(-n // THREADS), grid.levels)
        here.launch(
            _encode_cuda, blocks, THREADS, *flat_view(coords), values, *max_level, layout, scales,
            (n, grid.dims, grid.features), *run,
        )  # fmt: skip
        return
    source, samples = flat_view(coords), samples_of(table, dtype_of(coords))
    over_bands(
        lambda start, stop: _encode_cpu(
            source, samples, max_level, layout, scales, (grid.dims, grid.features), (start, stop), run
        ),
        n, threads=here.threads, least=1024, align=BLOCK_POSITIONS,
    )  # fmt: skip


def samples_of(table: Array, dtype: np.dtype[Any]) -> tuple[Any, Any, bool]:
    """Return a host table as samples of a type and as bits of float16, one of them empty, and whether it is bits."""
    flat, _, _ = flat_view(table)
    if dtype_of(table) == np.float16:
        return no_samples(dtype), flat.view(np.uint16), True
    return flat, no_samples(np.uint16), False


def levels_kept(here: Place, grid: HashGrid, max_level: Any, per_position: Array | None) -> tuple[Any, ...]:
    """Return the highest level of each position as a run, its start and step, and the highest of all positions."""
    if per_position is not None:
        flat, start, steps = flat_view(per_position)
        return flat, start, steps[0], np.float32(grid.levels)
    most = np.float32(grid.levels if max_level is None else max_level)
    endless = grid_on(here, grid)[1][grid.levels :]
    return flat_view(endless)[0] if here.backend == "cpu" else endless, 0, 0, most


def grid_on(here: Place, grid: HashGrid) -> tuple[Any, Any]:
    """Return layout and scales of a grid, and infinity after these, where an operation runs.

    On a device they are kept for the next call.
    """
    if here.backend == "cpu":
        return grid.layout, np.append(grid.scales, np.float32(np.inf))
    return _grid_on_device(grid, here.device, os.getpid())


@functools.lru_cache(maxsize=64)
def _grid_on_device(grid: HashGrid, device: int, process: int) -> tuple[Any, Any]:
    with contextlib.nullcontext() if SIMULATED else cuda.gpus[device]:
        found = cuda.to_device(grid.layout.ravel()), cuda.to_device(np.append(grid.scales, np.float32(np.inf)))
        # to_device may return before the copies have arrived, and other streams do not wait for the default one
        cuda.default_stream().synchronize()
    return found


def check_encoding(operation: str, grid: HashGrid, coords: Array, table: Array, max_level: Array | None) -> None:
    """Raise unless coordinates, table and the level of each position fit a grid."""
    need_kind(operation, "grid", grid, HashGrid, do="Make one of its sizes.")
    need(operation, "coords_xyz", coords, dtypes=("float32", "float64"), ndim=2, empty=True, finite=True)
    n = int(coords.shape[0])
    need(operation, "coords_xyz", coords, dtypes=("float32", "float64"), shape=(n, grid.dims), empty=True)
    dtype = dtype_of(coords).name
    need(
        operation, "table", table, dtypes=(dtype, "float16") if dtype == "float32" else (dtype,),
        shape=(grid.entries, grid.features), contiguous=True,
    )  # fmt: skip
    need(operation, "max_level", max_level, dtypes=("float32",), shape=(n,), empty=True)
