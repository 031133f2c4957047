"""Levels that fall off around where one looks, as fields and as gains for the allocator.

    e(p) = min over fixations |p - fixation|          L(e) = clamp(log2(1 + e / e0), 0, Lmax)

all in level-0 pixels; e0 is the radius of the fovea: at e = e0 detail is halved. This is the inverse-linear law of
cortical magnification 1/M = (1/M0)(1 + e/E2) (Levi et al. 1985; Strasburger et al. 2011), as L = log2(M(0)/M(e)).
Hysteresis against jitter of the gaze: where L is within 0.25 of the level before, that one is kept.

Gain of splitting a tree node of level l, e being that of its point nearest to a fixation:

    gain = 2^l / (1 + e / e0) = 2^(l - L)

what its texels are coarser than L asks for. A parent's gain is at least twice that of its children, so cutting at λ
splits exactly the nodes with L < l - log2 λ: the foveated tree, e0 and Lmax scaled to fit the budget.

float32; distances keep 24 bits, so images of more than 16 million pixels across are off by a pixel or two. Tolerance of
the tests 2e-6 relative to 1 + |L| for levels and 1e-6 relative for gains, which agree bit for bit on CPU and CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, need_kind, number_of, whole, whole_pair
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel, fma
from tilestream.kernels.place import Array, Place, empty_like, place
from tilestream.kernels.rows import flat_view

MAX_NUMBER = 1e30
"""Parameters are below it, so that float32 holds what is made of them."""

HYSTERESIS = 0.25
"""In levels."""
THREADS = 128
_LEAST_ROWS = 16


@core
def _away_core(low: Any, high: Any, at: Any) -> Any:
    """Return how far a coordinate is outside of an interval."""
    return max(max(low - at, at - high), np.float32(0))


@core
def _nearer_core(square: Any, y: Any, x: Any, extent: Any, fixation_y: Any, fixation_x: Any) -> Any:
    """Return the lesser of a squared distance and that of one more fixation to a square with its corner at y, x."""
    dy = _away_core(y, y + extent, fixation_y)
    dx = _away_core(x, x + extent, fixation_x)
    return min(square, fma(dy, dy, dx * dx))


@core
def _level_core(square: Any, e0: Any, most: Any) -> Any:
    """Return L at a squared eccentricity."""
    return min(np.float32(math.log2(np.float32(1) + np.float32(math.sqrt(square)) / e0)), most)


@core
def _gain_core(square: Any, e0: Any, scale: Any) -> Any:
    """Return the gain of a node at a squared eccentricity; scale is 2^l."""
    return scale / (np.float32(1) + np.float32(math.sqrt(square)) / e0)


@core
def _steady_core(level: Any, before: Any, hysteresis: Any) -> Any:
    """Return the level before where the new one is no more than the hysteresis away from it."""
    return before if abs(level - before) <= hysteresis else level


@cpu_kernel
def _fovea_cpu(points: Any, grid: Any, law: Any, previous: Any, band: Any, out: Any) -> None:
    fixations, fix_start, fix_steps = points
    count, width, offset, step, extent = grid
    e0, most, hysteresis, is_gain, steady = law
    before, before_start, before_steps = previous
    flat, start, steps = out
    for i in range(band[0], band[1]):
        y = (np.float32(i) + offset) * step
        for j in range(width):
            x = (np.float32(j) + offset) * step
            square = np.float32(np.inf)
            for k in range(count):
                at = fix_start + k * fix_steps[0]
                square = _nearer_core(square, y, x, extent, fixations[at], fixations[at + fix_steps[1]])
            value = _gain_core(square, e0, most) if is_gain else _level_core(square, e0, most)
            if steady:
                value = _steady_core(
                    value, before[before_start + i * before_steps[0] + j * before_steps[1]], hysteresis
                )
            flat[start + i * steps[0] + j * steps[1]] = value


@cuda_kernel(
    "void(float32[::1], int64, UniTuple(int64, 2), int64, UniTuple(int64, 2), UniTuple(float32, 6), boolean, boolean, "
    "float32[::1], int64, UniTuple(int64, 2), float32[::1], int64, UniTuple(int64, 2))"
)
def _fovea_cuda(
    fixations: Any, fix_start: Any, fix_steps: Any, count: Any, shape: Any, law: Any, is_gain: Any, steady: Any,
    before: Any, before_start: Any, before_steps: Any, flat: Any, start: Any, steps: Any,
) -> None:  # fmt: skip
    """Compute one cell a thread."""
    me = cuda.blockIdx.x * np.int64(THREADS) + cuda.threadIdx.x
    if me >= shape[0] * shape[1]:
        return
    i, j = me // shape[1], me % shape[1]
    offset, step, extent, e0, most, hysteresis = law
    y, x = (np.float32(i) + offset) * step, (np.float32(j) + offset) * step
    square = np.float32(np.inf)
    for k in range(count):
        at = fix_start + k * fix_steps[0]
        square = _nearer_core(square, y, x, extent, fixations[at], fixations[at + fix_steps[1]])
    value = _gain_core(square, e0, most) if is_gain else _level_core(square, e0, most)
    if steady:
        value = _steady_core(value, before[before_start + i * before_steps[0] + j * before_steps[1]], hysteresis)
    flat[start + i * steps[0] + j * steps[1]] = value


def fovea_levels(
    fixations: Array,
    shape: tuple[int, int],
    *,
    e0_px: float,
    max_level: float,
    step_px: float = 1.0,
    previous: Array | None = None,
    hysteresis: float = HYSTERESIS,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the level that each cell of a grid over the image asks for.

    Parameters
    ----------
    fixations : array of float32
        `(n, 2)`: y, x in level-0 pixels, inside or outside of the image; finite.
    shape : tuple of int
        Rows and columns of the grid.
    e0_px : float
        Radius of the fovea: eccentricity at which the level is 1.
    max_level : float
        Highest level.
    step_px : float
        Edge of a cell; levels are those of the centres.
    previous : array of float32, optional
        `(h, w)` levels of before, kept where the new ones are no more than `hysteresis` away.
    hysteresis : float
        In levels.
    out : array of float32, optional
        `(h, w)`, any strides; may be `previous`.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(h, w)`, from 0 to `max_level`.

    Raises
    ------
    ConfigError
        When an array is not as described, or a number is not positive.
    """
    where = place(
        "fovea_levels", backend=backend, stream=stream, threads=threads, fixations=fixations, previous=previous, out=out
    )
    _check("fovea_levels", fixations, e0_px=e0_px, max_level=max_level, step_px=step_px)
    if not 0 <= number_of("fovea_levels", "hysteresis", hysteresis) < MAX_NUMBER:
        raise ConfigError.of("`hysteresis`", got=hysteresis, expected="0 or more levels", do="Use 0 to turn it off.")
    rows, columns = _grid("fovea_levels", shape)
    need("fovea_levels", "previous", previous, dtypes=("float32",), shape=(rows, columns))
    need("fovea_levels", "out", out, dtypes=("float32",), shape=(rows, columns))
    result = empty_like(fixations, (rows, columns), np.float32) if out is None else out
    law = (0.5, step_px, 0.0, e0_px, max_level, hysteresis)
    _run(where, fixations, law, previous, result, is_gain=False)
    return result


