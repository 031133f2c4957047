"""Damaged chunks and shards are named, cost their block and nothing else, and never more memory than a chunk has."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import google_crc32c
import imagecodecs
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tests.sources.assembled import whole_level
from tests.sources.madezarr import save_array, shard_bytes, sharded
from tilestream.codecs.metadata import inner_codecs
from tilestream.errors import DamagedError, SourceError
from tilestream.sources.opening import open_source
from tilestream.types import Box

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def noise(*shape):
    return np.random.default_rng(0).integers(0, 255, shape).astype("uint8")


@pytest.fixture
def store(tmp_path):
    """One array of 2 x 2 shards of 2 x 2 chunks of 256²."""
    zarr.create_array(tmp_path / "a.zarr", data=noise(1024, 1024), chunks=(256, 256), shards=(512, 512))
    return tmp_path / "a.zarr"


def cut(data):
    return data[: len(data) // 2]


def flipped(data):
    return data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "checksum of the index"),
        (flipped, "checksum of the index"),
        (lambda data: data[:10], "shorter than its index"),
        (lambda data: b"", "shorter than its index"),
        (lambda data: LFS, "git lfs pull"),
    ],
)
def test_a_damaged_shard_costs_its_chunks(store, damage, said):
    shard = store / "c" / "0" / "1"
    shard.write_bytes(damage(shard.read_bytes()))
    source = open_source(str(store))
    pixels, valid, damaged = whole_level(source)
    assert set(damaged) == {(0, 2), (0, 3), (1, 2), (1, 3)}
    with pytest.raises(DamagedError, match=f"shard `c/0/1`.*{said}"):
        source.read_block(0, 0, 2)
    np.testing.assert_array_equal(pixels[valid][:, 0], noise(1024, 1024)[valid])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ((10**9, 100), "outside the file"),
        ((2**64 - 1, 100), "outside the file"),
        ((0, 2**64 - 1), "cannot be a chunk"),
        ((0, 10**9), "cannot be a chunk"),
        ((0, 0), "unpacks to 0 bytes"),
        ((3, 100), "does not unpack"),
    ],
)
def test_an_index_that_lies_costs_its_chunk(tmp_path, entry, said):
    chunk = numcodecs.Zstd(1).encode(noise(16, 16))
    whole = bytearray(shard_bytes([chunk, chunk]))
    table = np.frombuffer(bytes(whole[-36:-4]), "<u8").copy()
    table[:2] = entry
    whole[-36:] = table.tobytes() + google_crc32c.value(table.tobytes()).to_bytes(4, "little")
    layout = sharded(inner_codecs(np.dtype("uint8")), (16, 16), (1, 2))
    path = save_array(tmp_path / "a.zarr", (16, 32), "uint8", layout=layout, files={"c/0/0": bytes(whole)}, names="yx")
    source = open_source(str(path))
    with pytest.raises(DamagedError, match=said):
        source.read_block(0, 0, 0)


@pytest.mark.parametrize(
    ("compressor", "packed"),
    [
        (ZstdCodec(), numcodecs.Zstd(1).encode),
        (GzipCodec(), lambda data: gzip.compress(data, 1)),
        (BloscCodec(), numcodecs.Blosc("lz4", 1).encode),
        (numcodecs.Zlib(), lambda data: zlib.compress(data, 1)),
        (numcodecs.LZ4(), numcodecs.LZ4().encode),
        (None, lambda data: data[: 1 << 24]),
    ],
    ids=["zstd", "gzip", "blosc", "zlib", "lz4", "none"],
)
def test_a_chunk_that_would_unpack_to_more_is_refused_before_it_is_made(tmp_path, compressor, packed):
    bomb = packed(bytes(1 << 27))
    is_2 = isinstance(compressor, numcodecs.abc.Codec)
    zarr.create_array(
        tmp_path / "a.zarr", data=noise(64, 64), chunks=(64, 64), compressors=compressor, zarr_format=2 if is_2 else 3
    )
    (tmp_path / "a.zarr" / ("0.0" if is_2 else "c/0/0")).write_bytes(bomb)
    source = open_source(str(tmp_path / "a.zarr"))
    tracemalloc.start()
    with pytest.raises(DamagedError, match=r"unpack|more than it can need"):
        source.read_block(0, 0, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * min(len(bomb), 1 << 20) + (1 << 20)


@pytest.mark.parametrize("compressor", [ZstdCodec(checksum=True), GzipCodec(), BloscCodec(), None])
@pytest.mark.parametrize("size", [0, 1, 15, -1, -100])
def test_a_cut_chunk_is_named(tmp_path, compressor, size):
    zarr.create_array(tmp_path / "a.zarr", data=noise(64, 64), chunks=(64, 64), compressors=compressor)
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:size])
    with pytest.raises(DamagedError, match="chunk `c/0/0`"):
        open_source(str(tmp_path / "a.zarr")).read_block(0, 0, 0)


INTERLEAVED = {"name": "transpose", "configuration": {"order": [1, 2, 0]}}
CHAINS = {
    "zstd": [*inner_codecs(np.dtype("uint8"), (1, 2, 0))],
    "blosc": [{"name": "bytes"}, {"name": "blosc", "configuration": {"cname": "lz4"}}, {"name": "crc32c"}],
    "jpeg": [
        {"name": "transpose", "configuration": {"order": [1, 2, 0]}},
        {"name": "imagecodecs_jpeg"},
        {"name": "crc32c"},
    ],
}


def chunk_bytes(name, pixels):
    if name == "zstd":
        return numcodecs.Zstd(1, checksum=True).encode(pixels)
    if name == "blosc":
        data = numcodecs.Blosc("lz4").encode(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    else:
        data = imagecodecs.jpeg8_encode(pixels, level=95)
    return bytes(data) + google_crc32c.value(bytes(data)).to_bytes(4, "little")


@pytest.mark.parametrize("name", CHAINS)
@given(data=st.data())
def test_no_byte_of_a_shard_of_ours_is_wrong_without_being_noticed(tmp_path_factory, name, data):
    """The promise of the stores that we write: whatever is changed or cut, what is given is what was written."""
    tiles = noise(4, 32, 32, 3) // 4 + np.arange(4, dtype="uint8")[:, None, None, None] * 40
    shard = shard_bytes([chunk_bytes(name, tile) for tile in tiles])
    layout = sharded(CHAINS[name], (3, 32, 32), (1, 1, 4))
    path = save_array(
        tmp_path_factory.mktemp("fuzz") / "a.zarr", (3, 32, 128), "uint8", layout=layout, files={"c/0/0/0": shard}
    )
    whole = open_source(str(path)).read_window(Box(y=0, x=0, height=32, width=128)).copy()
    at, kind = data.draw(st.integers(0, len(shard) - 1)), data.draw(st.sampled_from(["flip", "cut", "zero", "insert"]))
    changed = {
        "flip": shard[:at] + bytes([shard[at] ^ data.draw(st.integers(1, 255))]) + shard[at + 1 :],
        "cut": shard[:at],
        "zero": shard[:at] + bytes(min(16, len(shard) - at)) + shard[at + 16 :],
        "insert": shard[:at] + b"x" + shard[at:],
    }[kind]
    (path / "c/0/0/0").write_bytes(changed)
    source = open_source(str(path))
    for x in range(0, 128, 32):
        box = Box(y=0, x=x, height=32, width=32)
        try:
            found = source.read_window(box)
        except DamagedError:
            continue
        np.testing.assert_array_equal(found, whole[:, x : x + 32])


def test_gzip_of_several_members(tmp_path):
    """What `cat` and some parallel compressors make; allowed by RFC 1952."""
    values = noise(64, 64)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(64, 64), compressors=GzipCodec())
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0"
    halves = gzip.compress(values[:32].tobytes()), gzip.compress(values[32:].tobytes())
    chunk.write_bytes(b"".join(halves))
    source = open_source(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels[..., 0], values)
    for wrong in (halves[0], b"".join(halves) + halves[0], b"".join(halves)[:-9], halves[0] + b"rest"):
        chunk.write_bytes(wrong)
        with pytest.raises(DamagedError, match="gzip chunk"):
            source.read_block(0, 0, 0)


def test_a_shard_that_is_replaced_is_no_mixture(store):
    source = open_source(str(store))
    shard = store / "c" / "0" / "0"
    before = source.read_block(0, 0, 0).pixels.copy()
    zarr.create_array(store.parent / "b.zarr", data=255 - noise(1024, 1024), chunks=(256, 256), shards=(512, 512))
    (store.parent / "b.zarr" / "c" / "0" / "0").replace(shard)
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, before)  # the file that is still open
    after = open_source(str(store)).read_block(0, 0, 0).pixels
    np.testing.assert_array_equal(after, 255 - before)
    with pytest.raises(SourceError, match="changed while it was read"):
        source.read_block(0, 0, 1)


def test_a_shard_that_is_rewritten_in_place_is_no_mixture(store):
    source = open_source(str(store))
    source.read_block(0, 0, 0)
    shard = store / "c" / "0" / "0"
    data = shard.read_bytes()
    shard.write_bytes(data)
    with pytest.raises(SourceError, match="changed while it was read"):
        source.read_block(0, 0, 1)
    source.read_block(0, 0, 1)  # whoever asks again gets the new one whole


def test_a_handle_that_was_given_up_is_opened_on_the_same_file_or_not_at_all(store, monkeypatch):
    monkeypatch.setattr("tilestream.sources.files.OPEN_FILES", 1)
    source = open_source(str(store))
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], noise(1024, 1024))
    shard = store / "c" / "0" / "0"
    source.read_block(0, 0, 0)
    source.read_block(0, 3, 3)
    copy = store.parent / "copy"
    copy.write_bytes(shard.read_bytes())
    copy.replace(shard)
    with pytest.raises(SourceError, match="changed while it was read"):
        source.read_block(0, 0, 1)


def test_a_chunk_that_may_not_be_read_is_no_background(store, monkeypatch):
    """Root may read everything, so that the system's answer is made here."""
    import os

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    source = open_source(str(store))
    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(SourceError, match="permission denied"):
        source.read_block(0, 0, 0)


def test_a_file_that_may_not_be_read_is_no_background(tmp_path, monkeypatch):
    import os

    def refuse(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    zarr.create_array(tmp_path / "a.zarr", data=noise(64, 64), chunks=(64, 64))
    source = open_source(str(tmp_path / "a.zarr"))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match="permission denied"):
        source.read_block(0, 0, 0)
    with pytest.raises(SourceError, match="permission denied"):
        open_source(str(tmp_path / "a.zarr"))
