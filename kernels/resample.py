"""Area-weighted resampling whose result does not depend on how the image is cut.

With r = p/q stored pixels per output pixel, output pixel j covers the stored interval [j·r, (j+1)·r) of the whole
image. In units of 1/q both kinds of pixel begin at integers, so the overlaps are integers that depend on global
positions only:

    w(j, i) = max(0, min((j+1)·p, (i+1)·q) − max(j·p, i·q))
    out_j   = Σ_i w_y w_x x_i / Σ_i w_y w_x    over the valid stored pixels i

Accumulation: int32 down a column for samples of 8 and 16 bits, int64 for 32 bits, int64 along the row; integers are
rounded once, ties to even. Floats accumulate in float64, down the column first, then along the row, both in the order
of positions. Tolerance of the tests: 0 for integers; 1e-6 (float32) and 1e-12 (float64), relative, against NumPy.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.errors import ConfigError
from tilestream.kernels.mode import mode
from tilestream.kernels.rounding import accumulator_of, can_average, mean_core, rounding_of
from tilestream.kernels.rows import flat_rows
from tilestream.types import Kind

MAX_TERM = 2**15
"""Largest numerator and denominator of a ratio: 32-bit samples times both weights then stay inside int64."""


@njit(nogil=True, cache=True)
def _column_cpu(source: Any, first: int, weight_y: Any, sums: Any, weights: Any) -> int:
    """Add the stored rows under one output row into `sums`; return the weight of a row that is valid throughout."""
    flat, row_step, width, channels, valid, masked = source
    n = width * channels
    total = 0
    sums[:n] = 0
    weights[:width] = 0
    for t in range(weight_y.shape[0]):
        wy = weight_y[t]
        if wy == 0:
            continue
        total += wy
        row = flat[(first + t) * row_step : (first + t) * row_step + n]
        if not masked:
            for k in range(n):
                sums[k] += wy * row[k]
            continue
        row_valid = valid[first + t]
        for x in range(width):
            if row_valid[x]:
                weights[x] += wy
                for ch in range(channels):
                    sums[x * channels + ch] += wy * row[x * channels + ch]
    return total


@njit(nogil=True, cache=True)
def _row_cpu(sums: Any, wy: int, taps_x: Any, how: int, out: Any, out_valid: Any) -> None:
    """Write one output row from column sums that are valid throughout."""
    first_x, weight_x = taps_x
    width, channels = out.shape
    for ox in range(width):
        i = first_x[ox]
        weight = 0
        for t in range(weight_x.shape[1]):
            weight += weight_x[ox, t]
        weight *= wy
        out_valid[ox] = weight > 0
        for ch in range(channels):
            total = sums[0] * 0
            for t in range(weight_x.shape[1]):
                total += weight_x[ox, t] * sums[(i + t) * channels + ch]
            out[ox, ch] = mean_core(total, weight, how) if weight > 0 else 0


@njit(nogil=True, cache=True)
def _row_rgb_cpu(sums: Any, wy: int, taps_x: Any, how: int, out: Any, out_valid: Any) -> None:
    """Do what `_row_cpu` does for three channels, which share the loop over the weights."""
    first_x, weight_x = taps_x
    for ox in range(out.shape[0]):
        k = first_x[ox] * 3
        weight = 0
        red = green = blue = sums[0] * 0
        for t in range(weight_x.shape[1]):
            w = weight_x[ox, t]
            weight += w
            red += w * sums[k]
            green += w * sums[k + 1]
            blue += w * sums[k + 2]
            k += 3
        weight *= wy
        out_valid[ox] = weight > 0
        if weight > 0:
            out[ox, 0] = mean_core(red, weight, how)
            out[ox, 1] = mean_core(green, weight, how)
            out[ox, 2] = mean_core(blue, weight, how)
        else:
            out[ox, :] = 0


@njit(nogil=True, cache=True)
def _row_masked_cpu(sums: Any, weights: Any, taps_x: Any, how: int, out: Any, out_valid: Any) -> None:
    """Write one output row from column sums with a weight each."""
    first_x, weight_x = taps_x
    width, channels = out.shape
    for ox in range(width):
        i = first_x[ox]
        weight = 0
        for t in range(weight_x.shape[1]):
            weight += weight_x[ox, t] * weights[i + t]
        out_valid[ox] = weight > 0
        for ch in range(channels):
            total = sums[0] * 0
            for t in range(weight_x.shape[1]):
                total += weight_x[ox, t] * sums[(i + t) * channels + ch]
            out[ox, ch] = mean_core(total, weight, how) if weight > 0 else 0


@njit(nogil=True, cache=True)
def _resample_cpu(source: Any, taps_y: Any, taps_x: Any, scratch: Any, out: Any, out_valid: Any) -> None:
    masked, channels = source[5], source[3]
    first_y, weight_y = taps_y
    sums, weights, how = scratch
    for oy in range(out.shape[0]):
        wy = _column_cpu(source, first_y[oy], weight_y[oy], sums, weights)
        if masked:
            _row_masked_cpu(sums, weights, taps_x, how, out[oy], out_valid[oy])
        elif channels == 3:
            _row_rgb_cpu(sums, wy, taps_x, how, out[oy], out_valid[oy])
        else:
            _row_cpu(sums, wy, taps_x, how, out[oy], out_valid[oy])


def taps(
    ratio: Fraction, *, src: int, n_src: int, dst: int, n_dst: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return which stored pixels each output pixel covers along one axis, and by how much.

    Parameters
    ----------
    ratio : Fraction
        Stored pixels per output pixel.
    src, n_src : int
        Global position of the first stored pixel at hand, and their number.
    dst, n_dst : int
        Global position of the first output pixel, and their number.

    Returns
    -------
    first : ndarray of int64
        `(n_dst,)` index, among the stored pixels at hand, of the first one covered.
    weight : ndarray of int64
        `(n_dst, k)` overlaps in units of 1/denominator from `first` on; 0 pads, also past the end.
    """
    p, q = ratio.numerator, ratio.denominator
    low = (dst + np.arange(n_dst, dtype=np.int64)) * p
    first = np.clip(low // q, src, src + max(n_src - 1, 0))
    index = first[:, None] + np.arange(-(-p // q) + 1, dtype=np.int64)
    weight = np.minimum((index + 1) * q, low[:, None] + p) - np.maximum(index * q, low[:, None])
    weight[(weight < 0) | (index >= src + n_src)] = 0
    used = np.flatnonzero(weight.any(axis=0))
    keep = int(used[-1]) + 1 if used.size else 1
    return first - src, np.ascontiguousarray(weight[:, :keep])


def _check(pixels: npt.NDArray[Any], ratio_yx: tuple[Fraction, Fraction], out: npt.NDArray[Any], kind: Kind) -> None:
    if not can_average(pixels.dtype) and not (kind == "labels" and pixels.dtype.kind in "iu"):
        raise ConfigError.of(
            "`resample`",
            got=f"samples of type {pixels.dtype}",
            expected="integers of up to 32 bits, float32 or float64",
            do="Convert the image first, or mark it as labels.",
        )
    if not all(0 < r.numerator <= MAX_TERM and r.denominator <= MAX_TERM for r in ratio_yx):
        raise ConfigError.of(
            "`ratio_yx`",
            got=ratio_yx,
            expected=f"positive fractions with terms of at most {MAX_TERM}",
            do="Fix the ratio once, for instance with `limit_denominator`.",
        )
    if out.dtype != pixels.dtype or out.shape[2:] != pixels.shape[2:]:
        raise ConfigError.of(
            "`out`",
            got=f"{out.dtype} {out.shape}",
            expected=f"{pixels.dtype} with {pixels.shape[2:]} channels",
            do="Allocate it like the pixels.",
        )


def resample(
    pixels: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | None,
    *,
    ratio_yx: tuple[Fraction, Fraction],
    src_yx: tuple[int, int],
    dst_yx: tuple[int, int],
    out: npt.NDArray[Any],
    out_valid: npt.NDArray[np.bool_],
    kind: Kind = "intensity",
) -> None:
    """Write into `out` the area-weighted mean (or the mode of labels) of the stored pixels under each output pixel.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)` stored samples: integers of up to 32 bits, float32 or float64; strided views are taken as they are.
    valid : ndarray of bool or None
        `(y, x)`; pixels that are False weigh nothing. None when all are valid. A float sample that is not finite makes
        its pixel invalid in any case.
    ratio_yx : pair of Fraction
        Stored pixels per output pixel; terms of at most `MAX_TERM`. Below 1 enlarges.
    src_yx : pair of int
        Global stored position of `pixels[0, 0]`.
    dst_yx : pair of int
        Global output position of `out[0, 0]`.
    out : ndarray
        `(y, x, c)` of the dtype of `pixels`; 0 where nothing is valid.
    out_valid : ndarray of bool
        `(y, x)`, False where nothing valid, or nothing of `pixels`, lies under the output pixel.
    kind : {"intensity", "labels"}
        Mean, or the value of the largest total weight (ties to the smaller).

    Raises
    ------
    ConfigError
        When dtype, ratio or `out` cannot be worked with.

    Notes
    -----
    Serial and free of the GIL. Works in one row of accumulators; about 100 million stored 8-bit RGB pixels a second.
    """
    _check(pixels, ratio_yx, out, kind)
    if pixels.size == 0 or out.size == 0:
        out[...] = 0
        out_valid[...] = False
        return
    taps_yx = tuple(
        taps(ratio_yx[a], src=src_yx[a], n_src=pixels.shape[a], dst=dst_yx[a], n_dst=out.shape[a]) for a in (0, 1)
    )
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels).all(axis=2)
        if not finite.all():
            valid = finite if valid is None else valid & finite
    if valid is not None and valid.all():
        valid = None
    if kind == "labels":
        mode(pixels, valid, taps_yx=taps_yx, out=out, out_valid=out_valid)
        return
    width, channels = pixels.shape[1:]
    flat, (row_step,) = flat_rows(pixels)
    mask = np.ascontiguousarray(valid) if valid is not None else np.ones((1, 1), np.bool_)
    # the tail stays 0: weights that pad a row may point past its end
    padded = width + taps_yx[1][1].shape[1]
    how = rounding_of(pixels.dtype)
    scratch = (np.zeros(padded * channels, accumulator_of(pixels.dtype)), np.zeros(padded, np.int64), how)
    source = (flat, row_step, width, channels, mask, valid is not None)
    _resample_cpu(source, taps_yx[0], taps_yx[1], scratch, out, out_valid)
