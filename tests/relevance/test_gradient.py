import numpy as np
import pytest
from scipy import ndimage

from tests.plan.build import pyramid
from tests.relevance.made import as_floats, flawed, glass, slide, texture
from tilestream.errors import ConfigError
from tilestream.relevance import Gradient


def test_is_the_mean_length_in_each_cell():
    picture = texture(64, 88)
    iy, ix = (
        np.stack([ndimage.sobel(picture[..., c].astype(float), axis=axis, mode="nearest") / 8 for c in range(3)])
        for axis in (0, 1)
    )
    expected = np.sqrt((iy**2 + ix**2).mean(axis=0)).reshape(8, 8, 11, 8).mean(axis=(1, 3))
    found = Gradient()(slide(picture))
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    assert found.valid.all()


def test_glass_stays_below_the_floor():
    found = Gradient()(slide(glass(128, 128)))
    assert found.values.max() < found.floor


def test_a_ramp_is_its_slope():
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (64, 1))
    np.testing.assert_allclose(Gradient()(slide(ramp)).values[:, 1:-1], 2)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "float32", "float64"])
def test_of_other_types_it_is_a_contrast(dtype):
    """The same picture at four times the light has the same map, and so has one of faint contrasts."""
    picture = np.tile(1000 + 2 * np.arange(96), (64, 1))
    once, brighter = (Gradient()(pyramid((picture * k).astype(dtype), mpp=8.0)) for k in (1, 4))
    np.testing.assert_allclose(once.values, brighter.values, rtol=0.05)
    octave = np.log2(picture[0, 1:] / picture[0, :-1]).mean()
    codes_an_octave = once.floor / 2 / np.log2(129 / 128)
    assert once.values[:, 1:-1].mean() == pytest.approx(octave * codes_an_octave, rel=0.1)


@pytest.mark.parametrize("level", [10.0, 5000.0])
def test_the_edge_of_what_was_measured_is_no_edge(level):
    """A black hole in bright ground: its pixels are stored as 0."""
    ground = np.full((96, 96), level, np.float32)
    found = Gradient()(as_floats(ground, np.s_[20:60, 20:60]))
    assert not found.values.any()
    np.testing.assert_array_equal(found.valid[3:7, 3:7], False)
    assert found.valid[2, 2]


def test_damage_is_no_edge_and_is_told():
    found = Gradient()(flawed(np.full((192, 192, 3), 200, np.uint8)))
    assert not found.values.any()
    assert not found.valid[8:16, 8:16].any()
    assert found.valid[:8].all()
    assert "a cut stream" in found.notes[0]


def test_of_labels_it_is_the_share_of_borders():
    classes = np.zeros((32, 32), np.uint8)
    classes[:, 16:] = 200
    found = Gradient()(pyramid(classes, kind="labels"))
    np.testing.assert_allclose(found.values[0], [0, 1 / 8, 1 / 8, 0])


def test_a_cell_has_a_size():
    with pytest.raises(ConfigError, match="at least 1 px"):
        Gradient(cell_px=0)
