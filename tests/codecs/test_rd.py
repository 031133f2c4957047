"""Rates that curves are compared by: exact where the answer is known, refused where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from tilestream.codecs.rd import Curve, Point, bd_rate
from tilestream.errors import ConfigError


def curve(rates: Sequence[float], scores: Sequence[float], *, codec: str = "one", picture: str = "p") -> Curve:
    points = [
        Point(setting=k, size_bytes=1, bpp=rate, scores={"psnr": score}, seconds=0)
        for k, (rate, score) in enumerate(zip(rates, scores, strict=True))
    ]
    return Curve(codec=codec, picture=picture, points=tuple(points))


RATES = (0.3, 0.6, 1.1, 2.0, 3.2)
SCORES = (24.0, 27.5, 30.0, 33.8, 36.0)


@given(factor=st.floats(0.05, 20), order=st.permutations(range(5)))
def test_bits_times_a_factor_are_that_factor(factor: float, order: list[int]) -> None:
    other = curve([RATES[k] * factor for k in order], [SCORES[k] for k in order])
    assert bd_rate(curve(RATES, SCORES), other) == pytest.approx(100 * (factor - 1), rel=1e-9, abs=1e-9)


def test_it_is_the_integral_over_the_shared_scores() -> None:
    """Two smooth curves: whatever spline is taken gives nearly the same area."""
    first = [10 + 8 * math.log2(1 + 4 * rate) for rate in RATES]
    second = [11 + 8.5 * math.log2(1 + 4 * rate) for rate in RATES]
    low, high = second[0], first[-1]
    grid = np.linspace(low, high, 2001)
    logs = [PchipInterpolator(scores, np.log(RATES))(grid) for scores in (first, second)]
    expected = 100 * math.expm1(float(np.mean(logs[1] - logs[0])))
    assert bd_rate(curve(RATES, first), curve(RATES, second)) == pytest.approx(expected, abs=0.5)


def test_swapped_curves_undo_each_other() -> None:
    first, second = curve(RATES, SCORES), curve(RATES, [score + 1.3 for score in SCORES])
    there, back = bd_rate(first, second), bd_rate(second, first)
    assert there < 0 < back
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)


def test_points_that_lose_nothing_or_bring_nothing_are_left_out() -> None:
    plain = curve(RATES, SCORES)
    more = curve((*RATES, 0.7, 3.5, 9.0), (*SCORES, 26.0, math.inf, 35.0))
    assert bd_rate(plain, more) == pytest.approx(0, abs=1e-12)


def test_a_range_of_rates_is_that_of_the_anchor() -> None:
    """Twice the bits below 30 dB, half of them above."""
    anchor = curve((0.25, 0.5, 1, 2, 4, 8), (20, 24, 28, 32, 36, 40))
    other = curve((0.5, 1, 2, 1.99 * 2**0.5, 2.01 * 2**0.5, 4), (20, 24, 28, 35, 36, 40))
    assert bd_rate(anchor, other, bpp=(0.25, 0.5)) == pytest.approx(100, abs=1)
    assert bd_rate(anchor, other, bpp=(4, 8)) < -25


def test_a_score_at_a_rate() -> None:
    one = curve(RATES, SCORES)
    assert [one.at(rate) for rate in RATES] == pytest.approx(SCORES)
    assert SCORES[1] < one.at(0.8) < SCORES[2]
    steep = curve(RATES, (0.9, 0.999, 1.0 - 1e-7, 1.0 - 1e-9, 1.0))
    assert all(0.9 <= steep.at(rate) <= 1 for rate in np.linspace(RATES[0], RATES[-1], 200))
    assert math.isnan(one.at(0.2))
    assert math.isnan(one.at(4))
    assert math.isnan(curve((1.0,), (30.0,)).at(1.0))
    assert math.isnan(one.at(1, score="ssim"))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: curve(RATES, [score + 30 for score in SCORES], codec="far"), "far 54 to 66.*overlap by 50 %"),
        (lambda: curve(RATES, [score + 7 for score in SCORES]), "overlap by 50 %"),
        (lambda: curve(RATES[:3], SCORES[:3], codec="short"), "`short` on `p`: got 3 .*at least 4"),
        (lambda: curve(RATES, (24, 26, 25, 24, 23), codec="falls"), "`falls` on `p`: got 2 "),
        (lambda: curve(RATES, [math.nan] * 5), "got 0"),
        (lambda: curve(RATES, SCORES, picture="q"), "one image"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: Callable[[], Curve], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bd_rate(curve(RATES, SCORES), other())


def test_a_measure_that_nobody_took_is_refused() -> None:
    with pytest.raises(ConfigError, match="`ms_ssim`"):
        bd_rate(curve(RATES, SCORES), curve(RATES, SCORES), score="ms_ssim")


def test_a_range_of_rates_that_the_anchor_never_spends_is_refused() -> None:
    with pytest.raises(ConfigError, match="overlap"):
        bd_rate(curve(RATES, SCORES), curve(RATES, SCORES), bpp=(8, 16))
