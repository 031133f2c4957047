"""The levels of a plan of tokens: the resolution it works at, and that halved again and again."""

from __future__ import annotations

from fractions import Fraction

from tilestream.kernels.taps import MAX_TERM
from tilestream.types import ImageInfo, PlanLevel, Shape

FINE = 0.005
"""Relative difference up to which a stored level counts as fine enough: sizes are rounded when levels are made."""
TERM = 1 << 12
"""Largest denominator of the ratio of two stored levels."""
COARSE = 4
"""A token that is reduced by more than this from what is stored costs many times its own pixels: a note says so."""


def token_level(info: ImageInfo, base: PlanLevel, depth: int) -> PlanLevel:
    """Return a level of tokens: plan pixels halved so many times, read from the coarsest stored level that is enough.

    Parameters
    ----------
    info : ImageInfo
        The image.
    base : PlanLevel
        The resolution of the finest tokens.
    depth : int
        Halvings; 0 is `base` itself.

    Returns
    -------
    PlanLevel
        Its pixels are 2**depth of the base's wide, so that tokens of different levels lie side by side; where that is
        no ratio that can be resampled by, to a hundredth of a pixel at the far edge.
    """
    if depth == 0:
        return base
    edge = 2**depth
    scale_yx = base.scale_yx[0] * edge, base.scale_yx[1] * edge
    finest = info.levels[base.stored]
    fine = [
        one
        for one in info.levels[base.stored :]
        if all(own <= wanted * (1 + FINE) for own, wanted in zip(one.scale_yx, scale_yx, strict=True))
    ]
    stored = fine[-1]
    step_y, step_x = (
        _times(own, of, length)
        for own, of, length in zip(stored.scale_yx, finest.scale_yx, stored.shape.yx, strict=True)
    )
    return PlanLevel(
        stored=stored.index,
        ratio_yx=(_within(base.ratio_yx[0] * edge / step_y), _within(base.ratio_yx[1] * edge / step_x)),
        shape=Shape(y=-(-base.shape.y // edge), x=-(-base.shape.x // edge)),
        scale_yx=scale_yx,
    )


def _within(ratio: Fraction) -> Fraction:
    """Return the ratio, or the nearest that `kernels.resample` takes: terms of at most 2^15."""
    if max(ratio.numerator, ratio.denominator) <= MAX_TERM:
        return ratio
    return ratio.limit_denominator(int(MAX_TERM / max(float(ratio), 1.0)) - 1)


def _times(own: float, of: float, length_px: int) -> Fraction:
    """Return how many pixels of a finer level one of a coarser makes: whole, where that is right to a pixel."""
    exact = own / of
    whole = max(1, round(exact))
    if abs(exact / whole - 1) * length_px <= 1:
        return Fraction(whole)
    return Fraction(exact).limit_denominator(TERM)
