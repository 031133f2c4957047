import numpy as np
import pytest

from tests.relevance.made import slide, texture
from tilestream.errors import ConfigError
from tilestream.relevance import Entropy, MaskTerm, Relevance
from tilestream.types import ScoreMap, Shape

HALF = np.zeros((64, 80), np.bool_)
HALF[:, 40:] = True


def test_an_array_covers_the_image():
    pyr = slide(texture(256, 320))
    found = MaskTerm(mask=HALF)(pyr)
    assert found.values.shape == (32, 40)
    np.testing.assert_array_equal(found.values[:, :20], 0)
    np.testing.assert_array_equal(found.values[:, 20:], 1)
    assert found.absolute


def test_a_map_is_the_share_that_it_covers():
    values = np.zeros((4, 5), np.float32)
    values[0, 0] = 1
    mask = ScoreMap(
        name="drawn", values=values, valid=np.ones((4, 5), np.bool_), cell_yx=(12.0, 12.0), shape=Shape(y=48, x=60)
    )
    found = MaskTerm(mask=mask)(slide(texture(48, 60)))
    np.testing.assert_allclose(found.values[0, :3], [1, 0.5, 0], atol=1e-6)
    assert found.values[1, 1] == pytest.approx(0.25)


def test_nothing_normalises_it():
    pyr = slide(texture(256, 320))
    found = Relevance(terms={"entropy": Entropy(), "mask": MaskTerm(mask=HALF)}, weights={"entropy": 0, "mask": 1})
    np.testing.assert_array_equal(found(pyr).values, MaskTerm(mask=HALF)(pyr).values)


def test_recipe_tells_masks_apart():
    other = HALF.copy()
    other[0, 0] = True
    recipes = [MaskTerm(mask=mask).recipe for mask in (HALF, HALF.astype(np.float64), other)]
    assert recipes[0] == recipes[1] != recipes[2]


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (np.ones((2, 2, 3)), r"an array \(2, 2, 3\)"),
        (np.ones((0, 3)), r"an array \(0, 3\)"),
        ("tissue.png", "expected bool or numbers"),
        (np.full((2, 2), 255, np.uint8), "values from 255 to 255"),
        (np.array([[0.5, np.nan]]), "values from nan to nan"),
    ],
)
def test_what_is_no_mask(mask, told):
    with pytest.raises(ConfigError, match=told):
        MaskTerm(mask=mask)


def test_masks_of_another_image():
    pyr = slide(texture(256, 320))
    with pytest.raises(ConfigError, match="uncropped"):
        MaskTerm(mask=np.ones((80, 64)))(pyr)
    values = np.ones((1, 1), np.float32)
    mask = ScoreMap(name="m", values=values, valid=values > 0, cell_yx=(64, 64), shape=Shape(y=64, x=64))
    with pytest.raises(ConfigError, match="of an image of 64 x 64 px"):
        MaskTerm(mask=mask)(pyr)
