"""How much of each tile a mask covers, exactly.

Tile j of an axis covers [origin + j·step, origin + j·step + size) in mask pixels, rational numbers; what lies outside
the image, which may end within the last mask pixel, does not count. In units of 1/q, q the common denominator, tiles
and pixels both begin at integers:

    w(j, i) = overlap of pixel i with tile j, an integer from 0 to q
    covered = Σ_y Σ_x w_y w_x mask,  whole = Σ_y Σ_x w_y w_x,  share = covered / whole

This is what `tilestream.plan.selection.tile_shares` measures: the share of the part of a tile that lies inside.
Integers in int64, the same for any number of threads and on CUDA: tolerance of the tests is 0 for areas; a share is
their quotient in float64, rounded to float32, and 0 for a tile with nothing inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import SIMULATED, core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.pixelwise import batch_view
from tilestream.kernels.place import Array, Place, empty_like, place
from tilestream.kernels.rows import flat_view

Length = int | Fraction
"""In mask pixels, exactly; `Fraction` takes floats and decimal texts too."""

MOST = 2**62
"""Areas and positions stay below it, in units of 1/q."""
THREADS = 128
LEAST_PX = 2**18
"""Fewest mask pixels that are worth a band of tiles."""


@core
def _span_core(axis: Any, j: Any) -> Any:
    """Return low and high end of a tile inside the mask in units of 1/q, and the pixels it touches."""
    origin, step, size, q, end, _ = axis
    low = min(max(origin + j * step, 0), end)
    high = min(max(origin + j * step + size, 0), end)
    return low, high, low // q, -((-high) // q)


@core
def _overlap_core(low: Any, high: Any, q: Any, i: Any) -> Any:
    return max(min(high, (i + 1) * q) - max(low, i * q), 0)


@cpu_kernel
def _count_cpu(run: Any) -> Any:
    """Return how many samples that lie side by side are set; chunks keep the sums of a vector in 32 bits."""
    total = np.int64(0)
    for start in range(0, run.shape[0], 2**20):
        part, count = run[start : start + 2**20], np.int32(0)
        for k in range(part.shape[0]):
            count = np.int32(count + part[k])
        total += count
    return total


@cpu_kernel
def _row_cpu(line: Any, axis: Any, weight: int, out: Any) -> None:
    """Add a row of the mask to every tile of a row of tiles."""
    for j in range(out.shape[0]):
        low, high, first, stop = _span_core(axis, j)
        if first >= stop:
            continue
        q = axis[3]
        total = _overlap_core(low, high, q, first) * line[first]
        if stop - first > 1:
            total += _overlap_core(low, high, q, stop - 1) * line[stop - 1]
            total += q * _count_cpu(line[first + 1 : stop - 1])
        out[j] += weight * total


@cpu_kernel
def _covered_cpu(source: Any, axes: Any, scratch: Any, band: Any, out: Any) -> None:
    flat, start, steps = source
    axis_y, axis_x = axes
    tiles_y = out.shape[1]
    for row in range(band[0], band[1]):
        i, j = row // tiles_y, row % tiles_y
        low, high, first, stop = _span_core(axis_y, j)
        out[i, j] = 0
        for y in range(first, stop):
            at = start + i * steps[0] + y * steps[1]
            line = scratch
            if steps[2] == 1:
                line = flat[at : at + axis_x[5]]
            else:
                for x in range(axis_x[5]):
                    scratch[x] = flat[at + x * steps[2]]
            _row_cpu(line, axis_x, _overlap_core(low, high, axis_y[3], y), out[i, j])


@cuda_kernel(
    "void(uint8[::1], int64, UniTuple(int64, 3), UniTuple(int64, 6), UniTuple(int64, 6), UniTuple(int64, 2), "
    "int64[::1])"
)
def _covered_cuda(flat: Any, start: Any, steps: Any, axis_y: Any, axis_x: Any, tiles: Any, out: Any) -> None:
    """Add up one tile a block."""
    parts = cuda.shared.array(THREADS, np.int64)
    me = cuda.threadIdx.x
    tile = np.int64(cuda.blockIdx.x)
    jx, row = tile % tiles[1], tile // tiles[1]
    jy, i = row % tiles[0], row // tiles[0]
    low_y, high_y, first_y, stop_y = _span_core(axis_y, jy)
    low_x, high_x, first_x, stop_x = _span_core(axis_x, jx)
    width, total = max(stop_x - first_x, 1), np.int64(0)
    for k in range(me, max(stop_y - first_y, 0) * max(stop_x - first_x, 0), cuda.blockDim.x):
        y, x = first_y + k // width, first_x + k % width
        if flat[start + i * steps[0] + y * steps[1] + x * steps[2]] != 0:
            total += _overlap_core(low_y, high_y, axis_y[3], y) * _overlap_core(low_x, high_x, axis_x[3], x)
    parts[me] = total
    cuda.syncthreads()
    if me == 0:
        for k in range(1, cuda.blockDim.x):
            total += parts[k]
        out[tile] = total


@cuda_kernel(
    "void(int64[::1], UniTuple(int64, 6), UniTuple(int64, 6), UniTuple(int64, 2), float32[::1])",
    hot=False,  # once a tile
)
def _share_cuda(covered: Any, axis_y: Any, axis_x: Any, tiles: Any, out: Any) -> None:
    tile = cuda.blockIdx.x * np.int64(cuda.blockDim.x) + cuda.threadIdx.x
    if tile >= out.shape[0]:
        return
    jx, jy = tile % tiles[1], (tile // tiles[1]) % tiles[0]
    low_y, high_y, _, _ = _span_core(axis_y, jy)
    low_x, high_x, _, _ = _span_core(axis_x, jx)
    whole = (high_y - low_y) * (high_x - low_x)
    out[tile] = np.float64(covered[tile]) / np.float64(whole) if whole > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class TileAxis:
    """Where tiles lie along one axis of a mask; lengths in mask pixels, exactly."""

    size: Length
    """Of a tile."""
    step: Length | None = None
    """From one tile to the next; None for the size."""
    origin: Length = 0
    """Where the first tile begins; may be negative."""
    end: Length | None = None
    """Where the image ends, at most at the end of the mask; None for there."""
    n: int | None = None
    """How many tiles; None for as many as begin before the end."""

    def numbers(self, length_px: int) -> tuple[tuple[int, int, int, int, int, int], int]:
        """Return what the kernels need: origin, step, size, q, end in units of 1/q and the length; and how many tiles.

        Parameters
        ----------
        length_px : int
            Of the mask.

        Raises
        ------
        ConfigError
            When the lengths make no sense or are too long for 64 bits.
        """
        size, origin = Fraction(self.size), Fraction(self.origin)
        step = size if self.step is None else Fraction(self.step)
        end = Fraction(length_px if self.end is None else self.end)
        if size <= 0 or step <= 0 or not 0 < end <= length_px or (self.n is not None and self.n < 0):
            raise ConfigError.of(
                "`TileAxis` of `coverage`",
                got=f"{self} for {length_px} mask pixels",
                expected="a size and a step above 0, and an end inside the mask",
                do="Correct the number.",
            )
        n = max(0, math.ceil((end - origin) / step)) if self.n is None else self.n
        q = math.lcm(size.denominator, step.denominator, origin.denominator, end.denominator)
        if (abs(origin) + n * step + size + length_px) * q >= MOST:
            raise ConfigError.of(
                "`TileAxis` of `coverage`",
                got=f"{self}, whose common denominator is {q}",
                expected="positions of at most 62 bits",
                do="Round the lengths: Fraction(length).limit_denominator(10**6).",
            )
        return (int(origin * q), int(step * q), int(size * q), q, int(end * q), length_px), n


def coverage(
    mask: Array,
    tiles_yx: tuple[TileAxis, TileAxis],
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the share of each tile's part inside the image that a mask covers.

    Parameters
    ----------
    mask : array of bool
        `(y, x)` or `(n, y, x)`, on the host or a device; any strides.
    tiles_yx : (TileAxis, TileAxis)
        Where the tiles lie.
    out : array of float32, optional
        `(ty, tx)` or `(n, ty, tx)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        0 to 1, 0 for a tile outside the image: `out`, or a new array of the kind of `mask`.

    Raises
    ------
    ConfigError
        When the mask is no mask, or sizes make no sense or are too long for 64 bits.
    """
    name = "coverage"
    here = place(name, backend=backend, stream=stream, threads=threads, mask=mask, out=out)
    axes, shape = _grid(name, mask, tiles_yx)
    need(name, "out", out, dtypes=("float32",), shape=shape, contiguous=True, empty=True)
    areas = empty_like(mask, shape, np.int64)
    _cover(here, mask, axes, areas)
    found = empty_like(mask, shape, np.float32) if out is None else out
    if 0 in shape:
        return found
    if here.backend == "cuda":
        n = math.prod(shape)
        runs = flat_view(areas)[0], flat_view(found, writable=True)[0]
        here.launch(_share_cuda, -(-n // THREADS), min(THREADS, n), runs[0], *axes, tuple(shape[-2:]), runs[1])
        return found
    inside_y, inside_x = (_inside(axis, n) for axis, n in zip(axes, shape[-2:], strict=True))
    whole = inside_y[:, None] * inside_x
    found[...] = 0
    np.divide(areas, whole, out=found, where=whole > 0, casting="unsafe")
    return found


def covered_area(
    mask: Array,
    tiles_yx: tuple[TileAxis, TileAxis],
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> tuple[Array, Fraction]:
    """Return how much of each tile a mask covers, exactly.

    Parameters
    ----------
    mask : array of bool
        `(y, x)` or `(n, y, x)`, on the host or a device; any strides.
    tiles_yx : (TileAxis, TileAxis)
        Where the tiles lie.
    out : array of int64, optional
        `(ty, tx)` or `(n, ty, tx)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    areas : array of int64
        `out`, or a new array of the kind of `mask`.
    unit : Fraction
        What 1 is in `areas`, in mask pixels: 1 for whole numbers of pixels, so that areas are counts.

    Raises
    ------
    ConfigError
        When the mask is no mask, or sizes make no sense or are too long for 64 bits.
    """
    name = "covered_area"
    here = place(name, backend=backend, stream=stream, threads=threads, mask=mask, out=out)
    axes, shape = _grid(name, mask, tiles_yx)
    need(name, "out", out, dtypes=("int64",), shape=shape, contiguous=True, empty=True)
    areas = empty_like(mask, shape, np.int64) if out is None else out
    _cover(here, mask, axes, areas)
    return areas, Fraction(1, axes[0][3] * axes[1][3])


Axes = tuple[tuple[int, int, int, int, int, int], tuple[int, int, int, int, int, int]]


def _grid(name: str, mask: Array, tiles_yx: Sequence[TileAxis]) -> tuple[Axes, tuple[int, ...]]:
    need(name, "mask", mask, dtypes=("bool",), ndim=(2, 3))
    *lead, height, width = (int(v) for v in mask.shape)
    given: Any = tiles_yx
    if not isinstance(given, (tuple, list)) or [type(each) for each in given] != [TileAxis, TileAxis]:
        raise ConfigError.of(f"`tiles_yx` of `{name}`", got=repr(given), expected="two of TileAxis", do="Give y and x.")
    (axis_y, tiles_y), (axis_x, tiles_x) = tiles_yx[0].numbers(height), tiles_yx[1].numbers(width)
    if height * axis_y[3] * width * axis_x[3] >= MOST:
        raise ConfigError.of(
            f"`tiles_yx` of `{name}`",
            got=f"denominators of {axis_y[3]} and {axis_x[3]} for {height} x {width} px",
            expected="areas of at most 62 bits",
            do="Round the lengths: Fraction(length).limit_denominator(10**6).",
        )
    return (axis_y, axis_x), (*lead, tiles_y, tiles_x)


def _inside(axis: tuple[int, int, int, int, int, int], n: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the length of each tile inside the image in units of 1/q."""
    origin, step, size, _, end, _ = axis
    low = origin + step * np.arange(n, dtype=np.int64)
    return np.asarray((low + size).clip(0, end) - low.clip(0, end), np.int64)


def _cover(here: Place, mask: Array, axes: Axes, areas: Array) -> None:
    shape = tuple(int(v) for v in areas.shape)
    if 0 in shape:
        return
    n, tiles = (1 if len(shape) == 2 else shape[0]), shape[-2:]
    source = batch_view(mask, 3)
    if here.backend == "cuda":
        most = math.prod(axis[2] // axis[3] + 2 for axis in axes)  # pixels of a tile
        threads = min(THREADS, -(-most // 32) * 32) if not SIMULATED else min(8, most)
        run = flat_view(areas, writable=True)[0]
        here.launch(_covered_cuda, math.prod(shape), threads, *source, *axes, tiles, run)
        return
    target = areas.reshape(n, *tiles)
    a_row = max(1, axes[0][2] // axes[0][3]) * axes[1][5]
    over_bands(
        lambda a, b: _covered_cpu(source, axes, np.empty(axes[1][5], np.uint8), (a, b), target),
        n * tiles[0], threads=here.threads, least=max(1, LEAST_PX // a_row),
    )  # fmt: skip
