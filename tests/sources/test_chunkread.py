"""Our reader of Zarr chunks gives what zarr-python gives, for every layout and chain of codecs that it takes."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec
from zarr.codecs import numcodecs as zarr_numcodecs

from tests.strategies import boxes_inside
from tilestream.sources.chunkread import ChunkReader
from tilestream.sources.files import File
from tilestream.sources.ngff import read_node
from tilestream.sources.zarrlayout import layout_of
from tilestream.types import Box, Shape

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")

DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
]
PACKERS_3 = {
    "none": [],
    "zstd": [ZstdCodec(level=1)],
    "zstd-checksum": [ZstdCodec(level=1, checksum=True)],
    "gzip": [GzipCodec(level=1)],
    "blosc-lz4": [BloscCodec(cname="lz4", shuffle="bitshuffle")],
    "blosc-zstd": [BloscCodec(cname="zstd", shuffle="shuffle")],
    "crc32c": [Crc32cCodec()],
    "crc32c-outside": [ZstdCodec(level=1), Crc32cCodec()],
    "crc32c-both": [Crc32cCodec(), GzipCodec(level=1), Crc32cCodec()],
}
PACKERS_2 = {
    "none": None,
    "zstd": numcodecs.Zstd(level=1),
    "zlib": numcodecs.Zlib(level=1),
    "gzip": numcodecs.GZip(level=1),
    "lz4": numcodecs.LZ4(),
    "blosc": numcodecs.Blosc(cname="lz4", shuffle=numcodecs.Blosc.AUTOSHUFFLE),
}
AXES = ["yx", "cyx", "yxc", "cxy", "tcyx", "tczyx", "yxz"]


@st.composite
def grids(draw, axes):
    """Shape, chunk shape and chunks to a shard, edges and lengths of 1 included."""
    shape = tuple(draw(st.integers(1, 4 if name in "tcz" else 23)) for name in axes)
    chunks = tuple(draw(st.integers(1, size + 2)) for size in shape)
    return shape, chunks, tuple(draw(st.integers(1, 3)) for _ in axes)


@st.composite
def fills(draw, dtype):
    kind = np.dtype(dtype).kind
    if kind == "b":
        return draw(st.booleans())
    if kind == "f":
        return draw(st.sampled_from([0.0, -1.5, float("nan"), float("inf"), float("-inf"), 7]))
    limits = np.iinfo(dtype)
    return draw(st.sampled_from([0, 7, int(limits.max), int(limits.min)]))


def samples(shape, dtype):
    raw = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, np.dtype(dtype).itemsize), np.uint8)
    return raw.view(dtype)[..., 0] if dtype != "bool" else raw[..., 0] > 128


def boxes(shape, axes):
    sizes = dict(zip(axes, shape, strict=True))
    return boxes_inside(Shape(y=sizes["y"], x=sizes["x"]))


def write_part(array, box, axes):
    """Write a box of an array, with all that is on its other axes, and leave the rest as it is."""
    where = {"y": slice(box.y, box.y_stop), "x": slice(box.x, box.x_stop)}
    index = tuple(where.get(name, slice(None)) for name in axes)
    array[index] = samples(array.shape, array.dtype.name)[index]


def open_reader(path, axes, **more):
    layout = layout_of(read_node(File(url=str(path))))
    assert layout is not None, "this layout is one that we read ourselves"
    return ChunkReader(File(url=str(path)), layout, dims=tuple(axes), fingerprint=str(path), **more)


def as_pixels(array, axes, box, selection):
    where = {"y": slice(box.y, box.y_stop), "x": slice(box.x, box.x_stop), "c": slice(None)}
    part = array[tuple(where.get(name, selection.get(name, 0)) for name in axes)]
    left = [name for name in axes if name in where]
    return part.transpose([left.index(name) for name in "yxc" if name in left]).reshape(box.height, box.width, -1)


def check(draw, path, array, axes):
    """Compare some windows, with memory lent and without, with zarr-python's."""
    reader = open_reader(path, axes)
    for _ in range(3):
        box = draw(boxes(array.shape, axes))
        sizes = dict(zip(axes, array.shape, strict=True))
        selection = {name: draw(st.integers(0, sizes[name] - 1)) for name in axes if name not in "yxc"}
        expected = as_pixels(array, axes, box, selection)
        np.testing.assert_array_equal(reader.read(box, selection), expected)
        for out in (np.empty(expected.shape, expected.dtype), np.empty((5, 5, 2), "u1")):
            before = out.copy()
            found = reader.read(box, selection, out)
            np.testing.assert_array_equal(found, expected)
            if not np.shares_memory(found, out):
                np.testing.assert_array_equal(out.view("u1"), before.view("u1"))
        assert found.dtype == array.dtype.newbyteorder("=")


