"""PNG, JPEG, JPEG 2000 and WebP made by code: every kind of sample, damage at every byte, absurd headers."""

from __future__ import annotations

import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tilestream.errors import DamagedError, SourceError
from tilestream.sources.decoded import DecodedImages
from tilestream.sources.opening import open_source
from tilestream.types import Block


def noise(*shape, dtype="uint8"):
    high = np.iinfo(dtype).max
    return np.random.default_rng(7).integers(0, high, shape, dtype, endpoint=True)


def smooth(height=40, width=50):
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 3 % 256, x * 4 % 256, (x + y) * 2 % 256], -1).astype(np.uint8)


ENCODERS = {
    "png": imagecodecs.png_encode,
    "jpg": lambda pixels: imagecodecs.jpeg8_encode(pixels, level=90),
    "jp2": lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True),
    "j2k": lambda pixels: imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True),
    "webp": lambda pixels: imagecodecs.webp_encode(pixels, lossless=True),
}


def save(path, pixels):
    path.write_bytes(ENCODERS[path.suffix[1:]](pixels))
    return str(path)


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype"),
    [
        ("png", (9, 7), "uint8"),
        ("png", (9, 7, 3), "uint8"),
        ("png", (9, 7), "uint16"),
        ("png", (9, 7, 3), "uint16"),
        ("jp2", (40, 33), "uint8"),
        ("jp2", (40, 33, 3), "uint16"),
        ("j2k", (40, 33, 3), "uint8"),
        ("webp", (9, 7, 3), "uint8"),
    ],
)
def test_lossless_formats_are_exact(tmp_path, suffix, shape, dtype):
    pixels = noise(*shape, dtype=dtype)
    source = open_source(save(tmp_path / f"a.{suffix}", pixels))
    assert source.info.dtype == dtype
    assert source.info.levels[0].block == source.info.shape
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, pixels.reshape(*shape[:2], -1))


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_jpeg_is_what_the_decoder_makes(tmp_path, shape):
    path = save(tmp_path / "a.jpg", np.ascontiguousarray(smooth()[..., 0] if len(shape) == 2 else smooth()))
    expected = imagecodecs.jpeg8_decode((tmp_path / "a.jpg").read_bytes())
    np.testing.assert_array_equal(open_source(path).read_block(0, 0, 0).pixels, expected.reshape(40, 50, -1))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_png_modes(tmp_path, mode):
    image = Image.fromarray(noise(20, 30, 4)).convert("RGB" if mode in "1P" else "RGBA").convert(mode)
    image.save(tmp_path / "a.png")
    block = open_source(str(tmp_path / "a.png")).read_block(0, 0, 0)
    expected = np.asarray(image.convert({"1": "L", "P": "RGB"}.get(mode, mode))).reshape(20, 30, -1)
    if mode in ("LA", "RGBA"):
        valid = expected[..., -1] > 0
        assert not valid.all()
        np.testing.assert_array_equal(block.valid, valid)
        expected = np.where(valid[..., None], expected[..., :-1], 0)
    np.testing.assert_array_equal(block.pixels, expected)


def test_webp_alpha(tmp_path):
    pixels = noise(20, 30, 4)
    pixels[:10, :, 3] = 0
    block = open_source(save(tmp_path / "a.webp", pixels)).read_block(0, 0, 0)
    np.testing.assert_array_equal(block.valid, pixels[..., 3] > 0)
    np.testing.assert_array_equal(block.pixels[block.valid], pixels[..., :3][block.valid])


