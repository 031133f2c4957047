"""What a bit costs: the one number by which a tile of the pyramid codec is fitted, by quality or by what it is to give.

A fit makes D + λ·R least: D is the mean squared error of samples of 0 to 1, over all channels and pixels, R the bits a
pixel. λ is searched where something else is asked for: each attempt is a fit, from the networks of the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tilestream.codecs.pyramid.nets import PyramidNets
from tilestream.errors import ConfigError

LEAST_LMBDA, MOST_LMBDA = 1e-6, 1.0
"""Of what is searched: beyond, files are lossless for the eye, or empty."""
MOST_ATTEMPTS = 8
LMBDA_OF_BASE = 2e-2
"""Of a tile whose error is bounded: half of the bits of its base are not saved by what bounds the error, so a base is
for a first look alone."""
_AT_WORST, _AT_BEST = 2e-2, 5e-5
_FARTHEST_OCTAVES = 4.0
_SLOPES = 8.0
"""How far a slope that was measured may be from the first guess."""


def lmbda_of_quality(quality: float) -> float:
    """Return λ of a quality.

    Parameters
    ----------
    quality : float
        1 to 100.

    Returns
    -------
    float
        2e-2 for 1, 1e-3 for 50, 5e-5 for 100.
    """
    return float(_AT_WORST * (_AT_BEST / _AT_WORST) ** ((quality - 1) / 99))


def quality_of_lmbda(lmbda: float) -> float:
    """Return the quality of a λ: what `lmbda_of_quality` undoes; beyond 1 to 100 where no quality has that λ."""
    return 1 + 99 * math.log(lmbda / _AT_WORST) / math.log(_AT_BEST / _AT_WORST)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A fit on the way to what was asked for."""

    data: bytes
    """Its file."""
    gap: float
    """By how much it is better than asked for: decibels, or octaves of bytes; below 0 it is not good enough."""
    nets: PyramidNets
    """What the next attempt starts from."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What is asked for instead of a λ."""

    rises: int
    """1 where a larger λ comes nearer to it (few bytes), −1 where a smaller one does (many decibels)."""
    slope: float
    """Of the gap, an octave of λ, as a first guess."""
    tolerance: float
    """Gap that is near enough."""
    name: str
    """In errors."""


PSNR = Goal(rises=-1, slope=1.6, tolerance=0.1, name="target_psnr")
BYTES = Goal(rises=1, slope=0.6, tolerance=0.04, name="target_bytes")


def search_lmbda(attempt: Callable[[float, PyramidNets | None], Attempt], goal: Goal, *, first: float) -> Attempt:
    """Return an attempt that is good enough, and no better than needed as far as a few attempts tell.

    Parameters
    ----------
    attempt : callable
        Fits by a λ, from networks where there are some.
    goal : Goal
        What is asked for.
    first : float
        λ to begin with.

    Returns
    -------
    Attempt
        The one of the smallest gap of at least 0.

    Raises
    ------
    ConfigError
        When no λ within reach is good enough.
    """
    ends = sorted(goal.rises * math.log2(end) for end in (LEAST_LMBDA, MOST_LMBDA))
    at, slope = goal.rises * math.log2(first), goal.slope  # the gap rises with the first of them
    points: list[tuple[float, float]] = []
    best: Attempt | None = None
    nets: PyramidNets | None = None
    for _ in range(MOST_ATTEMPTS):
        tried = attempt(2.0 ** (goal.rises * at), nets)
        nets = tried.nets
        if tried.gap >= 0 and (best is None or tried.gap < best.gap):
            best = tried
        if points and at != points[-1][0]:
            found = (tried.gap - points[-1][1]) / (at - points[-1][0])
            slope = min(max(found, goal.slope / _SLOPES), goal.slope * _SLOPES)
        points.append((at, tried.gap))
        if best is not None and best.gap <= goal.tolerance:
            break
        before, at = at, min(max(_next(points, slope, goal.tolerance), ends[0]), ends[1])
        if at == before:  # an end of what is searched
            break
    if best is None:
        raise ConfigError.of(
            f"`{goal.name}` of a codec",
            got=f"no fit of {len(points)} that is good enough",
            expected=f"what some λ of {LEAST_LMBDA:g} to {MOST_LMBDA:g} gives",
            do="Ask for less, or give more steps.",
        )
    return best


def _next(points: list[tuple[float, float]], slope: float, tolerance: float) -> float:
    """Return where to try next: from the last point along the slope, but between those on both sides of 0."""
    at, gap = points[-1]
    aim = tolerance / 2
    step = (aim - gap) / slope
    wanted = at + max(-_FARTHEST_OCTAVES, min(_FARTHEST_OCTAVES, step))
    below = max((place for place, found in points if found < 0), default=-math.inf)
    above = min((place for place, found in points if found >= 0), default=math.inf)
    if not below < above or below < wanted < above:  # fits are not quite monotone
        return wanted
    return (below + above) / 2
