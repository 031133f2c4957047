"""JPEG streams as JPEG XL: the same bytes come back, and what is damaged is said to be."""

from __future__ import annotations

import contextlib

import imagecodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, TransposeCodec
from zarr.registry import get_codec_class

from tests.codecs.hostile import cut_or_flipped
from tests.sources.madetiff import photo
from tilestream.codecs.imagechunks import JPEG
from tilestream.codecs.jpegxl import NAME, JpegXl
from tilestream.codecs.jpegxlboxes import CODESTREAM, SIGNATURE, boxes, declared_shape
from tilestream.codecs.zarrimages import JpegCodec
from tilestream.codecs.zarrjpegxl import JpegXlCodec
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Shape

PX = 64


def jpeg(seed: int = 0, *, channels: int = 3, **options: object) -> bytes:
    pixels = photo(PX, PX, channels=channels, seed=seed)
    plain = pixels if channels > 1 else pixels[..., 0].copy()
    return bytes(imagecodecs.jpeg8_encode(plain, **{"level": 80, **options}))


KINDS = {
    "4:2:0": jpeg(subsampling="420"),
    "4:2:2": jpeg(subsampling="422"),
    "4:4:4": jpeg(subsampling="444"),
    "rgb": jpeg(colorspace="RGB", outcolorspace="RGB"),
    "grey": jpeg(channels=1),
    "own tables": jpeg(optimize=True),
    "something behind it": jpeg() + b"tail",
}
NO_FORM = {"lossless": jpeg(lossless=True), "4:1:1": jpeg(subsampling="411"), "cut": jpeg()[:-100]}
ONE = KINDS["4:2:0"]
COMMON = JpegXl.common([ONE, jpeg(1, subsampling="420")])
FILE = bytes(imagecodecs.jpegxl_encode_jpeg(ONE))


def decode(codec: JpegXl, data: bytes) -> bytes:
    return codec.decode(data, most_px=PX * PX)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bytes_come_back_of_fewer(kind: str) -> None:
    stream = KINDS[kind]
    codec = JpegXl.common([stream])
    packed = codec.encode(stream)
    assert packed[:2] == CODESTREAM
    assert len(packed) < 0.95 * len(stream)
    assert decode(codec, packed) == stream


@pytest.mark.parametrize("kind", NO_FORM)
def test_a_stream_without_a_form_stays_what_it_is(kind: str) -> None:
    assert COMMON.encode(NO_FORM[kind]) == NO_FORM[kind]
    assert decode(COMMON, NO_FORM[kind]) == NO_FORM[kind]
    assert JpegXl.common([NO_FORM[kind]]) == JpegXl()


def test_a_stream_with_other_choices_brings_them_along() -> None:
    other = jpeg(subsampling="444", level=98, optimize=True)
    packed = COMMON.encode(other)
    assert packed.startswith(SIGNATURE)
    assert decode(COMMON, packed) == other
    assert decode(JpegXl(), packed) == other


def test_what_most_have_in_common_is_stated_once() -> None:
    own = [jpeg(seed, optimize=True) for seed in range(3)]
    assert JpegXl.common(own) == JpegXl()
    assert JpegXl.common([*own, ONE, ONE]) == COMMON
    packed = COMMON.encode(ONE)
    assert len(packed) < len(FILE) - len(COMMON.reconstruction)
    assert decode(COMMON, packed) == ONE


def test_pixels_are_those_of_the_jpeg_not_of_the_decoder_of_jpeg_xl() -> None:
    pixels = imagecodecs.jpeg8_decode(decode(COMMON, COMMON.encode(ONE)))
    np.testing.assert_array_equal(pixels, imagecodecs.jpeg8_decode(ONE))
    assert (pixels != imagecodecs.jpegxl_decode(FILE)).any()


def test_boxes_and_size_of_a_file() -> None:
    kinds = [kind for kind, _, _ in boxes(FILE)]
    assert kinds[:2] == [b"JXL ", b"ftyp"]
    assert kinds.count(b"jbrd") == 1
    assert declared_shape(FILE) == declared_shape(COMMON.encode(ONE)) == Shape(y=PX, x=PX)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "start with nothing"),
        (b"RIFF", "start with 52 49"),
        (SIGNATURE, "no box that holds a codestream"),
        (SIGNATURE + b"\0\0\0\x02jxlc", "shorter than its head"),
        (FILE[: len(FILE) // 2], "gives no JPEG back"),
        (bytes(imagecodecs.jpegxl_encode(photo(PX, PX))), "gives no JPEG back"),
        (bytes(imagecodecs.jpegxl_encode(np.zeros((4000, 4000), np.uint8), effort=1)), "declares 4000 x 4000 pixels"),
    ],
)
def test_what_is_no_tile_is_damage(data: bytes, words: str) -> None:
    with pytest.raises(DamagedError, match=words):
        decode(COMMON, data)


def test_a_codestream_needs_the_metadata_of_its_array() -> None:
    with pytest.raises(DamagedError, match="does not state it"):
        decode(JpegXl(), COMMON.encode(ONE))


@settings(max_examples=400, deadline=None)
@given(data=st.data(), form=st.sampled_from(["codestream", "file", "reconstruction"]))
def test_no_accident_is_more_than_a_damaged_tile(data: st.DataObject, form: str) -> None:
    codec, stored = COMMON, FILE if form == "file" else COMMON.encode(ONE)
    if form == "reconstruction":
        codec = JpegXl(reconstruction=data.draw(cut_or_flipped(COMMON.reconstruction)))
    else:
        stored = data.draw(cut_or_flipped(stored))
    with contextlib.suppress(DamagedError):
        assert len(decode(codec, stored)) < 100 * len(ONE)


@pytest.mark.parametrize("options", [{"shine": 1}, {"reconstruction": "no base 64!"}, {"reconstruction": 3}])
def test_a_configuration_that_is_not_known_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"codec `tilestream\.jpegxl`"):
        JpegXlCodec.from_dict({"name": NAME, "configuration": options})


def test_only_jpeg_can_stand_before_it() -> None:
    with pytest.raises(ConfigError, match="a JPEG stream"):
        COMMON.encode(b"pixels")


@pytest.mark.parametrize("codec", [JpegXl(), COMMON])
def test_metadata_and_back(codec: JpegXl) -> None:
    again = JpegXlCodec.from_dict(JpegXlCodec(transcoder=codec).to_dict())
    assert again == JpegXlCodec(transcoder=codec)
    assert hash(again)
    assert JpegXl().behind_jpeg([{"name": "transpose"}, {"name": JPEG}, {"name": "crc32c"}]) == (
        {"name": "transpose"}, {"name": JPEG}, {"name": NAME}, {"name": "crc32c"},
    )  # fmt: skip


def test_plain_zarr_writes_and_reads_it(tmp_path) -> None:
    pixels = photo(2 * PX, PX).transpose(2, 0, 1)
    codecs = {"filters": [TransposeCodec(order=(1, 2, 0))], "serializer": JpegCodec(options={"level": 90})}
    shape = {"shape": pixels.shape, "chunks": (3, PX, PX), "dtype": "u1"}
    plain = zarr.create_array(tmp_path / "plain", **shape, **codecs, compressors=None)
    array = zarr.create_array(tmp_path / "a", **shape, **codecs, compressors=[JpegXlCodec(), Crc32cCodec()])
    plain[:] = pixels
    array[:] = pixels
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], plain[:])


def test_zarr_finds_it_by_entry_point() -> None:
    assert get_codec_class(NAME) is JpegXlCodec