@pytest.mark.parametrize("suffix", list(ENCODERS))
def test_cut_anywhere(tmp_path, suffix):
    """A cut file either does not open or is damaged: no grey pixels."""
    path = tmp_path / f"a.{suffix}"
    save(path, smooth())
    data = path.read_bytes()
    for size in [*range(0, len(data) - 2, 64), len(data) - 2, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises((SourceError, DamagedError)):
            open_source(str(path), source="raster").read_block(0, 0, 0)


def test_a_flipped_bit_in_a_png_is_seen(tmp_path):
    path = tmp_path / "a.png"
    save(path, smooth())
    data = path.read_bytes()
    for position in range(8, len(data), 37):
        broken = bytearray(data)
        broken[position] ^= 4
        path.write_bytes(broken)
        with pytest.raises((SourceError, DamagedError)):
            open_source(str(path)).read_block(0, 0, 0)


def png_of(height, width):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def test_absurd_sizes_are_refused_from_the_header(tmp_path):
    path = tmp_path / "a.png"
    for height, width in ((2**31 - 1, 2**31 - 1), (50_000, 50_000), (0, 5)):
        path.write_bytes(png_of(height, width))
        with pytest.raises(SourceError, match=r"over .* bytes|makes no sense"):
            open_source(str(path))
    data = bytearray(ENCODERS["jpg"](smooth()))
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(SourceError, match="65,535 x 65,535"):
        open_source(str(tmp_path / "a.jpg"))


def test_blocks_cannot_be_written_to(tmp_path):
    """All callers share them."""
    block = open_source(save(tmp_path / "a.png", noise(9, 7, 3))).read_block(0, 0, 0)
    with pytest.raises(ValueError, match="read-only"):
        block.pixels[0, 0] = 1


def test_a_changed_file_is_another_image(tmp_path):
    path = tmp_path / "a.png"
    first = open_source(save(path, noise(9, 7, 3)))
    first.read_block(0, 0, 0)
    other = 255 - noise(9, 7, 3)
    np.testing.assert_array_equal(open_source(save(path, other)).read_block(0, 0, 0).pixels, other)


def test_one_thread_decodes_while_others_wait():
    images, calls, barrier = DecodedImages(lambda: 100), [], threading.Barrier(4)

    def decode():
        calls.append(1)
        return Block(pixels=np.zeros((5, 5, 1), np.uint8))

    def get(_):
        barrier.wait()
        return images.get("a", decode)

    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(get, range(4)))
    assert len(calls) == 1
    assert all(block is blocks[0] for block in blocks)


def test_the_budget_holds_but_the_last_image_stays():
    images = DecodedImages(lambda: 60)
    made = []

    def decoder(name, size):
        def decode():
            made.append(name)
            return Block(pixels=np.zeros((size, 1, 1), np.uint8))

        return decode

    for name, size in (("a", 25), ("b", 25), ("a", 25), ("c", 25), ("a", 25), ("b", 25), ("big", 500), ("big", 500)):
        images.get(name, decoder(name, size))
    assert made == ["a", "b", "c", "b", "big"]


def test_what_fails_is_not_kept():
    images = DecodedImages(lambda: 60)

    def fail():
        raise DamagedError("no")

    with pytest.raises(DamagedError):
        images.get("a", fail)
    assert images.get("a", lambda: Block(pixels=np.ones((1, 1, 1), np.uint8))).pixels[0, 0, 0] == 1


def test_ycc_of_jpeg2000_is_turned_into_rgb_and_flagged(tmp_path):
    stored = np.zeros((16, 16, 3), np.uint8)
    stored[...] = (100, 90, 150)
    data = bytearray(imagecodecs.jpeg2k_encode(stored, level=0, codecformat="jp2", mct=False))
    at = data.find(b"colr") + 7
    data[at : at + 4] = (18).to_bytes(4, "big")  # sYCC
    (tmp_path / "a.jp2").write_bytes(data)
    source = open_source(str(tmp_path / "a.jp2"))
    luma, blue, red = 100, 90 - 128, 150 - 128
    rgb = [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue]
    np.testing.assert_allclose(source.read_block(0, 0, 0).pixels[0, 0], rgb, atol=1)
    assert "its samples are YCC: they are turned into RGB" in source.info.notes
