"""Tiles that we code are decoded by tifffile and by our own reader to the same samples."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
import tifffile

from tests.sinks.tiles import one_tile_file
from tilestream.errors import ConfigError
from tilestream.sinks.tiffcodec import CODECS, encode_mask, tile_codec

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"]
LOSSLESS = [name for name in CODECS if name != "jpeg"]


def _noise(dtype: str, samples: int) -> np.ndarray:
    generator = np.random.default_rng(3)
    if dtype[0] == "f":
        return generator.normal(size=(32, 48, samples)).astype(dtype)
    info = np.iinfo(dtype)
    return generator.integers(info.min, info.max, (32, 48, samples), np.dtype(dtype), endpoint=True)


@pytest.mark.parametrize("samples", [1, 3, 5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_codecs_give_back_every_bit(name: str, dtype: str, samples: int) -> None:
    pixels = _noise(dtype, samples)
    codec = tile_codec(name, dtype=pixels.dtype, samples=samples, quality=90)
    strided = np.moveaxis(np.ascontiguousarray(np.moveaxis(pixels, 2, 0)), 0, 2)
    assert codec.encode(pixels) == codec.encode(strided)
    with tifffile.TiffFile(io.BytesIO(one_tile_file(codec, pixels))) as file:
        np.testing.assert_array_equal(file.pages.first.asarray().reshape(pixels.shape), pixels)


@pytest.mark.parametrize(("dtype", "predictor"), [("u1", 2), ("i4", 2), ("f4", 3), ("f2", 1), ("f8", 3)])
def test_predictors(dtype: str, predictor: int) -> None:
    codec = tile_codec("zstd", dtype=np.dtype(dtype), samples=1, quality=90)
    assert codec.predictor == predictor
    assert tile_codec("zstd", dtype=np.dtype(dtype), samples=1, kind="labels", quality=90).predictor == 1


@pytest.mark.parametrize(("quality", "subsampling"), [(75, (2, 2)), (95, (1, 1))])
def test_jpeg_of_colour_is_near(quality: int, subsampling: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    pixels = np.broadcast_to(np.stack([ramp, np.full_like(ramp, 200), ramp[::-1]], axis=1), (32, 48, 3))
    codec = tile_codec("jpeg", dtype=pixels.dtype, samples=3, is_rgb=True, quality=quality)
    assert not codec.is_lossless
    with tifffile.TiffFile(io.BytesIO(one_tile_file(codec, pixels))) as file:
        page = file.pages.first
        assert page.photometric == tifffile.PHOTOMETRIC.YCBCR
        assert page.tags[530].value == subsampling
        assert np.abs(page.asarray().astype(int) - pixels).mean() < 4


def test_jpeg_of_grey_is_near() -> None:
    pixels = np.broadcast_to(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], (32, 48, 1))
    codec = tile_codec("jpeg", dtype=pixels.dtype, samples=1, quality=90)
    with tifffile.TiffFile(io.BytesIO(one_tile_file(codec, pixels))) as file:
        assert np.abs(file.pages.first.asarray().astype(int) - pixels[..., 0]).max() < 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "webp"}, "one of deflate"),
        ({"name": "jpeg", "quality": 0}, "1 to 100"),
        ({"name": "jpeg", "dtype": np.dtype("u2")}, "8 bits"),
        ({"name": "jpeg", "samples": 4}, "4 channels"),
        ({"name": "jpeg", "samples": 3}, "3 channels"),
        ({"name": "jpeg", "kind": "labels"}, "class numbers"),
    ],
)
def test_what_a_codec_cannot_hold_is_refused(options: dict, words: str) -> None:
    arguments = {"dtype": np.dtype("u1"), "samples": 1, "quality": 90, **options}
    with pytest.raises(ConfigError, match=words):
        tile_codec(arguments.pop("name"), **arguments)


def test_masks_are_bits() -> None:
    valid = np.random.default_rng(0).random((16, 32)) < 0.5
    data = zlib.decompress(encode_mask(valid))
    np.testing.assert_array_equal(np.unpackbits(np.frombuffer(data, "u1")).reshape(16, 32), valid)
