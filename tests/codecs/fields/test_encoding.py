import numpy as np
import pytest
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")

from tilestream.codecs.fields.coordinatetorch import inputs_at
from tilestream.codecs.fields.encoding import LEVEL_REACH, Encoding
from tilestream.codecs.fields.picture import Picture
from tilestream.errors import ConfigError

PICTURE = Picture.of(np.zeros((3, 24, 32), np.uint8), levels=3)
PIXELS = np.arange(8)


def test_plain_coordinates_span_the_longer_edge() -> None:
    encoding = Encoding.of(PICTURE)
    assert encoding.inputs == 3
    assert_allclose(encoding.axis(PIXELS, 2.0)[0], np.linspace(-7 / 8, 7 / 8, 8))
    assert_allclose([encoding.shared(level) for level in (0, 1, 2)], [[0], [LEVEL_REACH / 2], [LEVEL_REACH]])


def test_positional_inputs_are_those_of_nerf() -> None:
    encoding = Encoding.of(PICTURE, octaves=3)
    p = (np.arange(32) + 0.5) / 16 - 1
    expected = [wave(2**k * np.pi * p) for k in range(3) for wave in (np.sin, np.cos)]
    assert_allclose(encoding.axis(np.arange(32), 0), expected, atol=1e-12)
    assert encoding.inputs == 13


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, 4.0])
def test_integrated_inputs_are_expectations_over_a_gaussian(level: float) -> None:
    encoding, plain = (
        Encoding.of(PICTURE, octaves=4, integrated=True, takes_level=False),
        Encoding.of(PICTURE, octaves=4),
    )
    at, weights = np.polynomial.hermite_e.hermegauss(80)
    points = PIXELS[:, None] + at * 12**-0.5  # pixels of the level, whose square has a variance of 1/12
    expected = plain.axis(points.ravel(), level).reshape(8, len(PIXELS), -1) @ (weights / weights.sum())
    assert_allclose(encoding.axis(PIXELS, level), expected, atol=1e-9)
    assert encoding.inputs == 16


def test_coarse_waves_of_the_gaussian_are_those_of_the_square() -> None:
    encoding, plain = Encoding.of(PICTURE, octaves=3, integrated=True), Encoding.of(PICTURE, octaves=3)
    inside = (np.arange(64) + 0.5) / 64 - 0.5
    mean = plain.axis((PIXELS[:, None] + inside).ravel(), 1).reshape(6, 8, 64).mean(axis=2)
    assert_allclose(encoding.axis(PIXELS, 1), mean, atol=2e-3)


@pytest.mark.parametrize("octaves", [0, 4])
@pytest.mark.parametrize("is_integrated", [False, True])
def test_torch_is_asked_with_the_same(octaves: int, is_integrated: bool) -> None:
    encoding = Encoding.of(PICTURE, octaves=octaves, integrated=is_integrated)
    x, y = np.meshgrid(PIXELS, PIXELS[:6])
    coords = torch.from_numpy((np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * 4 / 32)
    found = inputs_at(coords, encoding, level=2).numpy()
    assert found.shape == (48, encoding.inputs)
    side = encoding.axis_inputs
    assert_allclose(found[:, :side].T, encoding.axis(x.ravel(), 2), atol=1e-12)
    assert_allclose(found[:, side : 2 * side].T, encoding.axis(y.ravel(), 2), atol=1e-12)
    assert_allclose(found[:, 2 * side], LEVEL_REACH)


def test_octaves_that_nothing_resolves_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"`octaves`.*25"):
        Encoding.of(PICTURE, octaves=25)
