"""How far decoded pixels are from those that were encoded, in float64.

    psnr     10 log10(high² / mean (a − b)²)            over all samples that count, channels jointly
    od_psnr  10 log10(D² / mean (A(a) − A(b))²)         A: amounts of stains, D: optical density of black

Amounts of stains are those of `kernels.stain_separation`. `high` is the span of the samples, from the least to the
greatest that they could be: 255 for 8 bits. Wider types do not say what they span (a scene of 12 bits in 16, heights in
metres), so it is asked for; where channels span different ranges, compare them as numbers of 0 to 1 (`Picture.to_unit`,
`high=1`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.stain import HED, Matrix, density_table, optical_density, stain_separation
from tilestream.types import Array

H_AND_E = HED[:2]
"""Hematoxylin and eosin; what they do not explain goes to a third direction, which is not measured."""
H_AND_DAB = (HED[0], HED[2])
"""Hematoxylin and DAB, the brown of immunohistochemistry."""


def psnr(a: Array, b: Array, *, high: float | None = None, valid: npt.NDArray[np.bool_] | None = None) -> float:
    """Return the peak signal-to-noise ratio of two images in dB, over all their samples jointly.

    Parameters
    ----------
    a, b : ndarray
        Of one shape and type, `(c, y, x)` or `(y, x)`; integers are compared exactly.
    high : float, optional
        What the samples span; 255 by default for 8 bits, needed for all other types.
    valid : ndarray of bool, optional
        `(y, x)`; what is not valid does not count.

    Returns
    -------
    float
        dB; inf where they are equal.

    Raises
    ------
    ConfigError
        When they do not belong together, a sample that counts is not finite, or nothing counts.
    """
    require_pair(a, b, valid)
    span = span_of(a.dtype, high)
    squares, count = 0.0, 0
    for left, right in zip(planes_of(a), planes_of(b), strict=True):  # by channel: the differences are 8 bytes a sample
        if valid is not None:
            left, right = left[valid], right[valid]
        with np.errstate(invalid="ignore"):  # infinite samples: refused below
            difference = left.astype(np.float64) - right
        squares += float(np.vdot(difference, difference))
        count += difference.size
    if not count or not math.isfinite(squares):
        raise ConfigError.of(
            "images to compare",
            got="NaN or infinite samples" if count else "no valid pixel",
            expected="finite samples, at least one of them valid",
            do="Say by `valid` which pixels were measured.",
        )
    return 10 * math.log10(span**2 * count / squares) if squares else math.inf


def od_psnr(
    a: Array, b: Array, *, stains: Matrix | None = H_AND_E, valid: npt.NDArray[np.bool_] | None = None
) -> float:
    """Return the PSNR in optical density: of the amounts of stains, or of red, green and blue.

    Parameters
    ----------
    a, b : ndarray of uint8 or uint16
        Transmitted light, `(3, y, x)` red, green, blue.
    stains : sequence, optional
        Two or three rows of red, green, blue densities; their amounts are compared jointly, hematoxylin's and eosin's
        by default. None compares the densities of red, green and blue themselves.
    valid : ndarray of bool, optional
        `(y, x)`; what is not valid does not count.

    Returns
    -------
    float
        dB; the span is the density of black, 2.41 for 8 bits.

    Raises
    ------
    ConfigError
        When they are no two images of light, or the stains cannot be told apart.
    """
    require_pair(a, b, valid)
    if a.shape[0] != 3 or a.ndim != 3 or a.dtype.name not in ("uint8", "uint16"):
        raise ConfigError.of(
            "images to compare in optical density",
            got=f"{a.shape} {a.dtype}",
            expected="(3, y, x) uint8 or uint16, red, green, blue of transmitted light",
            do="Use `psnr` for other images.",
        )
    black = float(density_table(a.dtype.name)[0])
    if stains is None:
        return psnr(optical_density(a, threads=1), optical_density(b, threads=1), high=black, valid=valid)
    first, second = (stain_separation(image, stains, threads=1)[: len(stains)] for image in (a, b))
    return psnr(first, second, high=black, valid=valid)


def span_of(dtype: np.dtype[np.generic], high: float | None) -> float:
    """Return what samples span, from the least to the greatest.

    Parameters
    ----------
    dtype : numpy.dtype
        Type of the samples.
    high : float, optional
        What the caller says.

    Returns
    -------
    float
        `high`, or 255 for 8 bits.

    Raises
    ------
    ConfigError
        When it is not said for another type, or is not above 0.
    """
    if high is None and dtype.kind in "ui" and dtype.itemsize == 1:
        return 255.0
    if high is None or not (math.isfinite(high) and high > 0):
        raise ConfigError.of(
            "`high` of a measure of quality",
            got=high,
            expected=f"what samples of {dtype} span, above 0: the type does not say it",
            do="Give the difference of the greatest and the least sample, for numbers of 0 to 1 a 1.",
        )
    return float(high)


def require_pair(a: Array, b: Array, valid: npt.NDArray[np.bool_] | None = None) -> None:
    """Refuse two arrays that are no two versions of one image.

    Parameters
    ----------
    a, b : ndarray
        `(c, y, x)` or `(y, x)`.
    valid : ndarray of bool, optional
        `(y, x)`.

    Raises
    ------
    ConfigError
        When shapes or types differ, or there are no pixels.
    """
    if a.shape != b.shape or a.dtype != b.dtype or a.ndim not in (2, 3) or not a.size:
        raise ConfigError.of(
            "images to compare",
            got=f"{a.shape} {a.dtype} and {b.shape} {b.dtype}",
            expected="two arrays (c, y, x) or (y, x) of one shape and type",
            do="Compare what was decoded with the pixels that were encoded.",
        )
    if valid is not None and (valid.shape != a.shape[-2:] or valid.dtype != np.bool_):
        raise ConfigError.of(
            "`valid` of images to compare",
            got=f"{valid.shape} {valid.dtype}",
            expected=f"{a.shape[-2:]} bool",
            do="Give one truth value a pixel.",
        )


def planes_of(image: Array) -> Array:
    """Return an image with its channels first, a grey one as one channel.

    Parameters
    ----------
    image : ndarray
        `(c, y, x)` or `(y, x)`.

    Returns
    -------
    ndarray
        `(c, y, x)`, a view.
    """
    return image if image.ndim == 3 else image[None]
