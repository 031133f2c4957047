"""Trilinear sampling of a pyramid at any positions and levels.

    value = (1 − f)·B(l0) + f·B(l0 + 1)

as in `tilestream.kernels.texel`, which holds the formula, its source and how precise positions are kept. Arithmetic in
float32, in float64 for float64 levels. Tolerance of the tests: 2e-6 (float32) and 1e-12 (float64) of the range of the
texels, against NumPy in float64, also at positions of a million px.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import whole_pair
from tilestream.kernels.constants import constant
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.leveltable import COLUMNS, STEP_C, LevelTable, Ratio, level_table, named_levels
from tilestream.kernels.place import Array, Place, place
from tilestream.kernels.positions import Run, beside, positions, result_for
from tilestream.kernels.texel import bilinear_cpu, bilinear_cuda, corners_cpu, corners_cuda, level_core, split_core

THREADS = 128
"""Of a block; each takes one position."""
CHUNK = 64
"""Samples whose places are found before their texels are read."""
LEAST = 2**11
"""Fewest positions that are worth a band."""


@cpu_kernel
def _corners_cpu(
    table: Any, at: Any, level: Any, origin: Any, size: Any, width: Any, first: Any, near: Any, weights: Any
) -> None:
    """Fill where the texels of some samples lie in both levels, and their weights: down, right and of the level."""
    at_flat, at_start, at_steps = at
    level_flat, level_start, level_steps = level
    exact, scale, real = at_flat.dtype.type, level_flat.dtype.type, weights.dtype.type
    for s in range(near.shape[0]):
        r = (first + s) // width
        q = first + s - r * width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y = split_core(at_flat[k], origin[0], size[0], exact, real)
        x = split_core(at_flat[k + at_steps[2]], origin[1], size[1], exact, real)
        wanted = level_flat[level_start + r * level_steps[0] + q * level_steps[1]]
        finer, share = level_core(wanted, table.size // COLUMNS, scale, real)
        for slot in range(2):
            read = finer + (slot if share > 0 else 0)
            a, b, c, d, ty, tx = corners_cpu(table, read, y, x, real)
            near[s, slot, 0], near[s, slot, 1], near[s, slot, 2], near[s, slot, 3] = a, b, c, d
            near[s, slot, 4] = table[read * COLUMNS + STEP_C]
            weights[s, slot, 0], weights[s, slot, 1], weights[s, slot, 2] = ty, tx, share


@cpu_kernel
def _sample_cpu(
    flat: Any, halves: Any, table: Any, at: Any, level: Any, origin: Any, size: Any, shape: Any, band: Any, out: Any
) -> None:
    """Sample a band: places first, then texels, so that the memory is asked for several samples at once."""
    run, start, steps = out
    real = run.dtype.type
    channels, width = shape
    near = np.empty((CHUNK, 2, 5), np.int64)
    weights = np.empty((CHUNK, 2, 3), run.dtype)
    for first in range(band[0], band[1], CHUNK):
        count = min(CHUNK, band[1] - first)
        _corners_cpu(table, at, level, origin, size, width, first, near[:count], weights[:count])
        for s in range(count):
            r = (first + s) // width
            target = start + r * steps[1] + (first + s - r * width) * steps[2]
            n, w = near[s, 0], weights[s, 0]
            fine = n[0], n[1], n[2], n[3], w[0], w[1]
            m, v = near[s, 1], weights[s, 1]
            coarse = m[0], m[1], m[2], m[3], v[0], v[1]
            for ch in range(channels):
                value = bilinear_cpu(flat, halves, fine, ch * n[4], real)
                if w[2] > 0:
                    value += w[2] * (bilinear_cpu(flat, halves, coarse, ch * m[4], real) - value)
                run[target + ch * steps[0]] = value


@cuda_kernel(
    "void(uint8[::1], int64[::1], float32[::1], int64, UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 2), "
    "UniTuple(int64, 2), UniTuple(int64, 2), UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 3))"
)
def _sample_cuda(
    flat: Any, table: Any, at: Any, at_start: Any, at_steps: Any, level: Any, level_start: Any, level_steps: Any,
    origin: Any, size: Any, shape: Any, out: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Sample one position a thread."""
    i = cuda.grid(1)
    channels, height, width = shape
    exact, scale, real = at.dtype.type, level.dtype.type, out.dtype.type
    if i < height * width:
        r = i // width
        q = i - r * width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y = split_core(at[k], origin[0], size[0], exact, real)
        x = split_core(at[k + at_steps[2]], origin[1], size[1], exact, real)
        wanted = level[level_start + r * level_steps[0] + q * level_steps[1]]
        finer, share = level_core(wanted, table.size // COLUMNS, scale, real)
        first = start + r * steps[1] + q * steps[2]
        weight = real(1) - share
        for read in range(finer, finer + 1 + (share > 0)):
            corners = corners_cuda(table, read, y, x, real)
            for ch in range(channels):
                k = first + ch * steps[0]
                value = weight * bilinear_cuda(flat, corners, ch * table[read * COLUMNS + STEP_C], real)
                out[k] = value if read == finer else out[k] + value
            weight = share


def sample(
    levels: Sequence[Array],
    at_yx: Array,
    level: Array | float,
    *,
    origin_yx: tuple[int, int] = (0, 0),
    ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return a pyramid sampled at positions and levels, linear in y, x and level.

    Parameters
    ----------
    levels : sequence of array of uint8, uint16, float16, float32 or float64
        `(c, y, x)` or `(y, x)`, level 0 first, in any strides and of any sizes that do not grow.
    at_yx : array of float32 or float64
        `(n, 2)` or `(h, w, 2)`, px of level 0 from `origin_yx`; the centre of the first texel of level 0 is at
        (0.5, 0.5). Outside the image the nearest texel is read. float32 is taken as exact: far from the corner give
        float32 from an origin nearby, or float64, which is slow on most GPUs.
    level : array of float32 or float64, or number
        Of each position, in the shape of `at_yx` without its last axis, or of all; clamped to the levels there are.
    origin_yx : tuple of int
        Where `at_yx` counts from, px of level 0.
    ratios : sequence of number or of pair of number, optional
        How many px of level 0 a px of each level is long; a pair is (y, x). By default the true ratios of the sizes.
    out : array of float32, or of float64 for float64 levels, optional
        `(c, n)` or `(c, h, w)`, without c for levels without; any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `out`, or a new array of the kind of `at_yx`.

    Raises
    ------
    ConfigError
        When arrays do not belong together, are not in one place, or on the host hold positions that are not finite.
    """
    beside_levels = {"level": level} if hasattr(level, "dtype") and not isinstance(level, np.generic) else {}
    here = place(
        "sample", backend=backend, stream=stream, threads=threads,
        **named_levels(levels), at_yx=at_yx, **beside_levels, out=out,
    )  # fmt: skip
    table = level_table("sample", levels, ratios=ratios)
    at = positions("sample", at_yx)
    wanted = beside("sample", "level", level, at, here)
    found, run = result_for("sample", table, at.shape, at_yx, out)
    if 0 not in found.shape:
        origin = whole_pair("sample", "origin_yx", origin_yx)
        _sample(here, table, at.run, wanted, origin, at.grid, run)
    return found


def _sample(
    here: Place, table: LevelTable, at: Run, level: Run, origin: tuple[int, int], grid: tuple[int, int], out: Run
) -> None:
    rows = constant(here, table.rows)
    height, width = grid
    if here.backend == "cuda":
        blocks = -(-height * width // THREADS)
        shape = (table.channels, height, width)
        here.launch(_sample_cuda, blocks, THREADS, table.flat, rows, *at, *level, origin, table.size_yx, shape, *out)
        return
    over_bands(
        lambda start, stop: _sample_cpu(
            table.flat, table.halves, rows, at, level, origin, table.size_yx, (table.channels, width), (start, stop),
            out,
        ),
        height * width, threads=here.threads, least=LEAST,
    )  # fmt: skip