def fovea_gains(
    fixations: Array,
    leaf_grid: tuple[int, int],
    *,
    e0_px: float,
    leaf_px: float,
    levels: int,
    out: Sequence[Array] | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> list[Array]:
    """Return gains with which `allocate` cuts a quadtree around fixations, finest first.

    Parameters
    ----------
    fixations : array of float32
        `(n, 2)`: y, x in level-0 pixels; finite.
    leaf_grid : tuple of int
        Rows and columns of the finest nodes.
    e0_px : float
        Radius of the fovea.
    leaf_px : float
        Edge of a finest node in level-0 pixels.
    levels : int
        Of nodes that can be split, at least 1; the coarsest are the roots.
    out : sequence of array of float32, optional
        One a level, any strides.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    list of array of float32
        `(h, w)` each: `gains` of `allocate`, to be called with the same `leaf_grid` and `leaf_px`. Multiply a relevance
        in to combine both.

    Raises
    ------
    ConfigError
        When an array is not as described, or a number is not positive.
    """
    if out is not None and not isinstance(out, (list, tuple)):
        got = type(out).__name__
        raise ConfigError.of("`out` of `fovea_gains`", got=got, expected="a list of arrays", do="One a level.")
    for i, array in enumerate(out or ()):
        need_kind("fovea_gains", f"out[{i}]", array, object if array is not None else np.ndarray, do="One a level.")
    named = {f"out[{i}]": array for i, array in enumerate(out or ())}
    where = place("fovea_gains", backend=backend, stream=stream, threads=threads, fixations=fixations, **named)
    _check("fovea_gains", fixations, e0_px=e0_px, leaf_px=leaf_px, levels=levels)
    levels = whole("fovea_gains", "levels", levels, least=1, most=62)
    shape = _grid("fovea_gains", leaf_grid)
    if out is not None and len(out) != levels:
        raise ConfigError.of(
            "`out` of `fovea_gains`", got=f"{len(out)} arrays", expected=f"{levels}", do="One a level."
        )
    found = []
    for level in range(1, levels + 1):
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
        need("fovea_gains", f"out[{level - 1}]", named.get(f"out[{level - 1}]"), dtypes=("float32",), shape=shape)
        result = empty_like(fixations, shape, np.float32) if out is None else out[level - 1]
        edge_px = float(leaf_px) * 2**level
        _run(where, fixations, (0.0, edge_px, edge_px, e0_px, 2.0**level, 0.0), None, result, is_gain=True)
        found.append(result)
    return found


def _run(
    where: Place, fixations: Array, law: tuple[float, ...], previous: Array | None, out: Array, *, is_gain: bool
) -> None:
    """Fill a grid; law = offset of points in cells, step, extent of a cell, e0, highest level or scale, hysteresis."""
    rows, columns = (int(n) for n in out.shape)
    points, before = flat_view(fixations), flat_view(out if previous is None else previous)
    target = flat_view(out, writable=True)
    count, steady = int(fixations.shape[0]), previous is not None
    law32: Any = tuple(np.float32(number) for number in law)
    if where.backend == "cuda":
        blocks = -(-rows * columns // THREADS)
        where.launch(
            _fovea_cuda, blocks, min(THREADS, rows * columns), *points, count, (rows, columns), law32, is_gain, steady,
            *before, *target,
        )  # fmt: skip
        return
    offset, step, extent, e0, most, hysteresis = law32
    over_bands(
        lambda first, stop: _fovea_cpu(
            points, (count, columns, offset, step, extent), (e0, most, hysteresis, is_gain, steady), before,
            (first, stop), target,
        ),
        rows, threads=where.threads, least=_LEAST_ROWS,
    )  # fmt: skip


def _check(operation: str, fixations: Array, **numbers: float) -> None:
    need(operation, "fixations", fixations, dtypes=("float32",), ndim=2, finite=True)
    if int(fixations.shape[1]) != 2:
        raise ConfigError.of(
            f"`fixations` of `{operation}`", got=f"shape {tuple(fixations.shape)}", expected="(n, 2): y, x",
            do="Put one fixation in a row.",
        )  # fmt: skip
    for name, number in numbers.items():
        if not 0 < number_of(operation, name, number) < MAX_NUMBER:
            raise ConfigError.of(
                f"`{name}` of `{operation}`",
                got=number,
                expected=f"a number above 0 and below {MAX_NUMBER:g}",
                do="Correct it.",
            )


def _grid(operation: str, shape: tuple[int, ...]) -> tuple[int, int]:
    name = "shape" if operation == "fovea_levels" else "leaf_grid"
    return whole_pair(operation, name, shape, least=1)
