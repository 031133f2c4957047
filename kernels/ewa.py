"""Elliptical weighted average: the reference that the quality of other samplers is measured against.

A footprint with the gradients u and v of the position, in px of one level, is the ellipse pᵀ M⁻¹ p < 1 with

    M = u uᵀ + v vᵀ + I,     value = Σ w·texel / Σ w,     w = exp(−2 pᵀM⁻¹p) − exp(−2)

over all texels whose centres p, seen from the position, lie in it (Greene & Heckbert 1986; Heckbert, "Fundamentals of
Texture Mapping", 1989, §3.5; I is the filter between texels). The weight falls to 0 at the rim (as in Pharr et al.,
"Physically Based Rendering", §10.4), so that no texel drops out at once. Exact sums, so slow: the cost is the area of
the ellipse. Arithmetic in float32, in float64 for float64 levels. Tolerance of the tests: 1e-5 (float32) and 1e-11
(float64) of the range of the texels, against NumPy in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import whole_pair
from tilestream.kernels.constants import constant
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.leveltable import COLUMNS, STEP_C, Ratio, X, Y, level_table, named_levels
from tilestream.kernels.place import Array, place
from tilestream.kernels.positions import beside, positions, result_for
from tilestream.kernels.texel import place_core, split_core, texel_cpu

THREADS = 128
LEAST = 2**6
MAX_RADIUS_PX = 2.0**12
"""Of the level: what is farther away is left out, so that no gradient can keep a device busy for ever."""
_RIM = math.exp(-2.0)


@core
def _ellipse_core(uy: Any, ux: Any, vy: Any, vx: Any, real: Any) -> Any:
    """The three numbers of M⁻¹, and how far the ellipse reaches along y and x."""
    yy, yx, xx = uy * uy + vy * vy + real(1), uy * ux + vy * vx, ux * ux + vx * vx + real(1)
    cross = uy * vx - ux * vy
    # the determinant without the difference of two large products
    det = cross * cross + uy * uy + vy * vy + ux * ux + vx * vx + real(1)
    far = real(MAX_RADIUS_PX)
    return xx / det, -yx / det, yy / det, min(real(math.sqrt(yy)), far), min(real(math.sqrt(xx)), far)


@core
def _weight_core(inverse: Any, dy: Any, dx: Any, real: Any) -> Any:
    """Weight of a texel, 0 outside the ellipse."""
    squared = inverse[0] * dy * dy + real(2) * inverse[1] * dy * dx + inverse[2] * dx * dx
    return real(math.exp(real(-2) * squared)) - real(_RIM) if squared < real(1) else real(0)


@cpu_kernel
def _ewa_cpu(
    flat: Any, halves: Any, table: Any, at: Any, du: Any, dv: Any, read: Any, box: Any, shape: Any, band: Any, out: Any
) -> None:
    at_flat, at_start, at_steps = at
    u_flat, u_start, u_steps = du
    v_flat, v_start, v_steps = dv
    run, start, steps = out
    exact, real = at_flat.dtype.type, run.dtype.type
    k = read * COLUMNS
    ratio_y, ratio_x = real(table[k + Y + 2]) / real(table[k + Y + 3]), real(table[k + X + 2]) / real(table[k + X + 3])
    for i in range(band[0], band[1]):
        r = i // shape[1]
        q = i - r * shape[1]
        a = at_start + r * at_steps[0] + q * at_steps[1]
        b, c = u_start + r * u_steps[0] + q * u_steps[1], v_start + r * v_steps[0] + q * v_steps[1]
        ellipse = _ellipse_core(
            real(u_flat[b]) * ratio_y, real(u_flat[b + u_steps[2]]) * ratio_x,
            real(v_flat[c]) * ratio_y, real(v_flat[c + v_steps[2]]) * ratio_x, real,
        )  # fmt: skip
        y = split_core(at_flat[a], box[0], box[2], exact, real)
        x = split_core(at_flat[a + at_steps[2]], box[1], box[3], exact, real)
        qy, ty = place_core(y, table[k + Y + 2], table[k + Y + 3], table[k + Y + 4], real)
        qx, tx = place_core(x, table[k + X + 2], table[k + X + 3], table[k + X + 4], real)
        first = start + r * steps[1] + q * steps[2]
        for ch in range(shape[0]):
            run[first + ch * steps[0]] = 0
        total = real(0)
        for j in range(-int(ellipse[3] - ty), int(ty + ellipse[3]) + 1):
            row = table[k] + min(max(qy + j, 0), table[k + Y + 1] - 1) * table[k + Y]
            for m in range(-int(ellipse[4] - tx), int(tx + ellipse[4]) + 1):
                weight = _weight_core(ellipse, real(j) - ty, real(m) - tx, real)
                total += weight
                place_of = row + min(max(qx + m, 0), table[k + X + 1] - 1) * table[k + X]
                for ch in range(shape[0] if weight > 0 else 0):
                    texel = texel_cpu(flat, halves, place_of + ch * table[k + STEP_C], real)
                    run[first + ch * steps[0]] += weight * texel
        for ch in range(shape[0]):
            run[first + ch * steps[0]] /= total


@cuda_kernel(
    "void(uint8[::1], int64[::1], float32[::1], int64, UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 3), "
    "float32[::1], int64, UniTuple(int64, 3), int64, UniTuple(int64, 4), UniTuple(int64, 3), float32[::1], int64, "
    "UniTuple(int64, 3))"
)
def _ewa_cuda(
    flat: Any, table: Any, at: Any, at_start: Any, at_steps: Any, u_flat: Any, u_start: Any, u_steps: Any,
    v_flat: Any, v_start: Any, v_steps: Any, read: Any, box: Any, shape: Any, out: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Take one sample a thread."""
    i = cuda.grid(1)
    exact, real = at.dtype.type, out.dtype.type
    if i >= shape[1] * shape[2]:
        return
    k = read * COLUMNS
    ratio_y, ratio_x = real(table[k + Y + 2]) / real(table[k + Y + 3]), real(table[k + X + 2]) / real(table[k + X + 3])
    r = i // shape[2]
    q = i - r * shape[2]
    a = at_start + r * at_steps[0] + q * at_steps[1]
    b, c = u_start + r * u_steps[0] + q * u_steps[1], v_start + r * v_steps[0] + q * v_steps[1]
    ellipse = _ellipse_core(
        real(u_flat[b]) * ratio_y, real(u_flat[b + u_steps[2]]) * ratio_x,
        real(v_flat[c]) * ratio_y, real(v_flat[c + v_steps[2]]) * ratio_x, real,
    )  # fmt: skip
    y = split_core(at[a], box[0], box[2], exact, real)
    x = split_core(at[a + at_steps[2]], box[1], box[3], exact, real)
    qy, ty = place_core(y, table[k + Y + 2], table[k + Y + 3], table[k + Y + 4], real)
    qx, tx = place_core(x, table[k + X + 2], table[k + X + 3], table[k + X + 4], real)
    first = start + r * steps[1] + q * steps[2]
    for ch in range(shape[0]):
        out[first + ch * steps[0]] = 0
    total = real(0)
    for j in range(-int(ellipse[3] - ty), int(ty + ellipse[3]) + 1):
        row = table[k] + min(max(qy + j, 0), table[k + Y + 1] - 1) * table[k + Y]
        for m in range(-int(ellipse[4] - tx), int(tx + ellipse[4]) + 1):
            weight = _weight_core(ellipse, real(j) - ty, real(m) - tx, real)
            total += weight
            place_of = row + min(max(qx + m, 0), table[k + X + 1] - 1) * table[k + X]
            for ch in range(shape[0] if weight > 0 else 0):
                out[first + ch * steps[0]] += weight * real(flat[place_of + ch * table[k + STEP_C]])
    for ch in range(shape[0]):
        out[first + ch * steps[0]] /= total


