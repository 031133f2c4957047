"""Least squares of a residual: weights of pixels in few enough bits that they pay, and widths of errors.

A weight is as fine as its bits are worth: an error d of all weights costs ½ dᵀ G d / ln 2 bits, with G the products of
what they multiply, each pixel by its information. Weights are rounded one after another, each time with the least
squares of those that are left (as Frantar et al. 2022, arXiv 2210.17323, do for networks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

INFORMATION = 0.64
"""Of a logistic bell with mean magnitude 1 about its middle."""
_HALF_LOGISTIC = math.log(2)
"""Half of the mean magnitude of a logistic bell of scale 1."""
_FINEST, _COARSEST = 12, 5
"""Binary places of weights that are tried."""
_MOST_WEIGHT = 7.9
_WIDTH_ROUNDS = 3
_LEAST_SHARE, _LEAST_WIDTH = 0.15, 0.05
"""Of the mean width, and in a pixel's unit: what is expected at least, so that no pixel counts for all."""
_NOISE = 2e-3
"""Variance that is added to all that is multiplied, in place of what rounding adds; what is constant has none."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The width of errors as a weighted sum of errors around."""

    weights: Floats
    """`(features,)`."""
    bias: float
    """In a pixel's unit."""
    least: float
    """Smallest width."""

    def widths(self, errors: Floats) -> Floats:
        """Return the widths for errors `(n, features)`."""
        found: Floats = np.maximum(errors @ self.weights + self.bias, self.least)
        return found


def information(far: Floats, widths: Floats) -> Floats:
    """Return how much pixels count that are so far from their middles: outliers little, as for the tails of a bell."""
    ratio = np.maximum(_HALF_LOGISTIC * far / widths, 1e-6)
    found: Floats = INFORMATION / widths**2 * np.tanh(ratio) / ratio
    return found


def weights_of(around: Floats, pixels: Floats, counts: Floats, *, has_scale: bool) -> tuple[Floats, float]:
    """Return weights of least squares in as many bits as pay, and the bias.

    Parameters
    ----------
    around : ndarray of float64
        `(n, features)`.
    pixels : ndarray of float64
        `(n,)`: what is to be told from them.
    counts : ndarray of float64
        `(n,)`: for how much each counts.
    has_scale : bool
        Whether `counts` are information; otherwise the mean error of all gives it.

    Returns
    -------
    weights : ndarray of float64
        `(features,)`, whole multiples of a power of two from 2^-12 on.
    bias : float
        Not rounded.
    """
    if not counts.any():
        return np.zeros(around.shape[1]), 0.0
    mean, goal = counts @ around / counts.sum(), float(counts @ pixels / counts.sum())
    centred, wanted = around - mean, pixels - goal
    products = (centred * counts[:, None]).T @ centred
    products[np.diag_indices_from(products)] += 1e-6 * products.diagonal() + _NOISE * counts.sum()
    exact = np.linalg.solve(products, centred.T @ (counts * wanted))
    if not has_scale:
        far = float(counts @ np.abs(wanted - centred @ exact) / counts.sum())
        products = products * (INFORMATION / max(far, 0.2) ** 2)
    factor = np.linalg.cholesky(np.linalg.inv(products)).T
    best: tuple[float, Floats] = (math.inf, exact)
    for places in range(_COARSEST, _FINEST + 1):
        rounded = _rounded(exact, factor, 2.0**-places)
        off = rounded - exact
        bits = float((np.log2(1 + np.abs(rounded) * 2**places) * 1.5 + 1.5).sum())
        best = min(best, (bits + float(off @ products @ off) / (2 * math.log(2)), rounded), key=lambda one: one[0])
    return best[1], goal - float(mean @ best[1])


def spread_of(errors: Floats, far: Floats) -> Spread:
    """Return the widths that tell best how far pixels are from their middles.

    Parameters
    ----------
    errors : ndarray of float64
        `(n, features)`, magnitudes of errors around.
    far : ndarray of float64
        `(n,)`, their own.

    Returns
    -------
    Spread
        Least squares of relative errors.
    """
    mean = float(far.mean()) if far.size else 0.0
    least = max(_LEAST_SHARE * mean, _LEAST_WIDTH)
    found = Spread(weights=np.zeros(errors.shape[1]), bias=max(mean, least), least=least)
    if not far.any():
        return found
    joined = np.concatenate([errors, np.ones((len(errors), 1))], axis=1)
    for _ in range(_WIDTH_ROUNDS):
        weighted = joined / found.widths(errors)[:, None] ** 2
        products = weighted.T @ joined
        diagonal = np.diag_indices_from(products)
        products[diagonal] += 1e-4 * products[diagonal] + 1e-9 * products.max()
        *weights, bias = np.linalg.solve(products, weighted.T @ far)
        found = Spread(weights=np.array(weights), bias=float(bias), least=least)
    return found


def _rounded(exact: Floats, factor: Floats, step: float) -> Floats:
    """Return weights in whole steps; what one is off by goes to those after it."""
    left, limit = exact.copy(), math.floor(_MOST_WEIGHT / step) * step
    for k in range(len(left)):
        whole = float(np.clip(np.rint(left[k] / step) * step, -limit, limit))
        left[k + 1 :] -= (left[k] - whole) / factor[k, k] * factor[k, k + 1 :]
        left[k] = whole
    return left
