"""Which pixels of a coarse level show tissue, by stated rules on single pixels.

Brightfield, on 8-bit red, green, blue at about 8 µm a pixel; hi, lo = largest and smallest of the three, c = hi − lo
the chroma, t = (g − b) / c the position on the red side of the hue circle (hue / 60°):

    stained   lo ≤ 235 (an optical density of 0.035 in the channel most absorbed) and
              (r − g) + (b − g) ≥ 14 and r − g ≥ 4 where green is lowest (hematoxylin with eosin: purple to pink, faint
              ones and fat included; bluish glass has r = g),
              c ≥ 16 where blue is highest (hematoxylin alone),
              c ≥ 30 elsewhere (brown of DAB, green counterstains): yellowed glass stays below that
    black     hi < 90 and c < 40                                  ink, and whatever else lets no light through
    red       r highest, r ≥ 80, and (c ≥ 0.5 hi and −0.34 < t < 0.2, or c ≥ 0.62 hi and −0.5 < t < 0.2)
    green     g highest, c ≥ 0.35 hi; or teal: r lowest, b − g ≤ 0.25 c, c ≥ 0.5 hi
    blue      b highest, r lowest, c ≥ 0.65 hi, b − g ≥ 0.4 c
    tissue    stained and not ink

Eosin lies at t < −0.25 and seldom above c = 0.5 hi at this resolution, red ink at t ≈ −0.2 … 0.05 and c = 0.5 … 0.95
hi. The bounds were set on the labelled tiles and slides of the tests. What a pixel alone cannot tell, the pink rim of a
blurred red line or a lone dark pixel in tissue, is for those who look at neighbours: `pen_marks` gives them the ink.

Fluorescence, on the brightest channel v of each pixel:

    m, σ      median of the shortest quarter of all values, which is the background, since light varies more than its
              absence; 1.4826 times the median distance of the values below m from it: signal only adds light
    tissue    v > m + max(5 σ, 8 steps of an integer type)

Otsu's threshold was tried first: it cuts the noise of a blank slide through its middle, and stained nuclei from the
tissue that they lie in. Shortest half: Rousseeuw & Leroy, Robust Regression and Outlier Detection, 1987, 4.4.

Brightfield is integers only: tolerance of its tests is 0. Fluorescence is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from tilestream.errors import ConfigError

DARKEST_GLASS = 235
"""Glass is above this in every channel, or grey."""

BACKGROUND_SIGMAS = 5.0
"""Least distance of signal from the background in standard deviations of the background."""

LEAST_STEPS = 8
"""Least distance of signal from the background in steps of an integer type: a JPEG-coded black ground is noisier."""

_NO_INK, _BLACK, _RED, _GREEN, _BLUE = 0, 1, 2, 3, 4


@njit(nogil=True, cache=True)
def _ink_core(r: Any, g: Any, b: Any) -> int:
    """Return which pen a pixel was drawn with, 0 for none."""
    hi, lo = max(r, g, b), min(r, g, b)
    c = hi - lo
    if hi < 90 and c < 40:
        return _BLACK
    if r == hi and r >= 80:
        t = 100 * (g - b)
        reddish = 100 * c >= 50 * hi and -34 * c < t < 20 * c
        crimson = 100 * c >= 62 * hi and -50 * c < t < 20 * c
        return _RED if reddish or crimson else _NO_INK
    if g == hi:
        return _GREEN if 100 * c >= 35 * hi else _NO_INK
    if r == lo and 4 * (b - g) <= c and 2 * c >= hi:
        return _GREEN
    if r == lo and 100 * c >= 65 * hi and 10 * (b - g) >= 4 * c:
        return _BLUE
    return _NO_INK


@njit(nogil=True, cache=True)
def _tissue_core(r: Any, g: Any, b: Any) -> Any:
    hi, lo = max(r, g, b), min(r, g, b)
    c = hi - lo
    if lo > DARKEST_GLASS or _ink_core(r, g, b) != _NO_INK:
        return False
    if r - g >= 4 and g == lo:
        return r - g + b - g >= 14
    if b == hi:
        return c >= 16
    return c >= 30


@njit(nogil=True, cache=True)
def _brightfield_cpu(rgb: Any, ink: bool, out: Any) -> None:
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            r, g, b = np.int64(rgb[y, x, 0]), np.int64(rgb[y, x, 1]), np.int64(rgb[y, x, 2])
            out[y, x] = _ink_core(r, g, b) != _NO_INK if ink else _tissue_core(r, g, b)


def _eight_bit(rgb: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype in (np.uint8, np.uint16):
        eight = rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)
        return np.ascontiguousarray(eight)
    raise ConfigError.of(
        "`tissue_brightfield`",
        got=f"{rgb.dtype} of shape {rgb.shape}",
        expected="(y, x, 3) red, green, blue of 8 or 16 bits",
        do="Choose the tiles with `--where all` or a mask of your own.",
    )


def tissue_brightfield(rgb: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Return which pixels of a brightfield slide are stained tissue and not ink.

    Parameters
    ----------
    rgb : ndarray of uint8 or uint16
        `(y, x, 3)` at about 8 µm a pixel; of 16 bits the upper eight count.
    valid : ndarray of bool, optional
        `(y, x)`; what is False is no tissue.

    Returns
    -------
    ndarray of bool
        `(y, x)`.

    Raises
    ------
    ConfigError
        When the samples are not red, green and blue.
    """
    eight = _eight_bit(rgb)
    out = np.empty(eight.shape[:2], np.bool_)
    _brightfield_cpu(eight, False, out)
    return out if valid is None else out & valid


