"""Learned steps without torch against the same networks in torch, and against themselves in parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

torch = pytest.importorskip("torch")

from tests.codecs.downsamplers import untrained
from tilestream.codecs.downsample.network import DownsamplerNetwork
from tilestream.codecs.downsample.smaller import Downsampler
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip_levels


@pytest.fixture(scope="module")
def downsampler(tmp_path_factory) -> Downsampler:
    return Downsampler(file=untrained(tmp_path_factory.mktemp("file") / "a.safetensors"))


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8)


@pytest.mark.parametrize("shape", [(40, 34), (1, 1), (7, 16), (5, 3)])
def test_steps_are_those_of_torch(downsampler, shape) -> None:
    network = DownsamplerNetwork(downsampler.file.record)
    network.load_state_dict({name: torch.from_numpy(values) for name, values in downsampler.file.parameters.items()})
    pixels = noise(*shape)
    for level in (1, 2):
        with torch.inference_mode():
            exact = (
                network.down[level - 1](torch.from_numpy(pixels / np.float32(255))[None])[0].clamp(0, 1).numpy() * 255
            )
        pixels, _ = downsampler(pixels, None, level=level)
        assert pixels.dtype == np.uint8
        assert np.abs(pixels - exact).max() < 0.5 + 1e-3
    beyond, _ = downsampler(pixels, None, level=3)  # further levels are made by the last step
    assert_array_equal(beyond, downsampler(pixels, None, level=2)[0])


@given(y=st.integers(0, 4), x=st.integers(0, 4), masked=st.booleans())
def test_a_part_is_that_of_the_whole(downsampler, y, x, masked) -> None:
    pixels, core = noise(83, 90), 20
    valid = np.random.default_rng(1).random((83, 90)) < 0.98 if masked else None
    whole, seen = downsampler(pixels, valid, level=1)
    near = downsampler.file.record.radius
    near += near % 2
    rows, columns = (slice(max(core * n - near, 0), core * (n + 1) + near) for n in (y, x))
    part, part_seen = downsampler(pixels[:, rows, columns], valid if valid is None else valid[rows, columns], level=1)
    inside = whole[:, core // 2 * y : core // 2 * (y + 1), core // 2 * x : core // 2 * (x + 1)]
    top, left = (core * n - s.start >> 1 for n, s in ((y, rows), (x, columns)))
    there = np.s_[..., top : top + inside.shape[1], left : left + inside.shape[2]]
    assert_array_equal(part[there], inside)
    if seen is not None:
        assert_array_equal(
            part_seen[there], seen[core // 2 * y :, core // 2 * x :][: inside.shape[1], : inside.shape[2]]
        )


def test_what_is_not_valid_spreads_to_nothing(downsampler) -> None:
    pixels, valid = noise(24, 24), np.ones((24, 24), bool)
    valid[10:13, 8:15] = False
    other = pixels.copy()
    other[:, ~valid] = 7
    found, seen = downsampler(pixels, valid, level=1)
    assert_array_equal(found, downsampler(other, valid, level=1)[0])
    (mean,) = mip_levels(pixels, valid, levels=1)
    assert_array_equal(seen, mean.valid)
    assert_array_equal(found[:, 5:7, 4:7], mean.pixels[:, 5:7, 4:7])
    assert (found != downsampler(pixels, None, level=1)[0]).any()


@pytest.mark.parametrize(("dtype", "channels"), [("uint16", 3), ("uint8", 4)])
def test_images_of_another_kind_are_refused(downsampler, dtype, channels) -> None:
    with pytest.raises(ConfigError, match=rf"`a.tif`: got {channels} channels of {dtype}"):
        downsampler.require(dtype, channels, what="a.tif")
    downsampler.require("uint8", 3, what="a.tif")
