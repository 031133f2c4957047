"""Rate and distortion: what a codec needs for a quality, and how much more or less another needs for the same.

    bd_rate = exp( 1/(q1 − q0) ∫ ln r_other(q) − ln r_anchor(q) dq ) − 1        q: score, r: bits per pixel

ln r(q) is the Akima spline through the points of a curve, integrated over the scores that both curves reach. Sources:
Bjøntegaard, Calculation of average PSNR differences between RD-curves, VCEG-M33, 2001 (who took polynomials, which
swing between points); Akima, A new method of interpolation, J. ACM 17, 1970, which is common practice by now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilestream.errors import ConfigError

LEAST_POINTS = 4
"""Of a curve, for a rate to be compared."""
LEAST_OVERLAP = 0.5
"""Of the scores of either curve, the part that the shared ones must make up in the one that spans less."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one setting of a codec made of one image."""

    setting: float
    """Of the knob of the codec."""
    size_bytes: int
    """Of the whole file: headers and networks count."""
    bpp: float
    """Bits per pixel, all channels together."""
    scores: Mapping[str, float]
    """By measure: `psnr` and others, more is better; inf where nothing was lost."""
    seconds: float
    """To encode and decode, as it went."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The points of a codec on one image."""

    codec: str
    """Name of the codec."""
    picture: str
    """Name of the image."""
    points: tuple[Point, ...]
    """In any order."""

    def at(self, bpp: float, *, score: str = "psnr") -> float:
        """Return the score at a rate.

        Parameters
        ----------
        bpp : float
            Bits per pixel.
        score : str
            Which measure.

        Returns
        -------
        float
            Along the monotone cubic (PCHIP) over log rate, which invents no score that no point has; NaN outside the
            points, or where there are less than two.
        """
        from scipy.interpolate import PchipInterpolator

        rates, scores = _rising(self, score)
        if len(rates) < 2 or not rates[0] <= bpp <= rates[-1]:
            return math.nan
        return float(PchipInterpolator(np.log(rates), scores)(math.log(bpp)))


def bd_rate(anchor: Curve, other: Curve, *, score: str = "psnr", bpp: tuple[float, float] | None = None) -> float:
    """Return how many more bits another codec needs than the anchor for equal scores, in percent.

    Parameters
    ----------
    anchor : Curve
        What is compared with.
    other : Curve
        Of the same image.
    score : str
        Which measure is to be equal.
    bpp : tuple of float, optional
        Least and most bits per pixel of the anchor; where the anchor spends less or more, nothing is compared.

    Returns
    -------
    float
        Percent; -50 is half the bits. Points where nothing is lost and points that cost more than another for no more
        are left out.

    Raises
    ------
    ConfigError
        When the curves are of different images, have less than four points that rise, or share too few scores: less
        than half of what the one that spans less reaches.
    """
    if anchor.picture != other.picture:
        raise ConfigError.of(
            "curves to compare", got=f"{anchor.picture} and {other.picture}", expected="one image", do="Pair them."
        )
    curves = [_rising(curve, score) for curve in (anchor, other)]
    for curve, (rates, _) in zip((anchor, other), curves, strict=True):
        if len(rates) < LEAST_POINTS:
            raise ConfigError.of(
                f"the points of `{curve.codec}` on `{curve.picture}`",
                got=f"{len(rates)} that rise in `{score}` and are finite",
                expected=f"at least {LEAST_POINTS}",
                do="Measure more settings.",
            )
    spans = [(float(scores[0]), float(scores[-1])) for _, scores in curves]
    if bpp is not None:
        spans[0] = _scores_between(*curves[0], bpp)
    low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
    if not high - low >= LEAST_OVERLAP * min(top - bottom for bottom, top in spans) or not high > low:
        told = " and ".join(
            f"{curve.codec} {bottom:.4g} to {top:.4g}"
            for curve, (bottom, top) in zip((anchor, other), spans, strict=True)
        )
        raise ConfigError.of(
            f"`{score}` of the curves on `{anchor.picture}`",
            got=told,
            expected=f"scores that overlap by {100 * LEAST_OVERLAP:.0f} % of the shorter of the two",
            do="Measure settings at which the qualities are the same, or compare scores at a rate.",
        )
    logs = [_akima(scores, np.log(rates)).integrate(low, high) for rates, scores in curves]
    return 100 * math.expm1(float(logs[1] - logs[0]) / (high - low))


def _rising(curve: Curve, score: str) -> tuple[Any, Any]:
    """Return rates and scores of the points that no other is better than, both strictly rising."""
    found: list[tuple[float, float]] = []
    for point in sorted(curve.points, key=lambda point: (point.bpp, -point.scores.get(score, -math.inf))):
        value = point.scores.get(score, math.nan)
        if math.isfinite(value) and (not found or value > found[-1][1]):
            found.append((point.bpp, value))
    return np.array([rate for rate, _ in found]), np.array([value for _, value in found])


def _scores_between(rates: Any, scores: Any, bpp: tuple[float, float]) -> tuple[float, float]:
    spline = _akima(np.log(rates), scores)
    ends = [float(spline(math.log(min(max(rate, rates[0]), rates[-1])))) for rate in bpp]
    return ends[0], ends[1]


def _akima(x: Any, y: Sequence[float] | Any) -> Any:
    from scipy.interpolate import Akima1DInterpolator

    return Akima1DInterpolator(x, y)