def pen_marks(rgb: npt.NDArray[np.uint8], valid: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Return which pixels of a brightfield slide are black, red, green or blue ink, or opaque.

    Parameters
    ----------
    rgb : ndarray of uint8 or uint16
        `(y, x, 3)` at about 8 µm a pixel.
    valid : ndarray of bool, optional
        `(y, x)`; what is False is no ink.

    Returns
    -------
    ndarray of bool
        `(y, x)`.

    Raises
    ------
    ConfigError
        When the samples are not red, green and blue.
    """
    eight = _eight_bit(rgb)
    out = np.empty(eight.shape[:2], np.bool_)
    _brightfield_cpu(eight, True, out)
    return out if valid is None else out & valid


def background(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return level and spread of the background of a picture with light on black.

    Parameters
    ----------
    values : ndarray
        One-dimensional, finite, at least one.

    Returns
    -------
    level, sigma : float
        Median of the shortest quarter, and the robust standard deviation of what is darker.
    """
    ordered = np.sort(values).astype(np.float64)
    quarter = len(ordered) // 4
    widths = ordered[quarter:] - ordered[: len(ordered) - quarter]
    # integers leave many quarters equally short: the first one alone would be too dark
    shortest = np.flatnonzero(widths == widths.min())
    level = float(ordered[shortest[len(shortest) // 2] + quarter // 2])
    darker = level - ordered[ordered < level]
    return level, 1.4826 * float(np.median(darker)) if darker.size else 0.0


def tissue_fluorescence(pixels: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.bool_]:
    """Return which pixels of a slide with a black background hold signal.

    Parameters
    ----------
    pixels : ndarray
        `(y, x, c)` of any type; the brightest channel decides.
    valid : ndarray of bool, optional
        `(y, x)`; what is False is no tissue and enters no statistic.

    Returns
    -------
    ndarray of bool
        `(y, x)`; False where signal does not stand out of the background.
    """
    brightest = pixels.max(axis=2)
    mask = np.isfinite(brightest) if valid is None else valid & np.isfinite(brightest)
    if not mask.any():
        return np.asarray(mask, np.bool_)
    level, sigma = background(brightest[mask])
    least = LEAST_STEPS if pixels.dtype.kind in "iu" else 0.0
    with np.errstate(invalid="ignore"):
        return np.asarray((brightest > level + max(BACKGROUND_SIGMAS * sigma, least)) & mask)
