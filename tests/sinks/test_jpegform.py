"""What a JPEG stream says of itself, as decoders understand it."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from tilestream.sinks.jpegform import JpegForm, jpeg_form

COLOUR = np.random.default_rng(0).integers(0, 255, (48, 32, 3), np.uint8)


def _stream(**options: object) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(COLOUR, colorspace="RGB", **options))


@pytest.mark.parametrize(
    ("words", "subsampling"), [("444", (1, 1)), ("422", (2, 1)), ("420", (2, 2)), ("440", (1, 2)), ("411", (4, 1))]
)
def test_colours(words: str, subsampling: tuple[int, int]) -> None:
    data = _stream(outcolorspace="YCBCR", subsampling=words)
    assert jpeg_form(data) == JpegForm(height=48, width=32, components=3, subsampling=subsampling, is_ycbcr=True)


def test_red_green_blue_and_grey() -> None:
    form = jpeg_form(_stream(outcolorspace="RGB"))
    assert form == JpegForm(height=48, width=32, components=3)
    grey = bytes(imagecodecs.jpeg8_encode(COLOUR[..., 0].copy()))
    assert jpeg_form(grey) == JpegForm(height=48, width=32, components=1)


def test_marks_of_colour_go_before_names_of_components() -> None:
    data = _stream(outcolorspace="YCBCR")
    bare = data.replace(data[2 : 4 + int.from_bytes(data[4:6], "big")], b"")  # without JFIF
    assert jpeg_form(bare).is_ycbcr
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    assert not jpeg_form(bare[:2] + adobe + b"\x00" + bare[2:]).is_ycbcr
    assert jpeg_form(bare[:2] + adobe + b"\x01" + bare[2:]).is_ycbcr


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff\xd9",
        _stream()[:100],
        bytes(imagecodecs.jpeg8_encode(COLOUR, colorspace="RGB", outcolorspace="RGB", lossless=True)),
        bytes(imagecodecs.jpeg8_encode(np.dstack([COLOUR, COLOUR[..., :1]]), colorspace="CMYK", outcolorspace="CMYK")),
    ],
    ids=["nothing", "no frame", "cut", "lossless", "four components"],
)
def test_what_a_tiff_cannot_hold(data: bytes) -> None:
    assert jpeg_form(data) is None
