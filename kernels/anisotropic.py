"""Sampling of a pyramid with long footprints: several trilinear probes along the longer axis.

    value = (1/N)·Σ_{i=1…N} trilinear(at + (i/(N + 1) − 1/2)·longer axis, λ)

with N and λ of `tilestream.kernels.footprint` (EXT_texture_filter_anisotropic). A footprint that is as wide as long is
one trilinear sample. `tilestream.kernels.ewa` is the measure of its quality. Arithmetic in float32, in float64 for
float64 levels. Tolerance of the tests: 1e-5 (float32; the level is a logarithm) and 1e-11 (float64) of the range of the
texels, against NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import whole, whole_pair
from tilestream.kernels.constants import constant
from tilestream.kernels.footprint import footprint_core, level_of_cpu, level_of_cuda
from tilestream.kernels.language import cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.leveltable import COLUMNS, STEP_C, Ratio, level_table, named_levels
from tilestream.kernels.place import Array, place
from tilestream.kernels.positions import beside, positions, result_for
from tilestream.kernels.texel import bilinear_cpu, bilinear_cuda, corners_cpu, corners_cuda, shift_core

THREADS = 128
LEAST = 2**9
MOST = 64
"""Probes that can be asked for."""


@cpu_kernel
def _anisotropic_cpu(
    flat: Any, halves: Any, table: Any, at: Any, du: Any, dv: Any, most: Any, box: Any, shape: Any, band: Any, out: Any
) -> None:
    at_flat, at_start, at_steps = at
    u_flat, u_start, u_steps = du
    v_flat, v_start, v_steps = dv
    run, start, steps = out
    exact, real = at_flat.dtype.type, run.dtype.type
    channels, width = shape
    for i in range(band[0], band[1]):
        r = i // width
        q = i - r * width
        a = at_start + r * at_steps[0] + q * at_steps[1]
        b, c = u_start + r * u_steps[0] + q * u_steps[1], v_start + r * v_steps[0] + q * v_steps[1]
        u = real(u_flat[b]), real(u_flat[b + u_steps[2]])
        v = real(v_flat[c]), real(v_flat[c + v_steps[2]])
        probes, axis_y, axis_x, log2 = footprint_core(u, v, most, real)
        finer, share = level_of_cpu(table, log2, real)
        first = start + r * steps[1] + q * steps[2]
        for ch in range(channels):
            run[first + ch * steps[0]] = 0
        for probe in range(1, probes + 1):
            along = real(probe) / real(probes + 1) - real(0.5)
            y = shift_core(at_flat[a], along * axis_y, box[0], box[2], exact, real)
            x = shift_core(at_flat[a + at_steps[2]], along * axis_x, box[1], box[3], exact, real)
            weight = (real(1) - share) / real(probes)
            for read in range(finer, finer + 1 + (share > 0)):
                corners = corners_cpu(table, read, y, x, real)
                for ch in range(channels):
                    shift = ch * table[read * COLUMNS + STEP_C]
                    run[first + ch * steps[0]] += weight * bilinear_cpu(flat, halves, corners, shift, real)
                weight = share / real(probes)


@cuda_kernel(
    "void(uint8[::1], int64[::1], float32[::1], int64, UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 3), "
    "float32[::1], int64, UniTuple(int64, 3), int64, UniTuple(int64, 4), UniTuple(int64, 3), float32[::1], int64, "
    "UniTuple(int64, 3))"
)
def _anisotropic_cuda(
    flat: Any, table: Any, at: Any, at_start: Any, at_steps: Any, u_flat: Any, u_start: Any, u_steps: Any,
    v_flat: Any, v_start: Any, v_steps: Any, most: Any, box: Any, shape: Any, out: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Take one sample a thread."""
    i = cuda.grid(1)
    channels, height, width = shape
    exact, real = at.dtype.type, out.dtype.type
    if i < height * width:
        r = i // width
        q = i - r * width
        a = at_start + r * at_steps[0] + q * at_steps[1]
        b, c = u_start + r * u_steps[0] + q * u_steps[1], v_start + r * v_steps[0] + q * v_steps[1]
        u = real(u_flat[b]), real(u_flat[b + u_steps[2]])
        v = real(v_flat[c]), real(v_flat[c + v_steps[2]])
        probes, axis_y, axis_x, log2 = footprint_core(u, v, most, real)
        finer, share = level_of_cuda(table, log2, real)
        first = start + r * steps[1] + q * steps[2]
        for ch in range(channels):
            out[first + ch * steps[0]] = 0
        for probe in range(1, probes + 1):
            along = real(probe) / real(probes + 1) - real(0.5)
            y = shift_core(at[a], along * axis_y, box[0], box[2], exact, real)
            x = shift_core(at[a + at_steps[2]], along * axis_x, box[1], box[3], exact, real)
            weight = (real(1) - share) / real(probes)
            for read in range(finer, finer + 1 + (share > 0)):
                corners = corners_cuda(table, read, y, x, real)
                for ch in range(channels):
                    shift = ch * table[read * COLUMNS + STEP_C]
                    out[first + ch * steps[0]] += weight * bilinear_cuda(flat, corners, shift, real)
                weight = share / real(probes)


