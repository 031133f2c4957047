"""The way back from a log-polar view to an image, for display.

The centre of output pixel (j, i) is at (y, x) = first + (j + 1/2, i + 1/2)·step px of level 0; with (ρ, θ) around the
centre,

    value = bilinear at ring (R − 1)·ln(ρ/e_min)/ln(e_max/e_min) and direction T·θ/2π

Directions go round, rings inside the first and outside the last are those; what is farther out than the last ring by
more than half a ring is `fill`. Tolerance of the tests: 1e-4 (float32) and 1e-9 (float64) of the range of the rings,
against NumPy in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, number_of, numbers_of, whole_pair
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel, floor
from tilestream.kernels.logpolar import check_rings
from tilestream.kernels.place import Array, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.texel import mix_core

THREADS = 128
LEAST_PX = 2**12
_TURN = 2 * math.pi


@core
def _polar_core(dy: Any, dx: Any, first: Any, per_ring: Any, rings: Any, turns: Any, real: Any) -> Any:
    """Ring and the next, direction and the next, the weights of the next ones, and whether that is outside."""
    squared = max(dy * dy + dx * dx, real(1e-30))
    ring = (real(0.5) * real(math.log(squared)) - first) * per_ring
    outside = ring > real(rings) - real(0.5)
    ring = min(max(ring, real(0)), real(rings - 1))
    turn = real(math.atan2(dy, dx)) * real(1 / _TURN) * real(turns)
    if turn < real(0):
        turn += real(turns)
    near_ring, near_turn = floor(ring), floor(turn)
    i, j = np.int64(near_ring), np.int64(near_turn)
    return i, min(i + 1, rings - 1), j % turns, (j + 1) % turns, ring - near_ring, turn - near_turn, outside


@cpu_kernel
def _unpolar_cpu(rings: Any, where: Any, polar: Any, shape: Any, band: Any, out: Any) -> None:
    flat, start, steps = rings
    run, run_start, run_steps = out
    real = run.dtype.type
    channels, width, n_rho, n_theta = shape
    for r in range(band[0], band[1]):
        for q in range(width):
            dy, dx = real(where[0] + r * where[2]), real(where[1] + q * where[2])
            i0, i1, j0, j1, ti, tj, outside = _polar_core(dy, dx, real(polar[0]), real(polar[1]), n_rho, n_theta, real)
            for ch in range(channels):
                k = start + ch * steps[0]
                value = mix_core(
                    real(flat[k + i0 * steps[1] + j0 * steps[2]]), real(flat[k + i0 * steps[1] + j1 * steps[2]]),
                    real(flat[k + i1 * steps[1] + j0 * steps[2]]), real(flat[k + i1 * steps[1] + j1 * steps[2]]),
                    ti, tj,
                )  # fmt: skip
                run[run_start + ch * run_steps[0] + r * run_steps[1] + q * run_steps[2]] = (
                    real(polar[2]) if outside else value
                )


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 3), UniTuple(float32, 3), UniTuple(float32, 3), UniTuple(int64, 5), "
    "float32[::1], int64, UniTuple(int64, 3))"
)
def _unpolar_cuda(
    flat: Any, start: Any, steps: Any, where: Any, polar: Any, shape: Any, run: Any, run_start: Any, run_steps: Any
) -> None:
    """Take one pixel a thread."""
    n = cuda.grid(1)
    real = run.dtype.type
    channels, height, width, n_rho, n_theta = shape
    if n < height * width:
        r = n // width
        q = n - r * width
        dy, dx = real(where[0]) + real(r) * real(where[2]), real(where[1]) + real(q) * real(where[2])
        i0, i1, j0, j1, ti, tj, outside = _polar_core(dy, dx, real(polar[0]), real(polar[1]), n_rho, n_theta, real)
        for ch in range(channels):
            k = start + ch * steps[0]
            value = mix_core(
                real(flat[k + i0 * steps[1] + j0 * steps[2]]), real(flat[k + i0 * steps[1] + j1 * steps[2]]),
                real(flat[k + i1 * steps[1] + j0 * steps[2]]), real(flat[k + i1 * steps[1] + j1 * steps[2]]), ti, tj,
            )  # fmt: skip
            run[run_start + ch * run_steps[0] + r * run_steps[1] + q * run_steps[2]] = (
                real(polar[2]) if outside else value
            )


def unpolar(
    rings: Array,
    centre_yx: tuple[float, float],
    *,
    e_min_px: float,
    e_max_px: float,
    shape_px: tuple[int, int],
    first_yx: tuple[float, float] = (0.0, 0.0),
    step_px: float = 1.0,
    fill: float = 0.0,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return an image of what a log-polar view holds.

    Parameters
    ----------
    rings : array of float32 or float64
        `(c, n_rho, n_theta)` or `(n_rho, n_theta)`, as `logpolar` returned it.
    centre_yx, e_min_px, e_max_px
        What `logpolar` was called with.
    shape_px : tuple of int
        Height and width of the image.
    first_yx : tuple of float
        Where the upper left corner of the image lies, px of level 0.
    step_px : float
        Px of level 0 that a pixel of the image is long.
    fill : float
        What is outside the last ring.
    out : array, optional
        `(c, height, width)`, without c for rings without, in the type of `rings`; any strides; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array
        `out`, or a new array of the kind of `rings`.

    Raises
    ------
    ConfigError
        When `rings` is no such view, or the image has no pixel.
    """
    here = place("unpolar", backend=backend, stream=stream, threads=threads, rings=rings, out=out)
    shape_px, first = whole_pair("unpolar", "shape_px", shape_px), numbers_of("unpolar", "first_yx", first_yx, 2)
    first_yx = first[0], first[1]
    step_px = number_of("unpolar", "step_px", step_px)
    given: Any = fill
    if not isinstance(given, (int, float, np.number)) or 1e38 < abs(float(given)) < math.inf:
        raise ConfigError.of("`fill` of `unpolar`", got=repr(fill), expected="a number of float32", do="Use 0.")
    need("unpolar", "rings", rings, dtypes=("float32", "float64"), ndim=(2, 3))
    *planes, n_rho, n_theta = (int(n) for n in rings.shape)
    check_rings("unpolar", centre_yx, e_min_px, e_max_px, n_rho, n_theta)
    if min(shape_px) < 1 or not (math.isfinite(step_px) and step_px > 0 and all(map(math.isfinite, first_yx))):
        raise ConfigError.of(
            "`shape_px`, `first_yx`, `step_px` of `unpolar`", got=f"{shape_px}, {first_yx}, {step_px}",
            expected="an image with pixels, at a finite place", do="Change them.",
        )  # fmt: skip
    height, width = (int(n) for n in shape_px)
    dtype = dtype_of(rings)
    need("unpolar", "out", out, dtypes=(dtype.name,), shape=(*planes, height, width))
    found = empty_like(rings, (*planes, height, width), dtype) if out is None else out
    flat, start, steps = flat_view(rings)
    run, run_start, run_steps = flat_view(found, writable=True)
    steps, run_steps = (0,) * (3 - len(steps)) + steps, (0,) * (3 - len(run_steps)) + run_steps
    real = dtype.type
    where = (*(real(a + step_px / 2 - c) for a, c in zip(first_yx, centre_yx, strict=True)), real(step_px))
    polar = (real(math.log(e_min_px)), real((n_rho - 1) / math.log(e_max_px / e_min_px)), real(fill))
    channels = planes[0] if planes else 1
    if here.backend == "cuda":
        shape = (channels, height, width, n_rho, n_theta)
        blocks = -(-height * width // THREADS)
        here.launch(
            _unpolar_cuda, blocks, THREADS, flat, start, steps, where, polar, shape, run, run_start, run_steps
        )  # fmt: skip
        return found
    shape_cpu = (channels, width, n_rho, n_theta)
    over_bands(
        lambda a, b: _unpolar_cpu(
            (flat, start, steps), where, polar, shape_cpu, (a, b), (run, run_start, run_steps)
        ),
        height, threads=here.threads, least=max(1, LEAST_PX // width),
    )  # fmt: skip
    return found
