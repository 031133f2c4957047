"""Gradients of `sample`: to the texels, to the positions and to the level.

With weights w of the bilinear mean and g the gradient of a sample,

    to a texel      g·(1 − f)·w in level l0, g·f·w in level l0 + 1        (8 texels a sample)
    to y            Σ_ch g·[(1 − f)·r(l0)·∂B(l0)/∂u + f·r(l0 + 1)·∂B(l0 + 1)/∂u],    r = num/den px by px
    to the level    Σ_ch g·(B(l0 + 1) − B(l0)), 0 where the level is clamped

∂B/∂u is the difference between texels, 0 where both are the edge texel; at a texel's centre it is that to the next one.
Arithmetic in the type of the results. On the CPU texels are summed in the order of samples, whatever the threads: same
bits each time; on a device with atomic additions, in no fixed order. Tolerance of the tests: 2e-5 (float32) and 1e-12
(float64) of the largest gradient, against NumPy, and `gradcheck` in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.constants import constant
from tilestream.kernels.language import atomic_add, core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.leveltable import COLUMNS, STEP_C, LevelTable, X, Y, level_table, named_levels
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.positions import Positions, Run, beside, positions
from tilestream.kernels.rows import flat_view
from tilestream.kernels.texel import corners_cpu, corners_cuda, level_core, mix_core, split_core, texel_cpu

THREADS = 128
LEAST = 2**11


@core
def _slopes_core(g: Any, a: Any, b: Any, c: Any, d: Any, ty: Any, tx: Any) -> Any:
    """Difference downwards and to the right, and mean, of four texels, times g."""
    upper, lower = b - a, d - c
    left, right = c - a, d - b
    return g * (left + tx * (right - left)), g * (upper + ty * (lower - upper)), g * mix_core(a, b, c, d, ty, tx)


@cpu_kernel
def _sample_slopes_cpu(
    flat: Any, halves: Any, table: Any, at: Any, level: Any, grad: Any, box: Any, shape: Any, band: Any, out: Any
) -> None:
    at_flat, at_start, at_steps = at
    level_flat, level_start, level_steps = level
    grad_flat, grad_start, grad_steps = grad
    exact, scale, real = at_flat.dtype.type, level_flat.dtype.type, out.dtype.type
    channels, width = shape
    for i in range(band[0], band[1]):
        r = i // width
        q = i - r * width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y = split_core(at_flat[k], box[0], box[2], exact, real)
        x = split_core(at_flat[k + at_steps[2]], box[1], box[3], exact, real)
        wanted = level_flat[level_start + r * level_steps[0] + q * level_steps[1]]
        finer, share = level_core(wanted, table.size // COLUMNS, scale, real)
        inside = wanted >= 0 and finer < table.size // COLUMNS - 1
        to_y = to_x = to_level = real(0)
        weight, sign = real(1) - share, real(-1) if inside else real(0)
        for read in range(finer, finer + 1 + inside):
            t = read * COLUMNS
            o = corners_cpu(table, read, y, x, real)
            scale_y = weight * real(table[t + Y + 2]) / real(table[t + Y + 3])
            scale_x = weight * real(table[t + X + 2]) / real(table[t + X + 3])
            for ch in range(channels):
                g = real(grad_flat[grad_start + ch * grad_steps[0] + r * grad_steps[1] + q * grad_steps[2]])
                s = ch * table[t + STEP_C]
                dy, dx, mean = _slopes_core(
                    g, texel_cpu(flat, halves, o[0] + s, real), texel_cpu(flat, halves, o[1] + s, real),
                    texel_cpu(flat, halves, o[2] + s, real), texel_cpu(flat, halves, o[3] + s, real), o[4], o[5],
                )  # fmt: skip
                to_y += scale_y * dy
                to_x += scale_x * dx
                to_level += sign * mean
            weight, sign = share, real(1)
        out[3 * i] = to_y
        out[3 * i + 1] = to_x
        out[3 * i + 2] = to_level


_SLOPES = (
    "void({t}[::1], int64[::1], {r}[::1], int64, UniTuple(int64, 3), {r}[::1], int64, UniTuple(int64, 2), {r}[::1], "
    "int64, UniTuple(int64, 3), UniTuple(int64, 4), UniTuple(int64, 3), {r}[::1])"
)


@cuda_kernel(_SLOPES.format(t="uint8", r="float32"))
def _sample_slopes_cuda(
    flat: Any, table: Any, at: Any, at_start: Any, at_steps: Any, level: Any, level_start: Any, level_steps: Any,
    grad: Any, grad_start: Any, grad_steps: Any, box: Any, shape: Any, out: Any,
) -> None:  # fmt: skip
    """Take one sample a thread."""
    i = cuda.grid(1)
    channels, height, width = shape
    exact, scale, real = at.dtype.type, level.dtype.type, out.dtype.type
    if i < height * width:
        r = i // width
        q = i - r * width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y = split_core(at[k], box[0], box[2], exact, real)
        x = split_core(at[k + at_steps[2]], box[1], box[3], exact, real)
        wanted = level[level_start + r * level_steps[0] + q * level_steps[1]]
        finer, share = level_core(wanted, table.size // COLUMNS, scale, real)
        inside = wanted >= 0 and finer < table.size // COLUMNS - 1
        to_y = to_x = to_level = real(0)
        weight, sign = real(1) - share, real(-1) if inside else real(0)
        for read in range(finer, finer + 1 + inside):
            t = read * COLUMNS
            o = corners_cuda(table, read, y, x, real)
            scale_y = weight * real(table[t + Y + 2]) / real(table[t + Y + 3])
            scale_x = weight * real(table[t + X + 2]) / real(table[t + X + 3])
            for ch in range(channels):
                g = real(grad[grad_start + ch * grad_steps[0] + r * grad_steps[1] + q * grad_steps[2]])
                s = ch * table[t + STEP_C]
                dy, dx, mean = _slopes_core(
                    g, real(flat[o[0] + s]), real(flat[o[1] + s]), real(flat[o[2] + s]), real(flat[o[3] + s]),
                    o[4], o[5],
                )  # fmt: skip
                to_y += scale_y * dy
                to_x += scale_x * dx
                to_level += sign * mean
            weight, sign = share, real(1)
        out[3 * i] = to_y
        out[3 * i + 1] = to_x
        out[3 * i + 2] = to_level


@cpu_kernel
def _sample_scatter_cpu(flat: Any, table: Any, at: Any, level: Any, grad: Any, box: Any, shape: Any, band: Any) -> None:
    """Add the gradients of all samples to the texels of a band of channels."""
    at_flat, at_start, at_steps = at
    level_flat, level_start, level_steps = level
    grad_flat, grad_start, grad_steps = grad
    exact, scale, real = at_flat.dtype.type, level_flat.dtype.type, flat.dtype.type
    height, width = shape
    for i in range(height * width):
        r = i // width
        q = i - r * width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y = split_core(at_flat[k], box[0], box[2], exact, real)
        x = split_core(at_flat[k + at_steps[2]], box[1], box[3], exact, real)
        wanted = level_flat[level_start + r * level_steps[0] + q * level_steps[1]]
        finer, share = level_core(wanted, table.size // COLUMNS, scale, real)
        weight = real(1) - share
        for read in range(finer, finer + 1 + (share > 0)):
            a, b, c, d, ty, tx = corners_cpu(table, read, y, x, real)
            for ch in range(band[0], band[1]):
                g = real(grad_flat[grad_start + ch * grad_steps[0] + r * grad_steps[1] + q * grad_steps[2]])
                upper, lower = weight * g * (real(1) - ty), weight * g * ty
                s = ch * table[read * COLUMNS + STEP_C]
                flat[a + s] += upper * (real(1) - tx)
                flat[b + s] += upper * tx
                flat[c + s] += lower * (real(1) - tx)
                flat[d + s] += lower * tx
            weight = share


@cuda_kernel(
    "void(float32[::1], int64[::1], float32[::1], int64, UniTuple(int64, 3), float32[::1], int64, UniTuple(int64, 2), "
    "float32[::1], int64, UniTuple(int64, 3), UniTuple(int64, 4), UniTuple(int64, 3))"
)
def _sample_scatter_cuda(
    flat: Any, table: Any, at: Any, at_start: Any, at_steps: Any, level: Any, level_start: Any, level_steps: Any,
    grad: Any, grad_start: Any, grad_steps: Any, box: Any, shape: Any,
) -> None:  # fmt: skip
    """Take one sample a thread."""
    i = cuda.grid(1)
    channels, height, width = shape
    exact, scale, real = at.dtype.type, level.dtype.type, flat.dtype.type
    if i < height * width:
        r = i // width
        q = i - r * width
        k = at_start + r * at_steps[0] + q * at_steps[1]
        y = split_core(at[k], box[0], box[2], exact, real)
        x = split_core(at[k + at_steps[2]], box[1], box[3], exact, real)
        wanted = level[level_start + r * level_steps[0] + q * level_steps[1]]
        finer, share = level_core(wanted, table.size // COLUMNS, scale, real)
        weight = real(1) - share
        for read in range(finer, finer + 1 + (share > 0)):
            a, b, c, d, ty, tx = corners_cuda(table, read, y, x, real)
            for ch in range(channels):
                g = real(grad[grad_start + ch * grad_steps[0] + r * grad_steps[1] + q * grad_steps[2]])
                upper, lower = weight * g * (real(1) - ty), weight * g * ty
                s = ch * table[read * COLUMNS + STEP_C]
                atomic_add(flat, a + s, upper * (real(1) - tx))
                atomic_add(flat, b + s, upper * tx)
                atomic_add(flat, c + s, lower * (real(1) - tx))
                atomic_add(flat, d + s, lower * tx)
            weight = share


def sample_slopes(
    grad: Array,
    levels: Sequence[Array],
    at_yx: Array,
    level: Array,
    *,
    origin_yx: tuple[int, int] = (0, 0),
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the gradients of `sample` to y, x and level of each sample.

    Parameters
    ----------
    grad : array of float32 or float64
        Gradient of what `sample` returned, in its shape; any strides.
    levels, at_yx, level, origin_yx
        What `sample` was called with; `level` is an array.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `(n, 3)` or `(h, w, 3)`, float64 for float64 levels and float32 for others.

    Raises
    ------
    ConfigError
        When arrays do not belong together or are not in one place.
    """
    here = place(
        "sample_slopes", backend=backend, stream=stream, threads=threads,
        **named_levels(levels), at_yx=at_yx, level=level, grad=grad,
    )  # fmt: skip
    table = level_table("sample_slopes", levels)
    at = positions("sample_slopes", at_yx)
    run = beside("sample_slopes", "level", level, at, here)
    grads = _grad_run("sample_slopes", grad, table, at)
    found = empty_like(at_yx, (*at.shape, 3), table.real)
    if at.size == 0:
        return found
    out, _, _ = flat_view(found, writable=True)
    rows = constant(here, table.rows)
    box = (int(origin_yx[0]), int(origin_yx[1]), *table.size_yx)
    if here.backend == "cuda":
        shape = (table.channels, *at.grid)
        blocks = -(-at.size // THREADS)
        here.launch(_sample_slopes_cuda, blocks, THREADS, table.flat, rows, *at.run, *run, *grads, box, shape, out)
        return found
    over_bands(
        lambda start, stop: _sample_slopes_cpu(
            table.flat, table.halves, rows, at.run, run, grads, box, (table.channels, at.grid[1]), (start, stop), out
        ),
        at.size, threads=here.threads, least=LEAST,
    )  # fmt: skip
    return found


def sample_scatter(
    grad: Array,
    out_levels: Sequence[Array],
    at_yx: Array,
    level: Array,
    *,
    origin_yx: tuple[int, int] = (0, 0),
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> None:
    """Add the gradients of `sample` to the texels.

    Parameters
    ----------
    grad : array of float32 or float64
        Gradient of what `sample` returned, in its shape; any strides.
    out_levels : sequence of array of float32 or float64
        In the shapes of the levels; what is there is added to.
    at_yx, level, origin_yx
        What `sample` was called with; `level` is an array.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; each takes channels of its own.

    Raises
    ------
    ConfigError
        When arrays do not belong together or are not in one place.
    """
    here = place(
        "sample_scatter", backend=backend, stream=stream, threads=threads,
        **named_levels(out_levels), at_yx=at_yx, level=level, grad=grad,
    )  # fmt: skip
    table = level_table("sample_scatter", out_levels, writable=True)
    need("sample_scatter", "out_levels[0]", out_levels[0], dtypes=("float32", "float64"))
    at = positions("sample_scatter", at_yx)
    run = beside("sample_scatter", "level", level, at, here)
    grads = _grad_run("sample_scatter", grad, table, at)
    if at.size == 0:
        return
    rows = constant(here, table.rows)
    box = (int(origin_yx[0]), int(origin_yx[1]), *table.size_yx)
    if here.backend == "cuda":
        shape = (table.channels, *at.grid)
        blocks = -(-at.size // THREADS)
        here.launch(_sample_scatter_cuda, blocks, THREADS, table.flat, rows, *at.run, *run, *grads, box, shape)
        return
    over_bands(
        lambda start, stop: _sample_scatter_cpu(table.flat, rows, at.run, run, grads, box, at.grid, (start, stop)),
        table.channels, threads=here.threads,
    )  # fmt: skip


def _grad_run(operation: str, grad: Array, table: LevelTable, at: Positions) -> Run:
    shape = (table.channels, *at.shape) if table.planes else at.shape
    need(operation, "grad", grad, dtypes=("float32", "float64"), shape=shape, empty=True)
    if 0 in shape:
        return None, 0, (0, 0, 0)
    flat, start, steps = flat_view(grad)
    rows = steps[-len(at.shape) :] if len(at.shape) == 2 else (0, steps[-1])
    return flat, start, (steps[0] if table.planes else 0, *rows)
