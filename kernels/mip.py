"""Levels of half size each: mean of what exists under each pixel, or mode of labels.

    level L, pixel (y, x) = mean of the valid level-0 pixels in [2^L·y, 2^L·(y+1)) × [2^L·x, 2^L·(x+1)),   L = 1 … 4

from exact integer sums, rounded once, ties to even, so that levels 1 to 4 hold no drift (at most half a grey level).
Each further four levels come from the last one rounded: 5 to 8 from level 4. Size ceil(s/2) a level; edge pixels
average what exists. Sums in int64, or float64 in the order of a quad tree. Tolerance of the tests: 0 for integers
against `tilestream.kernels.resample`, 1e-6 relative for float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.errors import ConfigError
from tilestream.kernels.resample import resample
from tilestream.kernels.rounding import can_average, mean_core, rounding_of
from tilestream.kernels.rows import flat_rows
from tilestream.types import Kind

EXACT_LEVELS = 4
"""Levels that are summed from one another before anything is rounded."""


@dataclass(frozen=True, kw_only=True)
class MipLevel:
    """One reduced level."""

    pixels: npt.NDArray[Any]
    """`(c, y, x)` view of interleaved memory, or `(y, x)`, like the array that was reduced; 0 where not valid."""
    valid: npt.NDArray[np.bool_]
    """`(y, x)`, False where no valid pixel lies under a pixel."""


@njit(nogil=True, cache=True)
def _sum_cpu(source: Any, weights: Any, sums: Any, counts: Any) -> None:
    """Add 2×2 cells of pixels (weight 0 or 1) or of sums (weight = how many pixels they hold)."""
    flat, row_step, height, width = source
    channels = sums.shape[2]
    sums[...] = 0
    counts[...] = 0
    for y in range(height):
        row = flat[y * row_step : y * row_step + width * channels]
        target, count, weight = sums[y // 2], counts[y // 2], weights[y]
        for x in range(width):
            if weight[x] == 0:
                continue
            count[x // 2] += weight[x]
            for ch in range(channels):
                target[x // 2, ch] += row[x * channels + ch]


@njit(nogil=True, cache=True)
def _mip_cpu(sums: Any, counts: Any, how: int, out: Any, out_valid: Any) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            n = counts[y, x]
            out_valid[y, x] = n > 0
            for ch in range(out.shape[2]):
                out[y, x, ch] = mean_core(sums[y, x, ch], n, how) if n > 0 else 0


def _means(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], n: int) -> list[MipLevel]:
    """Return up to four levels `(y, x, c)` from the sums of one."""
    if pixels.dtype.kind == "f":
        valid = valid & np.isfinite(pixels).all(axis=2)
    total: npt.NDArray[Any] = pixels
    count = valid.astype(np.int64)
    kind = np.float64 if pixels.dtype.kind == "f" else np.int64
    found = []
    for _ in range(n):
        height, width, channels = total.shape
        flat, (step,) = flat_rows(total)
        sums = np.empty(((height + 1) // 2, (width + 1) // 2, channels), kind)
        counts = np.empty(sums.shape[:2], np.int64)
        _sum_cpu((flat, step, height, width), count, sums, counts)
        out, out_valid = np.empty(sums.shape, pixels.dtype), np.empty(sums.shape[:2], np.bool_)
        _mip_cpu(sums, counts, rounding_of(pixels.dtype), out, out_valid)
        found.append(MipLevel(pixels=out, valid=out_valid))
        total, count = sums, counts
    return found


def _modes(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_], n: int) -> list[MipLevel]:
    found = []
    for level in range(1, n + 1):
        shape = (-(-pixels.shape[0] // 2**level), -(-pixels.shape[1] // 2**level))
        out, out_valid = np.empty((*shape, pixels.shape[2]), pixels.dtype), np.empty(shape, np.bool_)
        ratio = Fraction(2**level)
        resample(
            pixels, valid, ratio_yx=(ratio, ratio), src_yx=(0, 0), dst_yx=(0, 0), out=out, out_valid=out_valid,
            kind="labels",
        )  # fmt: skip
        found.append(MipLevel(pixels=out, valid=out_valid))
    return found


def mip_levels(
    a: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None = None,
    *,
    levels: int | None = None,
    kind: Kind = "intensity",
) -> list[MipLevel]:
    """Return the reduced levels of an array with the validity of each, level 1 first.

    Parameters
    ----------
    a : ndarray
        `(y, x)` or `(c, y, x)`: integers of up to 32 bits, float32 or float64; labels of any integer type.
    valid : ndarray of bool, optional
        `(y, x)`; pixels that are False, and floats that are not finite, enter no mean.
    levels : int, optional
        How many; by default until one pixel is left.
    kind : {"intensity", "labels"}
        Mean or mode (ties to the smaller value).

    Returns
    -------
    list of MipLevel
        Axes as in `a`.

    Raises
    ------
    ConfigError
        When the array cannot be reduced.
    """
    if (
        a.ndim not in (2, 3)
        or 0 in a.shape
        or not (can_average(a.dtype) or (kind == "labels" and a.dtype.kind in "iu"))
    ):
        raise ConfigError.of(
            "`mip`",
            got=f"{a.dtype} of shape {a.shape}",
            expected="(y, x) or (c, y, x) with pixels, integers of up to 32 bits or floats",
            do="Convert the array first, or mark it as labels.",
        )
    pixels = a[..., None] if a.ndim == 2 else np.moveaxis(a, 0, 2)
    mask = np.ones(pixels.shape[:2], np.bool_) if valid is None else valid
    wanted = max(int(n - 1).bit_length() for n in pixels.shape[:2]) if levels is None else levels
    reduce = _modes if kind == "labels" else _means
    found: list[MipLevel] = []
    while len(found) < wanted:
        found += reduce(pixels, mask, min(EXACT_LEVELS, wanted - len(found)))
        pixels, mask = found[-1].pixels, found[-1].valid
    return [
        MipLevel(pixels=f.pixels[..., 0] if a.ndim == 2 else np.moveaxis(f.pixels, 2, 0), valid=f.valid) for f in found
    ]


def mip(
    a: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None = None,
    *,
    levels: int | None = None,
    kind: Kind = "intensity",
) -> list[npt.NDArray[Any]]:
    """Return the reduced levels of an array, level 1 first.

    Parameters
    ----------
    a : ndarray
        `(y, x)` or `(c, y, x)`: integers of up to 32 bits, float32 or float64; labels of any integer type.
    valid : ndarray of bool, optional
        `(y, x)`; pixels that are False, and floats that are not finite, enter no mean.
    levels : int, optional
        How many; by default until one pixel is left.
    kind : {"intensity", "labels"}
        Mean or mode (ties to the smaller value).

    Returns
    -------
    list of ndarray
        Axes and dtype as in `a`, sizes ceil(s/2) each; 0 where nothing is valid.

    Raises
    ------
    ConfigError
        When the array cannot be reduced.

    Examples
    --------
    >>> [level.shape for level in mip(np.zeros((3, 100, 50), np.uint8), levels=2)]
    [(3, 50, 25), (3, 25, 13)]
    """
    return [level.pixels for level in mip_levels(a, valid, levels=levels, kind=kind)]
