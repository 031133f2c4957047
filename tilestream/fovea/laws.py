"""How detail falls off with eccentricity: the laws, and the constants that were published for human vision.

All are relative to the fixation, where level 0 is seen, and are one number each: e0, at which detail is halved.

inverse-linear    L(e) = log2(1 + e/e0)     cortical magnification M(e) = M0/(1 + e/E2) with e0 = E2 (Levi et al. 1985);
                                            acuity MAR(e) = w0 + m·e with e0 = w0/m (Guenter et al. 2012);
                                            L = log2(M(0)/M(e)) = log2(MAR(e)/MAR(0))
gaussian          L(e) = (e/e0)²            resolution exp(−e²/2σ²) with e0 = σ·√(2 ln 2), its half width at half height
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Law: TypeAlias = Literal["inverse-linear", "gaussian"]
LAWS: tuple[Law, ...] = get_args(Law)


def level_at(law: Law, ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return L at eccentricities in units of e0; it rises with them.

    Parameters
    ----------
    law : str
        One of `LAWS`.
    ratio : ndarray of float64
        e/e0, at least 0.

    Returns
    -------
    ndarray of float64
        Levels, 0 at the fixation and 1 at e0.
    """
    return np.square(ratio) if law == "gaussian" else np.log2(1 + ratio)


def reach_of(law: Law, level: float) -> float:
    """Return the eccentricity in units of e0 up to which less than a level is asked for: `level_at` the other way.

    Parameters
    ----------
    law : str
        One of `LAWS`.
    level : float
        At least 0.

    Returns
    -------
    float
        e/e0.
    """
    return float(sqrt(level) if law == "gaussian" else 2.0**level - 1)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published measurement of how detail falls off for human eyes."""

    e0_deg: float
    """Eccentricity at which detail is halved, degrees of visual angle."""
    law: Law
    """How it falls off."""
    source: str
    """Who measured it, and the constants as they stand there."""


def _cortical(e2_deg: float, m0_mm: float, source: str) -> Preset:
    constants = f"E2 = {e2_deg:g} deg, M0 = {m0_mm:g} mm/deg"
    review = "Strasburger et al. 2011, J. Vision 11(5):13, doi:10.1167/11.5.13"
    return Preset(e0_deg=e2_deg, law="inverse-linear", source=f"{source}: {constants}; after {review}")


def _acuity(slope_arcmin: float, quality: str) -> Preset:
    constants = f"w0 = 1/48 deg, m = {slope_arcmin:g} arcmin/deg ({quality})"
    source = "Guenter et al. 2012, ACM Trans. Graph. 31(6):164, doi:10.1145/2366145.2366183"
    return Preset(e0_deg=60 / 48 / slope_arcmin, law="inverse-linear", source=f"{source}: {constants}")


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "acuity": _acuity(1.32, "as good as a full picture when shown beside it"),
        "acuity-steep": _acuity(1.65, "steps in quality are no longer told apart"),
        "cowey-rolls": _cortical(1.746, 8.55, "Cowey & Rolls 1974"),
        "rovamo-virsu": _cortical(3.0, 7.99, "Rovamo & Virsu 1979, without its cubic term, which adds little"),
        "horton-hoyt": _cortical(0.75, 23.1, "Horton & Hoyt 1991, 17.3/(0.75 + e)"),
        "duncan-boynton": _cortical(0.831, 18.5, "Duncan & Boynton 2003"),
        "larsson-heeger": _cortical(0.785, 22.5, "Larsson & Heeger 2006"),
        "gaussian": Preset(
            e0_deg=sqrt(2 * log(2)),
            law="gaussian",
            source="sigma = 1 deg, the fovea with which fixations are drawn: Le Meur & Baccino 2013, "
            "Behav. Res. Methods 45:251, doi:10.3758/s13428-012-0226-9",
        ),
    }
)
"""By name. M0, the millimetres of cortex that a degree takes at the fixation, cancels in L, which says how much less
there is elsewhere."""
