"""Chunks as images, without Zarr."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sources.madetiff import photo
from tilestream.codecs.imagechunks import JPEG, JPEG2K, decode_chunk, decode_image, encode_image, with_checksum
from tilestream.errors import ConfigError, DamagedError

ORDER = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}
SUM = {"name": "crc32c"}


@pytest.mark.parametrize(("name", "options"), [(JPEG, {"lossless": True}), (JPEG2K, {})])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("is_summed", [True, False])
def test_a_chunk_comes_back_as_it_was(name, options, channels, is_summed):
    chunk = np.ascontiguousarray(photo(32, 48, channels=channels).transpose(2, 0, 1))
    stream = encode_image(name, chunk.transpose(1, 2, 0) if channels > 1 else chunk, options=options)
    codecs = [*([ORDER] if channels > 1 else []), {"name": name, "configuration": options}, *([SUM] * is_summed)]
    data = with_checksum(stream) if is_summed else stream
    got = decode_chunk(data, codecs, shape=chunk.shape, dtype=chunk.dtype)
    np.testing.assert_array_equal(got, chunk)
    assert got.shape == chunk.shape


@pytest.mark.parametrize("name", [JPEG, JPEG2K])
def test_a_stream_of_another_picture_is_damage(name):
    stream = encode_image(name, photo(16, 16))
    with pytest.raises(DamagedError, match=r"holds \(16, 16, 3\) uint8, the array \(16, 16, 1\)"):
        decode_image(name, stream, shape=(16, 16, 1), dtype=np.dtype("u1"))
    with pytest.raises(DamagedError, match=r"the array .* uint16"):
        decode_image(name, stream, shape=(16, 16, 3), dtype=np.dtype("u2"))
    with pytest.raises(DamagedError, match="does not decode"):
        decode_image(name, b"nothing of the kind", shape=(16, 16, 3), dtype=np.dtype("u1"))


@pytest.mark.parametrize("where", [0, 100, -1])
def test_every_changed_byte_breaks_the_checksum(where):
    data = bytearray(with_checksum(encode_image(JPEG, photo(16, 16))))
    data[where] ^= 1
    with pytest.raises(DamagedError, match="checksum"):
        decode_chunk(bytes(data), [ORDER, {"name": JPEG}, SUM], shape=(3, 16, 16), dtype=np.dtype("u1"))


@pytest.mark.parametrize("codecs", [[], [SUM], [{"name": "bytes"}], [ORDER, {"name": JPEG}, {"name": "zstd"}]])
def test_other_codecs_are_left_to_zarr(codecs):
    with pytest.raises(ConfigError, match="zarr-python"):
        decode_chunk(b"", codecs, shape=(1, 4, 4), dtype=np.dtype("u1"))


@pytest.mark.parametrize(("name", "dtype"), [(JPEG, "f4"), (JPEG2K, "f8"), (JPEG, "u8")])
def test_what_is_no_picture_is_refused(name, dtype):
    with pytest.raises(ConfigError, match=f"chunk of .* {np.dtype(dtype)}"):
        encode_image(name, np.zeros((8, 8, 3), dtype))
