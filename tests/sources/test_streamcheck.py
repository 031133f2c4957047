"""What streams declare is compared with their image before a decoder makes room for it."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from tilestream.errors import DamagedError
from tilestream.sources.jpegcheck import declared_size
from tilestream.sources.opening import open_source
from tilestream.sources.streamcheck import check_jpeg2000, check_jpegxl, check_webp
from tilestream.types import Shape

ENCODERS: dict[int, Any] = {
    34712: lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k"),
    50001: lambda a: imagecodecs.webp_encode(a, lossless=True),
    50002: lambda a: imagecodecs.jpegxl_encode(a, lossless=True),
}
CHECKS: dict[int, Any] = {
    34712: lambda data, most: check_jpeg2000(data, most=most),
    50001: lambda data, most: check_webp(data, most=most),
    50002: check_jpegxl,
}


def with_stream(path: Any, stream: bytes, compression: int) -> str:
    """A TIFF of one tile of 64 x 64 pixels whose data are `stream`."""
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), compression="zlib", photometric="rgb")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        places = {code: file.pages[0].tags[code].valueoffset for code in (259, 324, 325)}
        wide = "<Q" if file.is_bigtiff else "<I"
    for code, kind, value in ((259, "<H", compression), (324, wide, len(data)), (325, "<H", len(stream))):
        struct.pack_into(kind, data, places[code], value)
    path.write_bytes(data + stream)
    return str(path)


@pytest.mark.parametrize("compression", ENCODERS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (64, 48), (63, 200), (256, 256), (600, 450), (9000, 40)])
def test_declared_sizes_are_those_that_are_decoded(compression: int, size: tuple[int, int]) -> None:
    stream = ENCODERS[compression](np.zeros((*size, 3), np.uint8))
    CHECKS[compression](stream, Shape(y=size[0], x=size[1]))
    with pytest.raises(DamagedError, match=f"declares {size[0]} x {size[1]} pixels"):
        CHECKS[compression](stream, Shape(y=min(size) - 1, x=min(size) - 1))


@pytest.mark.parametrize("compression", ENCODERS)
def test_a_few_bytes_that_claim_a_large_picture_are_not_decoded(tmp_path: Any, compression: int) -> None:
    stream = ENCODERS[compression](np.zeros((3000, 3000, 3), np.uint8))
    source = open_source(with_stream(tmp_path / "bomb.tif", stream, compression))
    with pytest.raises(DamagedError, match="declares 3000 x 3000 pixels, the image is stored in 64 x 64"):
        source.read_block(0, 0, 0)


def test_jpeg2000_of_too_many_components_is_not_decoded() -> None:
    stream = imagecodecs.jpeg2k_encode(np.zeros((8, 8, 5), np.uint8), level=0, codecformat="j2k")
    with pytest.raises(DamagedError, match="5 components, the image has 3"):
        check_jpeg2000(stream, samples=3)


@pytest.mark.parametrize("encode", [imagecodecs.jpegls_encode, imagecodecs.ljpeg_encode])
def test_lossless_jpeg_declares_its_size(encode: Any) -> None:
    stream = encode(np.zeros((31, 52), np.uint8))
    assert declared_size(stream) == (31, 52, 1)
    with pytest.raises(DamagedError, match="marker expected"):
        declared_size(stream[:6])
