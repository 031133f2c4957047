"""Chunks as images, without Zarr."""

from __future__ import annotations

import google_crc32c
import numpy as np
import pytest

from tests.sources.madetiff import photo
from tilestream.codecs.imagechunks import JPEG, JPEG2K, decode_image, encode_image, with_checksum
from tilestream.errors import ConfigError, DamagedError


@pytest.mark.parametrize(("name", "options"), [(JPEG, {"lossless": True}), (JPEG2K, {}), (JPEG2K, {"level": 0})])
@pytest.mark.parametrize("shape", [(32, 48, 3), (1, 32, 48), (48, 32, 1), (1, 9, 3)])
def test_a_chunk_comes_back_as_it_was(name, options, shape):
    chunk = photo(32, 48).reshape(-1)[: np.prod(shape)].reshape(shape)
    stream = encode_image(name, chunk, options=options)
    np.testing.assert_array_equal(decode_image(name, stream, shape=shape, dtype=chunk.dtype, options=options), chunk)


def test_strides_do_not_matter():
    planes = np.ascontiguousarray(photo(16, 24).transpose(2, 0, 1))
    assert encode_image(JPEG, planes.transpose(1, 2, 0)) == encode_image(JPEG, photo(16, 24))


@pytest.mark.parametrize("name", [JPEG, JPEG2K])
def test_a_stream_of_another_picture_is_damage(name):
    stream = encode_image(name, photo(16, 16))
    with pytest.raises(DamagedError, match=r"holds \(16, 16, 3\) uint8, the array \(16, 16, 1\)"):
        decode_image(name, stream, shape=(16, 16, 1), dtype=np.dtype("u1"))
    with pytest.raises(DamagedError, match=r"the array .* uint16"):
        decode_image(name, stream, shape=(16, 16, 3), dtype=np.dtype("u2"))
    with pytest.raises(DamagedError, match="does not decode"):
        decode_image(name, b"nothing of the kind", shape=(16, 16, 3), dtype=np.dtype("u1"))


def test_the_checksum_stands_behind_the_stream():
    assert with_checksum(b"123456789") == b"123456789" + google_crc32c.value(b"123456789").to_bytes(4, "little")
    assert with_checksum(b"123456789")[-4:].hex() == "839206e3"  # the check value of CRC-32C (RFC 3720)


@pytest.mark.parametrize(("name", "dtype"), [(JPEG, "f4"), (JPEG2K, "f8"), (JPEG, "u8")])
def test_what_is_no_picture_is_refused(name, dtype):
    with pytest.raises(ConfigError, match=f"chunk of .* {np.dtype(dtype)}"):
        encode_image(name, np.zeros((8, 8, 3), dtype))
