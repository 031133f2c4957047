"""Histograms of tiles of twice the size, by adding up those of the four tiles in each.

    coarser[…, i, j, b] = Σ_{k, l ∈ {0, 1}} finer[…, 2i + k, 2j + l, b]        over the tiles that exist

Counts add up, so the result is bit for bit that of a pass over the pixels, and the entropy of every level of a pyramid
of tiles is exact. Integers: tolerance of the tests is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

THREADS = 128
"""Of a block."""


@core
def _sum_core(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return the sum of the counts of four tiles; 0 stands for one that does not exist."""
    return np.int64(a) + np.int64(b) + np.int64(c) + np.int64(d)


@cpu_kernel
def _coarser_cpu(finer: Any, shape: Any, band: Any, most: int, out: Any) -> bool:
    """Write some rows of all grids; return whether every sum fits."""
    flat, start, steps = finer
    ny, nx, bins = shape
    rows = (ny + 1) // 2
    fits = True
    for row in range(band[0], band[1]):
        grid, i = row // rows, row % rows
        for j in range((nx + 1) // 2):
            at = start + grid * steps[0] + 2 * i * steps[1] + 2 * j * steps[2]
            has_below, has_right = 2 * i + 1 < ny, 2 * j + 1 < nx
            for b in range(bins):
                here = at + b * steps[3]
                right = np.int64(flat[here + steps[2]]) if has_right else 0
                below = np.int64(flat[here + steps[1]]) if has_below else 0
                both = np.int64(flat[here + steps[1] + steps[2]]) if has_right and has_below else 0
                total = _sum_core(flat[here], right, below, both)
                fits &= total <= most
                out[grid, i, j, b] = total
    return fits


@cuda_kernel(
    "void(uint32[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), uint32[::1])",
    "void(int64[::1], int64, UniTuple(int64, 4), UniTuple(int64, 4), int64[::1])",
)
def _coarser_cuda(flat: Any, start: Any, steps: Any, shape: Any, out: Any) -> None:
    """Write one sum a thread."""
    grids, ny, nx, bins = shape
    k = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    rows, columns = (ny + 1) // 2, (nx + 1) // 2
    if k >= grids * rows * columns * bins:
        return
    b, j = k % bins, k // bins % columns
    i, grid = k // (bins * columns) % rows, k // (bins * columns * rows)
    at = start + grid * steps[0] + 2 * i * steps[1] + 2 * j * steps[2] + b * steps[3]
    has_below, has_right = 2 * i + 1 < ny, 2 * j + 1 < nx
    right = np.int64(flat[at + steps[2]]) if has_right else 0
    below = np.int64(flat[at + steps[1]]) if has_below else 0
    both = np.int64(flat[at + steps[1] + steps[2]]) if has_right and has_below else 0
    out[k] = _sum_core(flat[at], right, below, both)


def coarser_histograms(
    histograms: Array,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the histograms of tiles of twice the size.

    Parameters
    ----------
    histograms : array of uint32 or int64
        `(ny, nx, bins)` or `(c, ny, nx, bins)`, as `tile_histograms` makes them, on the host or a device; any strides.
    out : array of the same type, optional
        `(⌈ny / 2⌉, ⌈nx / 2⌉, bins)`, or with `c` before it; contiguous, overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of the same type
        `out`, or a new array of the kind of `histograms`.

    Raises
    ------
    ConfigError
        When the type is another one, the shapes do not belong together or the arrays are not in one place; on the host
        also when a count is too large for uint32, which takes a tile of 65,536² px: convert to int64 before that level.
        A device does not look.
    """
    name = "coarser_histograms"
    here = place(name, backend=backend, stream=stream, threads=threads, histograms=histograms, out=out)
    need(name, "histograms", histograms, dtypes=("uint32", "int64"), ndim=(3, 4))
    *outer, ny, nx, bins = (int(n) for n in histograms.shape)
    shape = (*outer, (ny + 1) // 2, (nx + 1) // 2, bins)
    need(name, "out", out, dtypes=(dtype_of(histograms).name,), shape=shape, contiguous=True)
    found = empty_like(histograms, shape, dtype_of(histograms)) if out is None else out
    flat, start, steps = flat_view(histograms)
    finer = (flat, start, steps if outer else (0, *steps))
    grids = outer[0] if outer else 1
    if here.backend == "cuda":
        run, _, _ = flat_view(found, writable=True)
        here.launch(_coarser_cuda, -(-int(np.prod(shape)) // THREADS), THREADS, *finer, (grids, ny, nx, bins), run)
        return found
    most = int(np.iinfo(found.dtype).max)
    target = found.reshape(grids, *shape[-3:])
    fits = []

    def work(first: int, last: int) -> None:
        fits.append(_coarser_cpu(finer, (ny, nx, bins), (first, last), most, target))

    least = max(1, 2**16 // (bins * nx))
    over_bands(work, grids * shape[-3], threads=here.threads, least=least)
    if not all(fits):
        raise ConfigError.of(
            f"`histograms` of `{name}`", got="counts that add up to more than uint32 holds", expected="a wider type",
            do="Hand in histograms.astype(np.int64).",
        )  # fmt: skip
    return found
