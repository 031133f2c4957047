"""Published constants, and that all laws say the same of e0."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tilestream.errors import ConfigError
from tilestream.fovea import PRESETS, Fovea, px_per_degree_of
from tilestream.fovea.laws import LAWS, level_at, reach_of


@pytest.mark.parametrize("law", LAWS)
def test_a_law_and_its_inverse(law) -> None:
    wanted = np.linspace(0, 9, 37)
    reach = np.array([reach_of(law, level) for level in wanted])
    assert (np.diff(reach) > 0).all()
    assert_allclose(level_at(law, reach), wanted, atol=1e-12)
    assert level_at(law, np.array([0.0, 1.0])).tolist() == [0, 1], "nothing is lost at the fixation, half at e0"


E_DEG = np.array([0.0, 0.5, 1.5, 4.0, 12.0, 30.0])


@pytest.mark.parametrize(
    ("preset", "detail"),
    [
        # what each paper calls the finest detail, or the cortex a degree takes, as a function of eccentricity
        ("acuity", lambda e: 1 / (1 / 48 + 1.32 / 60 * e)),
        ("acuity-steep", lambda e: 1 / (1 / 48 + 0.0275 * e)),
        ("cowey-rolls", lambda e: 8.55 / (1 + e / 1.746)),
        ("rovamo-virsu", lambda e: 7.99 / (1 + e / 3)),
        ("horton-hoyt", lambda e: 17.3 / (0.75 + e)),
        ("duncan-boynton", lambda e: 18.5 / (1 + e / 0.831)),
        ("larsson-heeger", lambda e: 22.5 / (1 + e / 0.785)),
        ("gaussian", lambda e: np.exp(-(e**2) / 2)),
    ],
)
def test_presets_are_what_was_published(preset, detail) -> None:
    found = PRESETS[preset]
    levels = level_at(found.law, E_DEG / found.e0_deg)
    assert_allclose(levels, np.log2(detail(0.0) / detail(E_DEG)), atol=1e-9)
    fovea = Fovea.of_degrees((3, 4), px_per_degree=40.0, preset=preset, max_level=5)
    assert (fovea.e0_px, fovea.law, fovea.max_level) == (found.e0_deg * 40.0, found.law, 5)
    assert any(year in found.source for year in ("1974", "1979", "1991", "2003", "2006", "2012", "2013"))


def test_every_preset_is_compared() -> None:
    assert len(PRESETS) == 8
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["acuity"]  # type: ignore[index]


def test_degrees_of_a_screen() -> None:
    """At 57.3 cm a centimetre is a degree."""
    assert px_per_degree_of(distance_mm=572.94, pixel_mm=0.25) == pytest.approx(40, rel=1e-5)
    assert px_per_degree_of(distance_mm=572.94, pixel_mm=0.25, shown_at=32) == pytest.approx(1280, rel=1e-5)


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf"), "60", True, None])
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("distance_mm", lambda bad: px_per_degree_of(distance_mm=bad, pixel_mm=0.25)),
        ("pixel_mm", lambda bad: px_per_degree_of(distance_mm=600, pixel_mm=bad)),
        ("shown_at", lambda bad: px_per_degree_of(distance_mm=600, pixel_mm=0.25, shown_at=bad)),
        ("px_per_degree", lambda bad: Fovea.of_degrees((1, 1), px_per_degree=bad)),
    ],
)
def test_what_is_no_length_is_refused(name, made, bad) -> None:
    with pytest.raises(ConfigError, match=f"`{name}`.*finite number above 0"):
        made(bad)


def test_an_unknown_preset_names_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"`preset` of `Fovea`.*'eagle'.*horton-hoyt"):
        Fovea.of_degrees((1, 1), px_per_degree=40, preset="eagle")
