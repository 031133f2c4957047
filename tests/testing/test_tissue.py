import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import boxes_near
from tilestream.testing.noise import cell_walls, hash_unit, value_noise
from tilestream.testing.tissue import GLASS, Tissue
from tilestream.types import Box, Shape

SHAPE = Shape(y=620, x=840)
TISSUE = Tissue(shape=SHAPE, seed=5)
MARGIN = 30
AROUND = Box(y=0, x=0, height=SHAPE.y, width=SHAPE.x).grow(MARGIN)


@pytest.fixture(scope="module")
def whole() -> npt.NDArray[np.uint8]:
    return TISSUE.paint(AROUND)


@given(box=boxes_near(SHAPE, reach_px=MARGIN).filter(lambda b: b.height * b.width < 60_000))
def test_any_part_is_the_same_as_in_the_whole(box: Box, whole: npt.NDArray[np.uint8]) -> None:
    cut = box.intersect(AROUND)
    y, x = cut.y + MARGIN, cut.x + MARGIN
    np.testing.assert_array_equal(TISSUE.paint(cut), whole[y : y + cut.height, x : x + cut.width])


def test_has_glass_stroma_and_nuclei(whole: npt.NDArray[np.uint8]) -> None:
    brightness = whole.mean(axis=2)
    assert 0.1 < (brightness > 235).mean() < 0.8  # glass and hollows
    assert (brightness < 110).mean() > 0.005  # nuclei
    red, green, _ = (whole[..., c].astype(float) for c in range(3))
    assert (red - green > 25).mean() > 0.1  # eosin


@pytest.mark.parametrize("seed", [0, 6])
def test_seed_decides(seed: int) -> None:
    box = Box(y=200, x=300, height=120, width=150)
    again = Tissue(shape=SHAPE, seed=seed).paint(box)
    np.testing.assert_array_equal(again, Tissue(shape=SHAPE, seed=seed).paint(box))
    assert (again != TISSUE.paint(box)).any()


def test_corner_is_glass() -> None:
    corner = Tissue(shape=Shape(y=4000, x=4000), seed=1).paint(Box(y=0, x=0, height=20, width=20))
    assert np.abs(corner.astype(float) - GLASS).max() <= 4


@given(seed=st.integers(0, 1000), y=st.integers(-(10**6), 10**6), x=st.integers(-(10**6), 10**6))
def test_noise_stays_in_its_range(seed: int, y: int, x: int) -> None:
    noise = value_noise(Box(y=y, x=x, height=7, width=9), cell_px=3.3, seed=seed, octaves=3)
    assert noise.shape == (7, 9)
    assert noise.min() >= 0
    assert noise.max() <= 1


def test_hash_is_even() -> None:
    values = hash_unit(np.arange(300)[:, None], np.arange(300)[None, :], 1)
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    assert counts.min() > 8700
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.02


def test_walls_are_between_cells() -> None:
    distance = cell_walls(Box(y=0, x=0, height=200, width=200), cell_px=40, seed=2)
    assert distance.min() < 0.05
    assert 0.2 < distance.max() < 2
