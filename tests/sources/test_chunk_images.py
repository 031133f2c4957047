"""Chunks that are pictures, as imagecodecs writes them: decoded in place, and refused unless they are whole."""

from __future__ import annotations

import base64

import imagecodecs
import numpy as np
import pytest

from tests.sources.madezarr import save_pictures
from tilestream.errors import DamagedError
from tilestream.sources.chunkimages import ChunkImages, ImageCodec, picture_size
from tilestream.sources.files import File
from tilestream.sources.ngff import read_node
from tilestream.sources.opening import open_source
from tilestream.sources.zarrlayout import layout_of

PX = 136
WIDTH = PX + 16


def picture(channels=3, dtype="uint8"):
    y, x = np.mgrid[:PX, :WIDTH]
    ramp = (np.sin(x / 9) + np.cos(y / 7) + 2) / 4
    stack = np.stack([np.roll(ramp, 5 * n, n % 2) for n in range(channels)], axis=2)
    return (stack * np.iinfo(dtype).max).astype(dtype)


def encode(name, pixels, **options):
    plain = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    encoder = {
        "jpeg": lambda: imagecodecs.jpeg8_encode(plain, level=90, **options),
        "lossless": lambda: imagecodecs.jpeg8_encode(plain, lossless=True, **options),
        "jpeg2k": lambda: imagecodecs.jpeg2k_encode(plain, **{"level": 0, "codecformat": "j2k", **options}),
        "jpegxl": lambda: imagecodecs.jpegxl_encode(plain, **{"lossless": True, **options}),
        "webp": lambda: imagecodecs.webp_encode(plain, **{"lossless": True, **options}),
        "png": lambda: imagecodecs.png_encode(plain, **options),
    }
    return bytes(encoder[name]())


def split(stream):
    """The tables of a JPEG stream as a stream of their own, and what is left."""
    tables, rest, position = b"\xff\xd8", b"\xff\xd8", 2
    while stream[position + 1] != 0xDA:
        stop = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        if stream[position + 1] in (0xC4, 0xDB):
            tables += stream[position:stop]
        else:
            rest += stream[position:stop]
        position = stop
    return tables + b"\xff\xd9", rest + stream[position:]


def codec(name, **configuration):
    return {"name": f"imagecodecs_{'jpeg' if name == 'lossless' else name}", "configuration": configuration}


KINDS = [
    ("jpeg", 3, "uint8"),
    ("jpeg", 1, "uint8"),
    ("lossless", 3, "uint8"),  # the edge tiles of an archive
    ("jpeg2k", 3, "uint8"),
    ("jpeg2k", 1, "uint16"),
    ("jpegxl", 3, "uint8"),
    ("jpegxl", 1, "uint16"),
    ("webp", 3, "uint8"),
    ("webp", 4, "uint8"),
    ("png", 3, "uint16"),
    ("png", 1, "uint8"),
    ("png", 4, "uint8"),
]


@pytest.mark.parametrize(("name", "channels", "dtype"), KINDS)
def test_pictures_are_decoded_into_the_callers_memory(tmp_path, name, channels, dtype):
    pixels = picture(channels, dtype)
    stream = encode(name, pixels)
    path = save_pictures(tmp_path / "a.zarr", [stream, stream], codec(name, level=90), pixels.shape, dtype)
    source = open_source(str(path))
    decoded = getattr(imagecodecs, "jpeg8_decode" if name in ("jpeg", "lossless") else f"{name}_decode")(stream)
    if name != "jpeg":
        np.testing.assert_array_equal(decoded.reshape(pixels.shape), pixels)
    out = np.empty(pixels.shape, dtype)
    assert source.read_block(0, 0, 1, out).pixels is out
    np.testing.assert_array_equal(out, decoded.reshape(pixels.shape))