def ewa(
    levels: Sequence[Array],
    at_yx: Array,
    du_yx: Array | tuple[float, float],
    dv_yx: Array | tuple[float, float],
    *,
    level: int = 0,
    origin_yx: tuple[int, int] = (0, 0),
    ratios: Sequence[Ratio | tuple[Ratio, Ratio]] | None = None,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return one level of a pyramid averaged over elliptical footprints: slow, the reference for quality.

    Parameters
    ----------
    levels : sequence of array of uint8, uint16, float16, float32 or float64
        `(c, y, x)` or `(y, x)`, level 0 first, in any strides and of any sizes that do not grow.
    at_yx : array of float32 or float64
        `(n, 2)` or `(h, w, 2)`, px of level 0 from `origin_yx`: the centres of the footprints.
    du_yx, dv_yx : array of float32 or float64, or pair of float
        How far the position moves from one sample to the next along both axes of the output, px of level 0; for each
        sample in the shape of `at_yx`, or a pair for all. Footprints of more than 4,096 texels to a side are cut.
    level : int
        Whose texels are averaged; 0 is exact, a coarser one cheaper by four each.
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
        "ewa", backend=backend, stream=stream, threads=threads, **named_levels(levels), at_yx=at_yx, **arrays, out=out
    )
    table = level_table("ewa", levels, ratios=ratios)
    if level not in range(len(table.rows)):
        raise ConfigError.of("`level` of `ewa`", got=level, expected=f"0 to {len(table.rows) - 1}", do="Change it.")
    at = positions("ewa", at_yx)
    du = beside("ewa", "du_yx", du_yx, at, here, pair=True)
    dv = beside("ewa", "dv_yx", dv_yx, at, here, pair=True)
    found, run = result_for("ewa", table, at.shape, at_yx, out)
    if 0 in found.shape:
        return found
    rows, read = constant(here, table.rows), np.int64(level)
    box = (*whole_pair("ewa", "origin_yx", origin_yx), *table.size_yx)
    if here.backend == "cuda":
        shape = (table.channels, *at.grid)
        blocks = -(-at.size // THREADS)
        here.launch(_ewa_cuda, blocks, THREADS, table.flat, rows, *at.run, *du, *dv, read, box, shape, *run)
        return found
    shape_cpu = (table.channels, at.grid[1])
    over_bands(
        lambda start, stop: _ewa_cpu(
            table.flat, table.halves, rows, at.run, du, dv, read, box, shape_cpu, (start, stop), run
        ),
        at.size, threads=here.threads, least=LEAST,
    )  # fmt: skip
    return found
