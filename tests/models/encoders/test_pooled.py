from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tilestream.errors import StageError
from tilestream.models.encoders.pooled import PooledEncoder
from tilestream.models.encoders.record import EncoderRecord


class Told(torch.nn.Module):
    """Returns what it was told, whatever comes."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value
        self.seen = torch.empty(0)

    def forward(self, x: torch.Tensor) -> Any:
        self.seen = x
        return self.value


def record(**options: Any) -> EncoderRecord:
    return EncoderRecord(name="told", library="callable", model="", **options)


TOKENS = torch.arange(2 * 6 * 3, dtype=torch.float32).reshape(2, 6, 3)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", TOKENS[:, 0]),
        ("mean", TOKENS[:, 2:].mean(1)),
        ("cls+mean", torch.cat([TOKENS[:, 0], TOKENS[:, 2:].mean(1)], 1)),
    ],
)
def test_tokens_become_vectors(pooling: Any, expected: torch.Tensor) -> None:
    encoder = PooledEncoder(Told(TOKENS), record(pooling=pooling, prefix_tokens=2))
    assert torch.equal(encoder(torch.zeros(2, 3, 8, 8)), expected)


def test_last_of_a_list_counts_and_maps_are_averaged() -> None:
    maps = torch.arange(2 * 3 * 4, dtype=torch.float32).reshape(2, 3, 2, 2)
    encoder = PooledEncoder(Told([TOKENS, maps]), record(pooling="mean"))
    assert torch.equal(encoder(torch.zeros(2, 3, 8, 8)), maps.mean((2, 3)))


@pytest.mark.parametrize(("pooling", "value"), [("model", TOKENS), ("cls", TOKENS[:, 0]), ("model", "text")])
def test_what_cannot_be_pooled_is_refused(pooling: Any, value: Any) -> None:
    with pytest.raises(StageError, match="pooling"):
        PooledEncoder(Told(value), record(pooling=pooling))(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_resized_as_pillow_does(how: Any) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(64, 192, (64, 64), np.uint8)  # so that nothing overshoots, which Pillow cuts off
    told = Told(TOKENS[:, 0])
    PooledEncoder(told, record(input_px=56, crop_px=40, interpolation=how))(
        torch.from_numpy(pixels / 255).float()[None, None]
    )
    resample = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[how]
    expected = np.asarray(Image.fromarray(pixels).resize((56, 56), resample), np.float32)[8:48, 8:48]
    found = told.seen[0, 0].numpy() * 255
    assert found.shape == (40, 40)
    assert np.abs(found - expected).max() <= 1.01


def test_tile_of_the_right_size_is_left_as_it_is() -> None:
    told, x = Told(TOKENS[:, 0]), torch.rand(1, 3, 8, 8)
    PooledEncoder(told, record(input_px=8))(x)
    assert told.seen is x
