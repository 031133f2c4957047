"""Shannon entropy of histograms, as a share of what their bins could hold.

    H = (log2 n − (1/n) Σ_b c_b log2 c_b) / log2 B,    0 ≤ H ≤ 1

with c_b pixels in bin b of B bins over n pixels; the counts are first joined into B equal bins. Float64 everywhere,
summed in the order of the bins, one histogram after the other, so the result does not depend on how many are handed in
nor on threads. Tolerance of the tests: 1e-12 against the textbook form −Σ p log2 p, on every backend. Shannon, Bell
System Technical Journal 27, 1948. `tilestream.kernels.tile_entropy` goes from pixels to entropy in one pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need, whole
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

BINS = 32
"""Bins of the entropy raster: with 256, a tile of 64² pixels has too few pixels a bin to tell noise from texture."""

COUNTS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
"""Types of counts on the host."""
DEVICE_COUNTS = ("uint32", "int32", "int64")
"""Types of counts on a device."""

THREADS = 64
"""Of a block; a thread takes a histogram."""


@core
def _term_core(c: Any) -> Any:
    """Return c·log2 c of a count, with 0 for none."""
    return c * math.log2(c) if c > 1 else 0.0


@core
def _share_core(n: Any, total: Any, bins: Any) -> Any:
    """Return the entropy of n pixels whose c·log2 c add up to `total`."""
    if n == 0:
        return math.nan
    share = (math.log2(n) - total / n) / math.log2(bins)
    # rounding can leave a few 1e-16 either side of the bounds
    return min(1.0, max(0.0, share))


@cpu_kernel
def _entropy_cpu(counts: Any, codes: int, bins: int, band: Any, out: Any) -> None:
    flat, start, steps = counts
    joined = codes // bins
    for i in range(band[0], band[1]):
        first = start + i * steps[0]
        n, total = np.int64(0), 0.0
        for b in range(bins):
            c = np.int64(0)
            for k in range(joined):
                c += np.int64(flat[first + (b * joined + k) * steps[1]])
            n += c
            total += _term_core(c)
        out[i] = _share_core(n, total, bins)


@cuda_kernel(
    "void(uint32[::1], int64, UniTuple(int64, 2), int64, int64, float64[::1])",
    hot=False,
)
def _entropy_cuda(flat: Any, start: Any, steps: Any, codes: Any, bins: Any, out: Any) -> None:
    """Take one histogram a thread, once: float64 costs little here."""
    i = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if i >= out.shape[0]:
        return
    first, joined = start + i * steps[0], codes // bins
    n, total = np.int64(0), 0.0
    for b in range(bins):
        c = np.int64(0)
        for k in range(joined):
            c += np.int64(flat[first + (b * joined + k) * steps[1]])
        n += c
        total += _term_core(c)
    out[i] = _share_core(n, total, bins)


def entropy(
    counts: Array,
    *,
    bins: int = BINS,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Array:
    """Return the entropy of each histogram as a share of log2 of the number of bins.

    Parameters
    ----------
    counts : array of integers
        `(…, codes)` pixels of each code or bin, on the host or (uint32, int32, int64) a device; contiguous, but for the
        axes of a single histogram or a table of them, which may have any strides.
    bins : int
        Equal bins that the codes are joined into; a divisor of the number of codes, at least 2.
    out : array of float64, optional
        `(…,)`, contiguous; overwritten.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    array of float64
        `(…,)` in [0, 1]; NaN where a histogram is empty. `out`, or a new array of the kind of `counts`.

    Raises
    ------
    ConfigError
        When the codes cannot be joined into equal bins, the type is no count or the arrays are not in one place.
    """
    here = place("entropy", backend=backend, stream=stream, threads=threads, counts=counts, out=out)
    types = COUNTS if here.backend == "cpu" else DEVICE_COUNTS
    need("entropy", "counts", counts, dtypes=types, ndim=range(1, 9), empty=True, contiguous=len(counts.shape) > 2)
    *shape, codes = (int(n) for n in counts.shape)
    bins = whole("entropy", "bins", bins)
    if bins < 2 or codes < 1 or codes % bins:
        raise ConfigError.of(
            "`bins`", got=bins, expected=f"a divisor of {codes}, at least 2", do="Choose a power of two."
        )
    need("entropy", "out", out, dtypes=("float64",), shape=shape, contiguous=True)
    found = empty_like(counts, tuple(shape), np.float64) if out is None else out
    n = math.prod(shape)
    if not n:
        return found
    table = flat_view(counts.reshape(n, codes))
    if here.backend == "cuda":
        run, _, _ = flat_view(found, writable=True)
        here.launch(_entropy_cuda, -(-n // THREADS), THREADS, *table, codes, bins, run)
        return found
    target = found.reshape(n)
    over_bands(
        lambda start, stop: _entropy_cpu(table, codes, bins, (start, stop), target),
        n, threads=here.threads, least=max(1, 2**14 // codes),
    )  # fmt: skip
    return found
