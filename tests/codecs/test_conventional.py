"""Conventional codecs: what each holds comes back, more bytes are a better image, and damage is named."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from tilestream.codecs.conventional import CONVENTIONAL, ConventionalCodec
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError, DamagedError

EVERY = pytest.mark.parametrize("codec", CONVENTIONAL.values(), ids=CONVENTIONAL)
DEEP = pytest.mark.parametrize("codec", [c for c in CONVENTIONAL.values() if c.holds_bands], ids=lambda c: c.name)


def scene(channels: int = 3, edge: int = 48) -> np.ndarray:
    """A smooth image in 8 bits."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:edge, :edge] / edge
    planes = [np.sin(7 * y + k) * np.cos(9 * x + k) + 0.02 * rng.standard_normal((edge, edge)) for k in range(channels)]
    return np.clip(120 + 80 * np.stack(planes), 0, 255).astype(np.uint8)


@EVERY
def test_more_bytes_are_a_better_image(codec: ConventionalCodec) -> None:
    pixels = scene()
    first, last = (codec.encode(pixels, setting) for setting in (codec.settings[0], codec.settings[-1]))
    decoded = [codec.decode(data) for data in (first, last)]
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 for one in decoded)
    assert len(last) > 1.5 * len(first)
    assert psnr(decoded[1], pixels) > max(34, 5 + psnr(decoded[0], pixels))


@EVERY
def test_bytes_that_there_are_are_filled(codec: ConventionalCodec) -> None:
    pixels = scene()
    files = [codec.encode(pixels, setting) for setting in codec.settings]
    some = len(files[len(files) // 2])
    found = codec.within(pixels, some)
    assert found is not None
    assert 0.85 * some < len(found) <= some
    assert codec.within(pixels, 10) is None
    whole = codec.within(pixels, 10**6)
    assert whole is not None
    assert len(whole) >= len(files[-1])


@EVERY
def test_a_colour_image_is_a_plain_file(codec: ConventionalCodec) -> None:
    begins = {"jpeg": b"\xff\xd8\xff", "jpeg2000": b"\xff\x4f\xff\x51", "jpegxl": b"\xff\x0a", "webp": b"RIFF"}
    data = codec.encode(scene(), codec.settings[3])
    assert begins.get(codec.name, begins["jpeg"]) == data[: len(begins.get(codec.name, b"xxx"))] or b"ftypavif" in data
    assert np.array_equal(codec.decode(data), codec.decode_codes(data).transpose(2, 0, 1))


def test_chroma_is_halved_or_not() -> None:
    data = {name: CONVENTIONAL[name].encode(scene(), 75) for name in ("jpeg420", "jpeg444")}
    factors = {name: one[one.index(b"\xff\xc0") + 11] for name, one in data.items()}  # SOF0: sampling of the first
    assert factors == {"jpeg420": 0x22, "jpeg444": 0x11}


@EVERY
@pytest.mark.parametrize(
    ("dtype", "channels"), [("uint8", 1), ("uint8", 2), ("uint8", 4), ("uint16", 3), ("int16", 1), ("float32", 1)]
)
def test_what_it_holds_comes_back_and_the_rest_is_refused(codec: ConventionalCodec, dtype: str, channels: int) -> None:
    pixels = (scene(channels).astype(np.float64) * 37 - (900 if dtype != "uint16" else 0)).astype(dtype)
    if not codec.holds(pixels):
        assert not codec.holds_bands
        with pytest.raises(ConfigError, match=codec.title):
            codec.encode(pixels, codec.settings[0])
        return
    decoded = codec.decode(codec.encode(pixels, codec.settings[-2]))
    assert decoded.shape == pixels.shape
    assert decoded.dtype == pixels.dtype
    assert psnr(decoded, pixels, high=float(np.ptp(pixels))) > 30


@DEEP
def test_bands_have_scales_of_their_own(codec: ConventionalCodec) -> None:
    pixels = np.stack([scene()[0].astype(np.float32) * scale + scale for scale in (1e-6, 1.0, 1e6)])
    pixels = np.concatenate([pixels, np.full((1, 48, 48), -2.5, np.float32)])
    decoded = codec.decode(codec.encode(pixels, codec.settings[-1]))
    for band, original in zip(decoded[:3], pixels[:3], strict=True):
        assert psnr(band, original, high=float(np.ptp(original))) > 45
    assert np.array_equal(decoded[3], pixels[3])  # a constant band is exact


def test_whole_numbers_survive_the_16_bits_of_a_band() -> None:
    exact = ConventionalCodec(
        name="png",
        title="PNG",
        settings=(1.0,),
        ends=(1.0, 1.0),
        holds_bands=True,
        holds_grey=True,
        encode_codes=lambda codes, setting: bytes(imagecodecs.png_encode(codes, level=int(setting))),
        decode_codes=imagecodecs.png_decode,
    )
    for dtype in ("int8", "uint16", "int16"):
        limits = np.iinfo(dtype)
        pixels = np.random.default_rng(0).integers(limits.min, limits.max, (2, 33, 5), dtype, endpoint=True)
        pixels[0, 0, :2] = limits.min, limits.max
        pixels[1] //= 7
        assert np.array_equal(exact.decode(exact.encode(pixels, 1)), pixels)


@DEEP
def test_samples_that_are_not_finite_are_refused(codec: ConventionalCodec) -> None:
    with pytest.raises(ConfigError, match="NaN"):
        codec.encode(np.full((1, 8, 8), np.nan, np.float32), codec.settings[0])


@EVERY
def test_damage_is_named(codec: ConventionalCodec) -> None:
    for data in (b"", b"\xba", b"\xba\x00" + b"\xff" * 40, b"no file of any format", codec.encode(scene(), 50)[:20]):
        with pytest.raises(DamagedError, match=r"frame|file"):
            codec.decode(data)


@DEEP
def test_a_cut_frame_is_damaged(codec: ConventionalCodec) -> None:
    data = codec.encode(scene(2), codec.settings[3])
    for cut in (1, 2, 10, 30, len(data) - 1):
        with pytest.raises(DamagedError):
            codec.decode(data[:cut])
