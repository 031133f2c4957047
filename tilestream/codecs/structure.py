"""Structural similarity of two images, at one scale and over five, in float64.

    ssim     mean of l·cs,   l = (2 μa μb + C1) / (μa² + μb² + C1)    μ, σ: Gaussian window of 11 pixels, σ = 1.5
                            cs = (2 σab + C2) / (σa² + σb² + C2)      C1 = (0.01 high)², C2 = (0.03 high)²
    ms_ssim  (l·cs)5^w5 · Π cs_i^w_i, i = 1 … 4                       five scales, each half the one before

Means are over the windows that lie in the image, then over channels; in MS-SSIM a mean below 0 counts as 0. Sources:
Wang et al., Image Quality Assessment, IEEE TIP 13, 2004; Wang et al., Multi-Scale Structural Similarity, Asilomar 2003.
Tolerance of the tests, against pytorch-msssim: 1e-9.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilestream.codecs.quality import planes_of, require_pair, span_of
from tilestream.errors import ConfigError
from tilestream.types import Array

Plane = npt.NDArray[np.float64]

WINDOW_PX, WINDOW_SIGMA = 11, 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM, finest scale first."""
MS_SSIM_PX = (WINDOW_PX - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
"""Least edge, so that the coarsest scale holds a window."""


def ssim(a: Array, b: Array, *, high: float | None = None) -> float:
    """Return the structural similarity of two images.

    Parameters
    ----------
    a, b : ndarray
        Of one shape and type, `(c, y, x)` or `(y, x)`, at least 11 pixels along both edges.
    high : float, optional
        What the samples span; 255 by default for 8 bits, needed for all other types.

    Returns
    -------
    float
        At most 1, which is equality.

    Raises
    ------
    ConfigError
        When they do not belong together or are smaller than a window, or a sample is not finite.
    """
    span = _require_windows("ssim", a, b, high, least_px=WINDOW_PX)
    found = [_similarity(*pair, span)[0] for pair in zip(planes_of(a), planes_of(b), strict=True)]
    return float(np.mean(found))


def ms_ssim(a: Array, b: Array, *, high: float | None = None) -> float:
    """Return the structural similarity of two images over five scales.

    Parameters
    ----------
    a, b : ndarray
        Of one shape and type, `(c, y, x)` or `(y, x)`, at least 161 pixels along both edges, so that the coarsest scale
        holds a window.
    high : float, optional
        What the samples span; 255 by default for 8 bits, needed for all other types.

    Returns
    -------
    float
        0 to 1, which is equality.

    Raises
    ------
    ConfigError
        When they do not belong together or are too small, or a sample is not finite.

    Notes
    -----
    A scale is the mean of 2x2 pixels of the one before, at an odd edge of those that exist; pytorch-msssim pads odd
    sizes with zeros on both sides, so that they differ there in the fourth digit.
    """
    span = _require_windows("ms_ssim", a, b, high, least_px=MS_SSIM_PX)
    found = []
    for left, right in zip(planes_of(a), planes_of(b), strict=True):
        product = 1.0
        for scale, weight in enumerate(SCALE_WEIGHTS):
            if scale:
                left, right = _halved(left), _halved(right)
            whole, structure = _similarity(left, right, span)
            is_last = scale == len(SCALE_WEIGHTS) - 1
            product *= max(0.0, whole if is_last else structure) ** weight
        found.append(product)
    return float(np.mean(found))


def _similarity(a: Array, b: Array, span: float) -> tuple[float, float]:
    """Return the means of l·cs and of cs of one channel."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    both, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    structure = (2 * (_windowed(x * y) - both) + c2) / (_windowed(x * x) + _windowed(y * y) - squares + c2)
    whole = (2 * both + c1) / (squares + c1) * structure
    return float(whole.mean()), float(structure.mean())


def _windowed(plane: Plane) -> Plane:
    """Return the weighted means of the windows that lie in a plane."""
    from scipy.ndimage import correlate1d

    radius = WINDOW_PX // 2
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * WINDOW_SIGMA**2))
    taps /= taps.sum()
    rows = correlate1d(plane, taps, axis=0)[radius:-radius]
    found: Plane = correlate1d(rows, taps, axis=1)[:, radius:-radius]
    return found


def _halved(plane: Array) -> Plane:
    """Return the means of 2x2 pixels, at an odd edge of those that exist."""
    doubled = np.pad(plane.astype(np.float64), [(0, size % 2) for size in plane.shape], mode="edge")
    found: Plane = doubled.reshape(doubled.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3))
    return found


def _require_windows(name: str, a: Array, b: Array, high: float | None, *, least_px: int) -> float:
    require_pair(a, b)
    if min(a.shape[-2:]) < least_px or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ConfigError.of(
            f"images to compare by `{name}`",
            got=f"{a.shape[-2]} x {a.shape[-1]} px" if min(a.shape[-2:]) < least_px else "NaN or infinite samples",
            expected=f"finite samples, at least {least_px} x {least_px} px",
            do="Compare larger pieces, or use `psnr`, which knows what is not valid.",
        )
    return span_of(a.dtype, high)
