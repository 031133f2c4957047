"""Which stored pixels an output pixel covers, and by how much: integers that depend on global positions only.

With r = p/q stored pixels per output pixel, output pixel j covers the stored interval [j·r, (j+1)·r) of the whole
image. In units of 1/q both kinds of pixel begin at integers, so the overlap of stored pixel i is the integer

    w(j, i) = max(0, min((j+1)·p, (i+1)·q) − max(j·p, i·q))

The CPU tabulates the overlaps of an axis once a call; CUDA threads work out their own. Exact: tolerance 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import core

MAX_TERM = 2**15
"""Largest numerator and denominator of a ratio: 32-bit samples times both weights then stay inside int64."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a resampling."""

    ratio: Fraction
    """Stored pixels per output pixel."""
    src: int
    """Global position of the first stored pixel at hand."""
    n_src: int
    """How many stored pixels are at hand."""
    dst: int
    """Global position of the first output pixel."""
    n_dst: int
    """How many output pixels are wanted."""

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """What `span_core` needs, as a kernel takes it: p, q, src, n_src, dst."""
        return self.ratio.numerator, self.ratio.denominator, self.src, self.n_src, self.dst


@core
def span_core(axis: Any, j: int) -> Any:
    """Return what output pixel `j` at hand covers along an axis, in units of 1/q and in stored pixels.

    Parameters
    ----------
    axis : tuple of int
        `Axis.numbers`.
    j : int
        Output pixel, counted from the first at hand.

    Returns
    -------
    low : int
        Where it begins, in units of 1/q.
    first, stop : int
        Global stored positions at hand that it covers; none when `first >= stop`.
    """
    p, q, src, n_src, dst = axis
    low = (dst + j) * p
    return low, max(low // q, src), min((low + p + q - 1) // q, src + n_src)


@core
def overlap_core(axis: Any, low: int, i: int) -> Any:
    """Return how much of stored pixel `i`, a global position, lies under the output pixel that begins at `low`."""
    p, q = axis[0], axis[1]
    return min((i + 1) * q, low + p) - max(i * q, low)


def taps(axis: Axis) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which stored pixels each output pixel covers along one axis, and by how much.

    Parameters
    ----------
    axis : Axis
        Ratio and positions.

    Returns
    -------
    first : ndarray of int64
        `(n_dst,)` index, among the stored pixels at hand, of the first one covered.
    weight : ndarray of int64
        `(n_dst, k)` overlaps in units of 1/denominator from `first` on; 0 pads, also past the end.
    """
    p, q, src, n_src, dst = axis.numbers
    low = (dst + np.arange(axis.n_dst, dtype=np.int64)) * p
    first = np.clip(low // q, src, src + max(n_src - 1, 0))
    index = first[:, None] + np.arange(-(-p // q) + 1, dtype=np.int64)
    weight = np.minimum((index + 1) * q, low[:, None] + p) - np.maximum(index * q, low[:, None])
    weight[(weight < 0) | (index >= src + n_src)] = 0
    used = np.flatnonzero(weight.any(axis=0))
    keep = int(used[-1]) + 1 if used.size else 1
    return first - src, np.ascontiguousarray(weight[:, :keep])
