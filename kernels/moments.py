"""Moments and percentiles of histograms of 8-bit codes.

    n = Σ c_v,   mean = Σ v c_v / n,   m_k = Σ (v − mean)^k c_v / n,   std = √m₂,   skewness = m₃ / m₂^1.5
    percentile p = smallest code with 100 Σ_{u ≤ v} c_u ≥ p n        (the inverse of the empirical distribution)

Sums are taken about the code nearest to the mean, in int64, and only the last step is float64, so nothing cancels and
the result does not depend on how many histograms are handed in. The skewness of a single code is 0. Tolerance of the
tests: 1e-9 relative against NumPy on the samples themselves; 0 for percentiles (`method="inverted_cdf"`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.kernels.bands import over_bands
from tilestream.kernels.checks import need
from tilestream.kernels.entropy import COUNTS, DEVICE_COUNTS
from tilestream.kernels.language import core, cpu_kernel, cuda, cuda_kernel
from tilestream.kernels.place import Array, empty_like, place
from tilestream.kernels.rows import flat_view

PERCENTILES = (5, 25, 50, 75, 95)
"""Percentiles that are returned."""

_P0, _P1, _P2, _P3, _P4 = PERCENTILES

VALUES = 3 + len(PERCENTILES)
"""Numbers a histogram is turned into."""

THREADS = 64
"""Of a block; a thread takes a histogram."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What histograms say of their samples, in codes; NaN where a histogram is empty."""

    mean: Array
    """`(…,)` float64."""
    std: Array
    """`(…,)` float64, of the population."""
    skewness: Array
    """`(…,)` float64, no unit."""
    percentiles: Array
    """`(…, 5)` float64 in the order of `PERCENTILES`."""


@core
def _percentile_core(k: Any) -> Any:
    """Return `PERCENTILES[k]`, and more than all for k = 5; a tuple cannot be indexed without a driver."""
    early = _P0 if k == 0 else (_P1 if k == 1 else _P2)
    late = _P3 if k == 3 else (_P4 if k == 4 else 101)
    return early if k < 3 else late


@core
def _centre_core(total: Any, n: Any) -> Any:
    """Return the code nearest to the mean."""
    return (2 * total + n) // (2 * n)


@core
def _variance_core(s1: Any, s2: Any, n: Any) -> Any:
    """Return the second central moment from sums about another centre."""
    shift = s1 / n
    return s2 / n - shift * shift


@core
def _skewness_core(s1: Any, s2: Any, s3: Any, n: Any) -> Any:
    """Return the third standardised moment from sums about another centre."""
    shift, square = s1 / n, s2 / n
    variance = square - shift * shift
    third = s3 / n - 3.0 * shift * square + 2.0 * shift * shift * shift
    # two codes differ by at least 1, so a variance that is not 0 is at least (n - 1) / n**2
    return third / (variance * math.sqrt(variance)) if variance > 0.5 / n else 0.0


@cpu_kernel
def _moments_cpu(counts: Any, codes: int, band: Any, out: Any) -> None:
    flat, start, steps = counts
    for i in range(band[0], band[1]):
        first, found = start + i * steps[0], out[i]
        n, total = np.int64(0), np.int64(0)
        for v in range(codes):
            c = np.int64(flat[first + v * steps[1]])
            n += c
            total += v * c
        if n == 0:
            found[:] = np.nan
            continue
        centre = _centre_core(total, n)
        s1, s2, s3 = 0, 0, 0
        for v in range(codes):
            c, d = np.int64(flat[first + v * steps[1]]), v - centre
            s1 += d * c
            s2 += d * d * c
            s3 += d * d * d * c
        found[0] = total / n
        found[1] = math.sqrt(max(0.0, _variance_core(s1, s2, n)))
        found[2] = _skewness_core(s1, s2, s3, n)
        below, k = np.int64(0), 0
        for v in range(codes):
            below += np.int64(flat[first + v * steps[1]])
            while 100 * below >= _percentile_core(k) * n:
                found[3 + k] = v
                k += 1


