"""Trainings learn, keep small images near means, and come out the same; what cannot be trained is refused."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

torch = pytest.importorskip("torch")

from tilestream.codecs.downsample.network import DownsamplerNetwork, rounded
from tilestream.codecs.downsample.record import write_downsampler
from tilestream.codecs.downsample.restore import lanczos_larger, restored, scores
from tilestream.codecs.downsample.training import DownsampleSettings, loss_of, train_downsampler
from tilestream.errors import ConfigError, StageError

SMALL = {"levels": 2, "window_px": 4, "width": 8, "up_width": 8, "batch": 4, "patch_px": 16, "steps": 55}


def texture(seed, edge=96):
    """Return stripes that are too fine for half the size: Lanczos loses them, and what has seen them need not."""
    y, x = np.mgrid[:edge, :edge]
    waves = [np.sin(1.9 * x + seed), np.cos(2.1 * y), np.sin(1.7 * x + 0.3 * y)]
    return np.stack([np.clip(128 + 80 * wave, 0, 255) for wave in waves]).astype(np.uint8)


def test_a_training_comes_out_the_same() -> None:
    settings = DownsampleSettings(**{**SMALL, "steps": 3})
    one, other = (train_downsampler([[texture(0)]], settings).state_dict() for _ in range(2))
    for name, values in one.items():
        assert_array_equal(values, other[name])


def test_a_training_beats_lanczos(tmp_path) -> None:
    settings, told = DownsampleSettings(**SMALL), []
    network = train_downsampler([[texture(0)], [texture(1)]], settings, hear=told.append)
    assert [step.step for step in told] == [50, 55]
    parameters = {name: values.numpy() for name, values in network.state_dict().items()}
    file = write_downsampler(tmp_path / "a.safetensors", settings.record(3), parameters)
    found = scores(file, [texture(2)])
    assert [score.level for score in found] == [1, 2]
    assert found[0].learned_db > found[0].lanczos_db + 1
    assert found[0].small_db > 25
    assert found[0].worst_small_db == found[0].small_db


def test_a_network_begins_as_the_mean_and_bicubic(tmp_path) -> None:
    settings = DownsampleSettings(**SMALL)
    network = DownsamplerNetwork(settings.record(3))
    x = torch.rand(2, 3, 16, 16)
    small = network.smaller(x)
    assert_array_equal(small[0].detach(), rounded(torch.nn.functional.avg_pool2d(x, 2)))
    smooth = torch.nn.functional.interpolate(small[0], scale_factor=2, mode="bicubic", align_corners=False)
    assert_array_equal(network.larger(small[0], 1).detach(), smooth.detach())


def test_the_guide_costs_nothing_until_it_is_left() -> None:
    x = torch.rand(2, 3, 16, 16)
    near, far = DownsampleSettings(**SMALL, guide_weight=1e6), DownsampleSettings(**SMALL, guide_weight=0.0)
    network = DownsamplerNetwork(near.record(3))
    with torch.no_grad():
        assert float(loss_of(network, x, near)) == float(loss_of(network, x, far))
        network.down[0][-1].bias += 0.1
        assert float(loss_of(network, x, near)) > 1000 * float(loss_of(network, x, far))


def test_gradients_pass_rounding() -> None:
    x = torch.linspace(-0.1, 1.1, 7, requires_grad=True)
    y = rounded(x)
    assert_array_equal(y.detach(), torch.round(x.detach().clamp(0, 1) * 255) / 255)
    y.sum().backward()
    assert_array_equal(x.grad, torch.ones(7))


def test_lanczos_up_keeps_a_colour_and_a_ramp() -> None:
    flat = np.full((1, 3, 4), 77, np.uint8)
    assert_array_equal(lanczos_larger(flat, 2), np.full((1, 12, 16), 77))
    ramp = np.broadcast_to(np.arange(20, dtype=np.uint8) * 12, (1, 6, 20))
    larger = lanczos_larger(ramp, 1)[0, 5, 12:-12].astype(int)
    assert np.abs(np.diff(larger) - 6).max() <= 1  # of a ramp Lanczos makes one with small waves


def test_images_come_back_in_their_size(tmp_path) -> None:
    record = DownsampleSettings(**SMALL).record(3)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in record.shapes.items()}
    file = write_downsampler(tmp_path / "a.safetensors", record, zeros)
    assert restored(file, texture(0)[:, :5, :6], 2).shape == (3, 20, 24)


@pytest.mark.parametrize(
    "images", [[], [[]], [[np.zeros((3, 8, 99), np.uint8)]], [[np.zeros((3, 20, 20), np.float32)]]]
)
def test_what_cannot_be_trained_on_is_refused(images) -> None:
    with pytest.raises(ConfigError, match="tiles to train a downsampler on"):
        train_downsampler(images, DownsampleSettings(**SMALL))


@pytest.mark.parametrize("change", [{"steps": 0}, {"patch_px": 18}, {"patch_px": 4}])
def test_settings_that_cannot_be_met_are_refused(change) -> None:
    with pytest.raises(ConfigError, match="settings of a downsampler"):
        DownsampleSettings(**{**SMALL, **change})


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(StageError, match="--lr"):
        train_downsampler([[texture(0)]], DownsampleSettings(**{**SMALL, "lr": 1e30, "steps": 50}))
