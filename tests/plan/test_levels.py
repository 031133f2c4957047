from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.plan.build import info
from tilestream.errors import ConfigError
from tilestream.plan import choose_level, target_mpp
from tilestream.types import StageContract


@pytest.mark.parametrize(
    ("source_mpp", "mpp", "stored", "ratio"),
    [
        (0.25, 0.25, 0, 1),
        (0.499, 0.5, 0, 1),  # within the tolerance: as stored
        (0.5248, 0.5, 0, 1),
        (0.25, 0.5, 0, 2),
        (0.25, 1.03, 1, 1),  # level 1 is 1 um
        (0.25, 0.97, 1, 1),
        (0.25, 0.75, 0, 3),
        (0.25, 2.0, 1, 2),
        (0.25, 4.0, 2, 1),
        (0.25, 8.0, 2, 2),
        (0.2271, 0.5, 0, Fraction(0.5 / 0.2271).limit_denominator(64)),
        (0.75, 0.5, 0, Fraction(2, 3)),  # enlarged, with a note
    ],
)
def test_coarsest_level_that_is_fine_enough(source_mpp, mpp, stored, ratio):
    choice = choose_level(info(10_001, 7_003, scales=(1, 4, 16)), mpp=mpp, source_mpp=source_mpp)
    assert (choice.level.stored, choice.level.ratio_yx) == (stored, (ratio, ratio))
    assert bool(choice.notes) == (ratio < 1)
    level_px = info(10_001, 7_003, scales=(1, 4, 16)).levels[stored].shape
    assert choice.level.shape.yx == (-(-level_px.y // ratio), -(-level_px.x // ratio))
    assert choice.mpp_yx == pytest.approx((mpp, mpp), rel=0.05 if ratio == 1 else 0.008)
    assert choice.mpp_yx[0] == pytest.approx(source_mpp * choice.level.scale_yx[0])


@given(source_mpp=st.floats(0.1, 2), mpp=st.floats(0.1, 40))
def test_effective_resolution_is_recorded(source_mpp, mpp):
    choice = choose_level(info(9_000, 9_000, scales=(1, 2, 4, 8)), mpp=mpp, source_mpp=source_mpp)
    got = choice.mpp_yx[0]
    assert got == pytest.approx(source_mpp * choice.level.scale_yx[0])
    if not choice.notes:
        assert got == pytest.approx(mpp, rel=0.0501)


def test_axes_differ():
    choice = choose_level(info(1000, 1000, mpp_yx=(0.25, 0.5)), mpp=1.0)
    assert choice.level.ratio_yx == (4, 2)
    assert choice.level.shape.yx == (250, 500)


def test_native_resolution():
    choice = choose_level(info(1000, 999, scales=(1, 4), mpp_yx=(0.25, 0.25)))
    assert (choice.level.stored, choice.level.shape.yx, choice.mpp_yx) == (0, (1000, 999), (0.25, 0.25))


def test_unknown_resolution_is_native_with_a_note():
    choice = choose_level(info(1000, 999, scales=(1, 4)), mpp=0.5)
    assert (choice.level.stored, choice.mpp_yx) == (0, None)
    assert "resolution unknown" in choice.notes[0]


def test_unknown_resolution_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"got none in its metadata.*column `mpp` of a manifest"):
        choose_level(info(1000, 999), mpp=0.5, needs_mpp=True)
    assert choose_level(info(1000, 999), mpp=0.5, needs_mpp=True, source_mpp=0.5).mpp_yx == (0.5, 0.5)


def test_far_too_coarse_image():
    coarse = info(1000, 999, mpp_yx=(29.0, 29.0))
    choice = choose_level(coarse, mpp=0.5)
    assert choice.level.is_stored
    assert "too coarse" in choice.notes[0]
    with pytest.raises(ConfigError, match=r"got 29 um/px at its finest, expected at most 1 um/px"):
        choose_level(coarse, mpp=0.5, needs_mpp=True)


@pytest.mark.parametrize("wrong", [{"mpp": 0.0}, {"mpp": -1.0}, {"mpp": float("nan")}, {"source_mpp": float("inf")}])
def test_impossible_resolutions_are_refused(wrong):
    with pytest.raises(ConfigError, match="micrometres above 0"):
        choose_level(info(10, 10), **wrong)


def test_target_is_native_on_scenes():
    contract = StageContract(name="x", px=256, mpp=0.5)
    assert target_mpp(contract, info(10, 10)) == 0.5
    assert target_mpp(contract, info(10, 10, crs="EPSG:32629")) is None
    assert target_mpp(contract, info(10, 10, modality="scene")) is None
