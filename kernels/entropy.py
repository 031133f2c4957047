"""Shannon entropy of histograms, as a share of what their bins could hold.

    H = (log2 n − (1/n) Σ_b c_b log2 c_b) / log2 B,    0 ≤ H ≤ 1

with c_b pixels in bin b of B bins over n pixels; the 256 codes are first joined into B equal bins. Float64, summed in
the order of the bins, one histogram after the other, so the result does not depend on how many are handed in. Tolerance
of the tests: 1e-12 against the textbook form −Σ p log2 p. Shannon, Bell System Technical Journal 27, 1948.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.errors import ConfigError

BINS = 32
"""Bins of the entropy raster: with 256, a tile of 64² pixels has too few pixels a bin to tell noise from texture."""


@njit(nogil=True, cache=True)
def _entropy_core(counts: Any, bins: int) -> float:
    joined = counts.shape[0] // bins
    n = 0
    total = 0.0
    for b in range(bins):
        c = 0
        for k in range(joined):
            c += counts[b * joined + k]
        n += c
        if c > 1:
            total += c * math.log2(c)
    if n == 0:
        return np.nan
    # rounding can leave a few 1e-16 either side of the bounds
    return min(1.0, max(0.0, (math.log2(n) - total / n) / math.log2(bins)))


@njit(nogil=True, cache=True)
def _entropy_cpu(counts: Any, bins: int, out: Any) -> None:
    for i in range(out.shape[0]):
        out[i] = _entropy_core(counts[i], bins)


def entropy(counts: npt.NDArray[np.integer[Any]], *, bins: int = BINS) -> npt.NDArray[np.float64]:
    """Return the entropy of each histogram as a share of log2 of the number of bins.

    Parameters
    ----------
    counts : ndarray of integers
        `(…, 256)` pixels of each code.
    bins : int
        Equal bins that the codes are joined into; a divisor of the number of codes, at least 2.

    Returns
    -------
    ndarray of float64
        `(…,)` in [0, 1]; NaN where a histogram is empty.

    Raises
    ------
    ConfigError
        When the codes cannot be joined into equal bins.
    """
    if bins < 2 or counts.shape[-1] % bins:
        raise ConfigError.of(
            "`bins`",
            got=bins,
            expected=f"a divisor of {counts.shape[-1]}, at least 2",
            do="Choose a power of two.",
        )
    rows = np.ascontiguousarray(counts, np.int64).reshape(-1, counts.shape[-1])
    out = np.empty(len(rows), np.float64)
    _entropy_cpu(rows, bins, out)
    return out.reshape(counts.shape[:-1])