@cuda_kernel(
    "void(uint32[::1], int64, UniTuple(int64, 2), int64, int64, float64[::1])",
    hot=False,
)
def _moments_cuda(flat: Any, start: Any, steps: Any, codes: Any, n_histograms: Any, out: Any) -> None:
    """Take one histogram a thread, once: float64 costs little here."""
    i = cuda.blockIdx.x * THREADS + cuda.threadIdx.x
    if i >= n_histograms:
        return
    first, found = start + i * steps[0], i * VALUES
    n, total = np.int64(0), np.int64(0)
    for v in range(codes):
        c = np.int64(flat[first + v * steps[1]])
        n += c
        total += v * c
    if n == 0:
        for k in range(VALUES):
            out[found + k] = math.nan
        return
    centre = _centre_core(total, n)
    s1, s2, s3 = np.int64(0), np.int64(0), np.int64(0)
    for v in range(codes):
        c, d = np.int64(flat[first + v * steps[1]]), v - centre
        s1 += d * c
        s2 += d * d * c
        s3 += d * d * d * c
    out[found] = total / n
    out[found + 1] = math.sqrt(max(0.0, _variance_core(s1, s2, n)))
    out[found + 2] = _skewness_core(s1, s2, s3, n)
    below, k = np.int64(0), 0
    for v in range(codes):
        below += np.int64(flat[first + v * steps[1]])
        while 100 * below >= _percentile_core(k) * n:
            out[found + 3 + k] = v
            k += 1


def moments(
    counts: Array,
    *,
    out: Array | None = None,
    backend: str | None = None,
    stream: int = 0,
    threads: int | None = None,
) -> Moments:
    """Return mean, standard deviation, skewness and percentiles of each histogram.

    Parameters
    ----------
    counts : array of integers
        `(…, codes)` pixels of each code, at most 2⁴⁰ in all, on the host or (uint32, int32, int64) a device;
        contiguous, but for a single histogram or a table of them, which may have any strides.
    out : array of float64, optional
        `(…, 8)`, contiguous; overwritten. The result is views of it.
    backend : {"cpu", "cuda"}, optional
        By default where the arrays are.
    stream : int
        Handle of the CUDA stream to run on; 0 is the default one.
    threads : int, optional
        Most CPU threads, by default all cores; 1 is the serial form, for use inside a task.

    Returns
    -------
    Moments
        In codes: arrays of the kind of `counts`.

    Raises
    ------
    ConfigError
        When the type is no count or the arrays are not in one place.
    """
    here = place("moments", backend=backend, stream=stream, threads=threads, counts=counts, out=out)
    types = COUNTS if here.backend == "cpu" else DEVICE_COUNTS
    need("moments", "counts", counts, dtypes=types, ndim=range(1, 9), empty=True, contiguous=len(counts.shape) > 2)
    *shape, codes = (int(n) for n in counts.shape)
    need("moments", "out", out, dtypes=("float64",), shape=(*shape, VALUES), contiguous=True)
    found = empty_like(counts, (*shape, VALUES), np.float64) if out is None else out
    n = math.prod(shape)
    if n:
        table = flat_view(counts.reshape(n, codes))
        if here.backend == "cuda":
            run, _, _ = flat_view(found, writable=True)
            here.launch(_moments_cuda, -(-n // THREADS), THREADS, *table, codes, n, run)
        else:
            target = found.reshape(n, VALUES)
            over_bands(
                lambda start, stop: _moments_cpu(table, codes, (start, stop), target),
                n, threads=here.threads, least=max(1, 2**14 // max(1, codes)),
            )  # fmt: skip
    return Moments(mean=found[..., 0], std=found[..., 1], skewness=found[..., 2], percentiles=found[..., 3:])
