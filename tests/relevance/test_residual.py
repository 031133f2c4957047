import numpy as np
import pytest
from scipy import ndimage

from tests.plan.build import pyramid
from tests.relevance.made import as_floats, flawed, glass, slide, texture
from tilestream.errors import ConfigError
from tilestream.relevance import SpectralResidual
from tilestream.relevance.residual import periodic, spectral_residual


def by_the_paper(image):
    """The formula, with the box taken by its sum over shifts."""
    spectrum = np.fft.fft2(image)
    log = np.log(np.abs(spectrum))
    box = sum(np.roll(log, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)) / 9
    back = np.fft.ifft2(np.exp(log - box + 1j * np.angle(spectrum)))
    return ndimage.gaussian_filter(np.abs(back) ** 2, 2.5, mode="reflect")


def smooth(seed=0, size=384):
    noise = np.random.default_rng(seed).normal(0, 1, (size, size))
    return 120 + 400 * ndimage.gaussian_filter(noise, 6, mode="wrap")


@pytest.mark.parametrize("size", [(64, 64), (64, 48), (33, 17)])
def test_is_the_formula(size):
    image = np.random.default_rng(0).random(size) * 100
    np.testing.assert_allclose(spectral_residual(image), by_the_paper(image), rtol=1e-8)


@pytest.mark.parametrize("size", [(24, 31), (7, 1), (2, 2)])
def test_without_its_steps_an_image_has_the_same_mean_and_inner_differences(size):
    image = np.random.default_rng(0).random(size) + np.add.outer(5.0 * np.arange(size[0]), np.arange(size[1]))
    found = periodic(image)
    assert found.mean() == pytest.approx(image.mean())
    # Laplacian with neighbours round the circle, against the one with those inside the image
    around = sum(np.roll(found, step, axis) - found for axis in (0, 1) for step in (-1, 1))
    inside = np.zeros_like(image)
    for axis in (0, 1):
        up, down = np.diff(image, axis=axis), -np.diff(image, axis=axis)
        inside += np.pad(up, [(0, int(k == axis)) for k in (0, 1)]) + np.pad(
            down, [(int(k == axis), 0) for k in (0, 1)]
        )
    np.testing.assert_allclose(around, inside, atol=1e-9)


def test_edges_of_the_image_do_not_shine():
    """Light that falls off from one side to the other is what every camera has."""
    picture = smooth() + np.linspace(0, 80, 384)
    found = SpectralResidual()(as_floats(picture)).values
    inner = found[6:-6, 6:-6]
    assert found[:, [0, 1, -2, -1]].mean() < 1.5 * inner.mean()
    assert found[:, [0, 1, -2, -1]].max() < 1.2 * inner.max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_what_is_unlike_the_rest_is_found(seed):
    """A piece of tissue on ground that is lit unevenly."""
    rng = np.random.default_rng(seed)
    picture = 220 + rng.normal(0, 3, (384, 384)) - np.linspace(0, 20, 384)
    picture[120:168, 216:264] = rng.normal(140, 30, (48, 48))
    found = SpectralResidual()(slide(picture.astype(np.uint8))).values
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert 14 <= y <= 21
    assert 26 <= x <= 33


def test_glass_is_0():
    found = SpectralResidual()(slide(glass(256, 256)))
    assert not found.values.any()
    assert found.valid.all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_black_hole_does_not_shine(seed):
    hole = np.s_[130:250, 150:270]
    picture = smooth(seed)
    found = SpectralResidual()(as_floats(picture, hole))
    assert not found.valid[17:31, 19:33].any()
    near = np.zeros(found.values.shape, np.bool_)
    near[14:34, 16:36] = True
    near &= found.valid
    elsewhere = found.values[found.valid & ~near]
    # beside the hole it is what it is elsewhere; with the hole left black it is several times that
    assert found.values[near].mean() < 1.5 * elsewhere.mean()
    assert found.values[near].max() < 1.2 * elsewhere.max()
    black = picture.copy()
    black[hole] = 0
    shines = SpectralResidual()(as_floats(black))
    assert shines.values[near].mean() > 2 * shines.values[found.valid & ~near].mean()


def test_damage_is_not_valid():
    found = SpectralResidual()(flawed(texture(192, 192)))
    assert not found.valid[8:16, 8:16].any()
    assert "a cut stream" in found.notes[0]


def test_refusals():
    with pytest.raises(ConfigError, match="an image of classes"):
        SpectralResidual()(pyramid(np.zeros((32, 32), np.uint8), kind="labels"))
    with pytest.raises(ConfigError, match="at least 8 px"):
        SpectralResidual(long_px=4)