@pytest.mark.parametrize(("name", "channels", "dtype"), KINDS)
@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.9, 0.999])
def test_a_cut_picture_is_damage_never_grey(tmp_path, name, channels, dtype, share):
    pixels = picture(channels, dtype)
    stream = encode(name, pixels)
    cut = stream[: min(len(stream) - 3, int(share * len(stream)))]
    path = save_pictures(tmp_path / "a.zarr", [cut], codec(name), pixels.shape, dtype)
    with pytest.raises(DamagedError, match=r"chunk \(0, 0, 0\) in shard `c/0/0/0`"):
        open_source(str(path)).read_block(0, 0, 0)


@pytest.mark.parametrize(("name", "channels", "dtype"), KINDS)
def test_a_picture_of_another_size_is_damage(tmp_path, name, channels, dtype):
    pixels = picture(channels, dtype)
    for wrong in (pixels[:-1], pixels[:, :-8], np.concatenate([pixels, pixels]), pixels[:, :, :1].repeat(2, 2)):
        if name in ("jpeg", "lossless", "webp") and wrong.shape[2] == 2:
            continue
        path = save_pictures(tmp_path / "a.zarr", [encode(name, wrong)], codec(name), pixels.shape, dtype)
        with pytest.raises(DamagedError):
            open_source(str(path)).read_block(0, 0, 0)


def test_a_picture_of_another_depth_is_damage(tmp_path):
    path = save_pictures(tmp_path / "a.zarr", [encode("png", picture(3, "uint16"))], codec("png"), (PX, WIDTH, 3))
    with pytest.raises(DamagedError, match="uint16"):
        open_source(str(path)).read_block(0, 0, 0)


@pytest.mark.parametrize(
    ("colours", "subsampling"), [("RGB", "444"), ("YCBCR", "444"), ("YCBCR", "422"), ("YCBCR", "420")]
)
def test_the_colours_of_jpeg_are_those_of_the_configuration(tmp_path, colours, subsampling):
    pixels = picture()
    stream = imagecodecs.jpeg8_encode(pixels, level=90, outcolorspace=colours, subsampling=subsampling)
    options = {"colorspace_jpeg": colours, "colorspace_data": "RGB"}
    path = save_pictures(tmp_path / "a.zarr", [bytes(stream)], codec("jpeg", **options), pixels.shape)
    expected = imagecodecs.jpeg8_decode(stream, colorspace=colours, outcolorspace="RGB")
    np.testing.assert_array_equal(open_source(str(path)).read_block(0, 0, 0).pixels, expected)


def test_shared_tables_of_jpeg(tmp_path):
    stream = encode("jpeg", picture())
    tables, start = split(stream)
    text = base64.b64encode(tables).decode()
    path = save_pictures(tmp_path / "a.zarr", [start], codec("jpeg", tables=text), (PX, WIDTH, 3))
    source = open_source(str(path))
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, imagecodecs.jpeg8_decode(stream))


@pytest.mark.parametrize(
    "entry",
    [
        codec("jpeg", unheard_of=1),
        codec("jpeg", colorspace_data="XYZ"),
        codec("jpeg", tables="no base64!"),
        codec("jpeg", fancyupsampling=False),
        codec("jpeg2k", planar=True),
        codec("webp", index=3),
        codec("avif"),
        codec("qoi"),
    ],
)
def test_options_that_are_not_known_are_not_guessed(tmp_path, entry):
    path = save_pictures(tmp_path / "a.zarr", [encode("jpeg", picture())], entry, (PX, WIDTH, 3))
    assert layout_of(read_node(File(url=str(path)))) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (7, 1, 3)])
@pytest.mark.parametrize("name", ["jpeg", "jpeg2k", "squeezed"])
def test_a_row_of_pixels_is_read_as_copied_streams_and_as_the_codecs_store_it(shape, name):
    pixels = np.full(shape, 200, np.uint8)
    # imagecodecs' own codecs drop axes of length 1 and take what is left for a grey picture
    stored = pixels.reshape(*picture_size(shape)[:2], 1) if name == "squeezed" else pixels
    kind = "jpeg2k" if name == "jpeg2k" else "jpeg"
    images = ChunkImages(ImageCodec(name=kind), shape, pixels.dtype)
    for out in (None, np.zeros(shape, np.uint8)):
        np.testing.assert_allclose(images.decode(encode(kind, stored), out), pixels, atol=2)
