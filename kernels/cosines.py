"""Cosine of many vectors with a few, from one pass over the many as they are stored.

    out[n, k] = Σ_d v[n, d] u[k, d] / √(Σ_d v[n, d]²);    0 where v[n] is all zeros, NaN where it is not finite

u are of length 1. Sums are float32, added in the order of the machine's vectors on the CPU and pairwise in CUDA; they
do not depend on the other rows. Tolerance of the tests: 1e-6 against float64. A million float16 vectors of 512 values
are 1 GB, which is what it takes: the memory is read once, at about the rate of a copy.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.language import core, cpu_sum_kernel, cuda, cuda_kernel, widened
from tilestream.kernels.place import Array, Place, dtype_of, empty_like, place
from tilestream.kernels.rows import flat_view

DTYPES = ("float16", "float32")
LANES = 32
"""Threads of a CUDA block, which owns a row."""


@core
def _cosines_core(dot: Any, square: Any) -> Any:
    """Return a cosine from its two sums."""
    return np.float32(0) if square == 0 else np.float32(dot / np.float32(sqrt(square)))


@cpu_sum_kernel
def _cosines_cpu(vectors: Any, start: Any, step: Any, units: Any, band: Any, out: Any) -> None:
    count, dim = units.shape
    for i in range(band[0], band[1]):
        row = vectors[start + i * step : start + i * step + dim]
        square = np.float32(0)
        for j in range(dim):
            value = widened(row[j])
            square += value * value
        for k in range(count):
            unit, dot = units[k], np.float32(0)
            for j in range(dim):
                dot += widened(row[j]) * unit[j]
            out[i, k] = _cosines_core(dot, square)


@cuda_kernel(
    "void(float16[::1], int64, UniTuple(int64, 2), float32[::1], UniTuple(int64, 2), float32[::1])",
    "void(float32[::1], int64, UniTuple(int64, 2), float32[::1], UniTuple(int64, 2), float32[::1])",
)
def _cosines_cuda(vectors: Any, start: Any, steps: Any, units: Any, shape: Any, out: Any) -> None:
    """Compare one row a block with all units."""
    dots = cuda.shared.array(LANES, np.float32)
    squares = cuda.shared.array(LANES, np.float32)
    count, dim = shape
    me, first = cuda.threadIdx.x, start + cuda.blockIdx.x * steps[0]
    for k in range(count):
        dot, square = np.float32(0), np.float32(0)
        for j in range(me, dim, LANES):
            value = np.float32(vectors[first + j * steps[1]])
            dot += value * units[k * dim + j]
            square += value * value
        dots[me], squares[me] = dot, square
        cuda.syncthreads()
        half = LANES // 2
        while half:
            if me < half:
                dots[me] += dots[me + half]
                squares[me] += squares[me + half]
            cuda.syncthreads()
            half //= 2
        if me == 0:
            out[cuda.blockIdx.x * count + k] = _cosines_core(dots[0], squares[0])
        cuda.syncthreads()


def cosines(
    vectors: Array,
    units: Array,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the cosine of each of many vectors with each of a few.

    Parameters
    ----------
    vectors : array of float16 or float32
        `(n, d)` of any length, on the host or a device; any strides.
    units : array of float32
        `(k, d)` of length 1, contiguous.
    out : array of float32, optional
        `(n, k)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float32
        `(n, k)` in -1 to 1 but for a rounding error: `out`, or a new array of the kind of `vectors`. 0 for a vector of
        zeros, NaN for one that is not finite.

    Raises
    ------
    ConfigError
        When type or shapes do not fit together, or the arrays are not in one place.
    """
    name = "cosines"
    here = place(name, backend=backend, stream=stream, threads=threads, vectors=vectors, units=units, out=out)
    need(name, "vectors", vectors, dtypes=DTYPES, ndim=2, empty=True)
    n, dim = vectors.shape
    need(name, "units", units, dtypes=("float32",), ndim=2, contiguous=True)
    count = units.shape[0]
    need(name, "units", units, dtypes=("float32",), shape=(count, dim))
    need(name, "out", out, dtypes=("float32",), shape=(n, count), contiguous=True)
    found = empty_like(vectors, (n, count), np.float32) if out is None else out
    if n:
        _compare(here, vectors, units, found)
    return found


def _compare(here: Place, vectors: Array, units: Array, out: Array) -> None:
    n, dim = vectors.shape
    if here.backend == "cuda":
        flat, start, steps = flat_view(vectors)
        run, _, _ = flat_view(out, writable=True)
        here.launch(_cosines_cuda, n, LANES, flat, start, steps, flat_view(units)[0], tuple(units.shape), run)
        return
    native = dtype_of(vectors).newbyteorder("=")
    rows = np.asarray(vectors)
    if rows.dtype != native or (dim > 1 and rows.strides[1] != rows.itemsize):
        rows = np.ascontiguousarray(rows, native)
    if native == np.float16:
        rows = rows.view(np.uint16)  # Numba has no arithmetic on float16, see `widened`
    flat, start, steps = flat_view(rows)
    over_bands(
        lambda first, stop: _cosines_cpu(flat, start, steps[0], units, (first, stop), out),
        n, threads=here.threads, least=max(1, 2**16 // dim),
    )  # fmt: skip
