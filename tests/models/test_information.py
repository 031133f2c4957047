import numpy as np
import pytest

from tests.models.test_handcrafted import batch_of, image_of, noise
from tilestream.models.information import information


def test_entropy_is_the_mean_over_channels_of_the_core():
    pixels = noise((2, 3, 32, 32))
    pixels[:, :, 8:24, 8:24] = 9
    pixels[:, 0, 8:24, 8:16] = 100
    stage = information()
    found = stage(batch_of(pixels, halo_px=8))
    assert found.shape == (2, len(stage.output_names(image_of())))
    assert found.dtype == np.float32
    # one bit of five in one channel of three
    assert found[:, 0] == pytest.approx(1 / 15)
    assert (stage(batch_of(pixels)) > found).all()


def test_only_valid_pixels_count():
    pixels = np.zeros((1, 1, 8, 8), np.float32)
    pixels[..., :4] = 5
    pixels[..., 7, 7] = np.nan
    valid = np.ones((1, 8, 8), bool)
    stage = information(value_range=[0, 10])
    assert stage(batch_of(pixels, valid)).item() == pytest.approx(0.2, abs=1e-3)
    valid[..., :4] = False
    assert stage(batch_of(pixels, valid)).item() == 0