def anisotropic(
    levels: Sequence[Array],
    at_yx: Array,
    du_yx: Array | tuple[float, float],
    dv_yx: Array | tuple[float, float],
    *,
    max_anisotropy: int = 16,
    origin_yx: tuple[int, int] = (0, 0),
    ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return a pyramid sampled with footprints that may be longer than wide.

    Parameters
    ----------
    levels : sequence of array of uint8, uint16, float16, float32 or float64
        `(c, y, x)` or `(y, x)`, level 0 first, in any strides and of any sizes that do not grow.
    at_yx : array of float32 or float64
        `(n, 2)` or `(h, w, 2)`, px of level 0 from `origin_yx`: the centres of the footprints.
    du_yx, dv_yx : array of float32 or float64, or pair of float
        How far the position moves from one sample to the next along both axes of the output, px of level 0; for each
        sample in the shape of `at_yx`, or a pair for all.
    max_anisotropy : int
        Most probes, 1 to 64; a longer footprint is read at a coarser level.
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
        When arrays do not belong together, are not in one place, or on the host hold numbers that are not finite.
    """
    arrays = {name: value for name, value in (("du_yx", du_yx), ("dv_yx", dv_yx)) if hasattr(value, "shape")}
    here = place(
        "anisotropic", backend=backend, stream=stream, threads=threads,
        **named_levels(levels), at_yx=at_yx, **arrays, out=out,
    )  # fmt: skip
    table = level_table("anisotropic", levels, ratios=ratios)
    at = positions("anisotropic", at_yx)
    du = beside("anisotropic", "du_yx", du_yx, at, here, pair=True)
    dv = beside("anisotropic", "dv_yx", dv_yx, at, here, pair=True)
    found, run = result_for("anisotropic", table, at.shape, at_yx, out)
    if 0 in found.shape:
        return found
    rows = constant(here, table.rows)
    box = (*whole_pair("anisotropic", "origin_yx", origin_yx), *table.size_yx)
    most = np.int64(whole("anisotropic", "max_anisotropy", max_anisotropy, least=1, most=MOST))
    if here.backend == "cuda":
        shape = (table.channels, *at.grid)
        blocks = -(-at.size // THREADS)
        here.launch(
            _anisotropic_cuda, blocks, THREADS, table.flat, rows, *at.run, *du, *dv, most, box, shape, *run
        )  # fmt: skip
        return found
    shape_cpu = (table.channels, at.grid[1])
    over_bands(
        lambda start, stop: _anisotropic_cpu(
            table.flat, table.halves, rows, at.run, du, dv, most, box, shape_cpu, (start, stop), run
        ),
        at.size, threads=here.threads, least=LEAST,
    )  # fmt: skip
    return found