@given(st.data())
def test_zarr_3_chunks_and_shards(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    axes, dtype = data.draw(st.sampled_from(AXES)), data.draw(st.sampled_from(DTYPES))
    shape, chunks, counts = data.draw(grids(axes))
    shards = tuple(c * n for c, n in zip(chunks, counts, strict=True)) if data.draw(st.booleans()) else None
    turns = data.draw(st.lists(st.permutations(range(len(axes))), max_size=2))
    keys = {"name": data.draw(st.sampled_from(["default", "v2"])), "separator": data.draw(st.sampled_from("/."))}
    array = zarr.create_array(
        path,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=data.draw(fills(dtype)),
        filters=[TransposeCodec(order=turn) for turn in turns],
        serializer=BytesCodec(endian=data.draw(st.sampled_from(["little", "big"]))),
        compressors=PACKERS_3[data.draw(st.sampled_from(sorted(PACKERS_3)))],
        chunk_key_encoding=keys,
    )
    write_part(array, data.draw(boxes(shape, axes)), axes)
    check(data.draw, path, array, axes)


@given(st.data())
def test_indexes_at_either_end_with_and_without_a_checksum(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    shape, chunks, counts = data.draw(grids("cyx"))
    sharding = ShardingCodec(
        chunk_shape=chunks,
        codecs=[TransposeCodec(order=(1, 2, 0)), BytesCodec(), ZstdCodec()],
        index_codecs=[BytesCodec(), Crc32cCodec()] if data.draw(st.booleans()) else [BytesCodec()],
        index_location=data.draw(st.sampled_from(["start", "end"])),
    )
    array = zarr.create_array(
        path,
        shape=shape,
        chunks=tuple(c * n for c, n in zip(chunks, counts, strict=True)),
        dtype="uint16",
        fill_value=3,
        serializer=sharding,
        compressors=None,
    )
    write_part(array, data.draw(boxes(shape, "cyx")), "cyx")
    check(data.draw, path, array, "cyx")


@pytest.mark.parametrize("shards", [None, (8, 8)])
def test_a_span_of_the_bytes_of_a_chunk(tmp_path, shards):
    values = samples((16, 16), "uint16")
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(4, 4), shards=shards, compressors=None)
    reader = open_reader(tmp_path / "a.zarr", "yx")
    whole = reader.stored((1, 2))
    assert whole == values[4:8, 8:12].tobytes()
    for start, nbytes in ((0, 5), (7, 9), (30, 2), (30, 99), (32, 4), (99, 1 << 62), (0, 1 << 62)):
        assert reader.stored((1, 2), (start, nbytes)) == whole[start : start + nbytes]


@pytest.mark.parametrize("name", ["Zlib", "LZ4", "Zstd", "Blosc", "GZip"])
def test_codecs_that_numcodecs_adds(tmp_path, name):
    values = samples((40, 50), "uint16")
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(16, 16), compressors=[getattr(zarr_numcodecs, name)()])
    found = open_reader(tmp_path / "a.zarr", "yx").read(Box(y=3, x=5, height=30, width=40), {})
    np.testing.assert_array_equal(found[..., 0], values[3:33, 5:45])


@given(st.data())
def test_zarr_2_chunks(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("zarr") / "a.zarr"
    axes, dtype = data.draw(st.sampled_from(AXES)), data.draw(st.sampled_from(DTYPES))
    shape, chunks, _ = data.draw(grids(axes))
    order = data.draw(st.sampled_from("<>")) if np.dtype(dtype).itemsize > 1 else "|"
    array = zarr.create_array(
        path,
        shape=shape,
        chunks=chunks,
        dtype=np.dtype(dtype).newbyteorder(order),
        fill_value=data.draw(st.one_of(st.none(), fills(dtype))),
        order=data.draw(st.sampled_from("CF")),
        compressors=PACKERS_2[data.draw(st.sampled_from(sorted(PACKERS_2)))],
        chunk_key_encoding={"name": "v2", "separator": data.draw(st.sampled_from("/."))},
        zarr_format=2,
    )
    write_part(array, data.draw(boxes(shape, axes)), axes)
    check(data.draw, path, array, axes)
