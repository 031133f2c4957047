import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tilestream.codecs.checksums import checksum_file
from tilestream.codecs.durable import write_durable
from tilestream.codecs.metadata import array_metadata, encode_fill, encode_json, group_metadata, is_fill, shard_layout
from tilestream.codecs.shards import ShardWriter
from tilestream.errors import ConfigError


def _write(root, array, chunk_shape, *, transpose=None, fill=0, missing=()):
    """Write `array` as one shard and return the checksum; chunks numbered in `missing` are left out."""
    counts = [-(-n // c) for n, c in zip(array.shape, chunk_shape, strict=True)]
    with ShardWriter(
        root / "c" / "/".join("0" for _ in counts), chunk_shape=chunk_shape, dtype=array.dtype, transpose=transpose
    ) as shard:
        for number, index in enumerate(np.ndindex(*counts)):
            if number in missing:
                shard.append_missing()
                continue
            chunk = np.full(chunk_shape, fill, dtype=array.dtype)
            part = array[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunk_shape, strict=True))]
            chunk[tuple(slice(0, n) for n in part.shape)] = part
            shard.append(chunk)
    document = array_metadata(
        array.shape,
        array.dtype,
        layout=shard_layout(array.dtype, chunk_shape, counts=counts, transpose=transpose),
        dimension_names=["c", "y", "x"][-array.ndim :],
        fill_value=fill,
        attributes={"µ": 1},
    )
    write_durable(root / "zarr.json", encode_json(document))
    return shard.checksum


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    chunk=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    dtype=st.sampled_from(["uint8", "int64", "float32", "float64", "uint16", ">u2"]),
    data=st.data(),
)
def test_zarr_reads_back_every_value(tmp_path_factory, shape, chunk, dtype, data):
    root = tmp_path_factory.mktemp("shard")
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    chunk_shape = tuple(chunk[: len(shape)])
    transpose = data.draw(st.none() | st.permutations(range(len(shape))))
    _write(root, array, chunk_shape, transpose=transpose)
    stored = zarr.open_array(root, mode="r")
    np.testing.assert_array_equal(stored[...], array)
    assert stored.attrs["µ"] == 1
    assert stored.metadata.dimension_names == tuple(["c", "y", "x"][-len(shape) :])


def test_same_bytes_every_time_and_checksum_of_the_file(tmp_path):
    array = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    sums = [_write(tmp_path / name, array, (2, 5)) for name in "ab"]
    assert sums[0] == sums[1] == checksum_file(tmp_path / "a" / "c" / "0" / "0")
    assert (tmp_path / "a" / "c" / "0" / "0").read_bytes() == (tmp_path / "b" / "c" / "0" / "0").read_bytes()


def test_missing_chunks_hold_the_fill_value(tmp_path):
    array = np.arange(8, dtype=np.float32)
    _write(tmp_path, array, (2,), fill=np.nan, missing=(1, 3))
    np.testing.assert_array_equal(zarr.open_array(tmp_path, mode="r")[:], [0, 1, np.nan, np.nan, 4, 5, np.nan, np.nan])
    index = np.frombuffer((tmp_path / "c" / "0").read_bytes()[-68:-4], dtype="<u8")
    assert index[2] == index[3] == 2**64 - 1


def test_a_flipped_bit_is_noticed_by_any_reader(tmp_path):
    _write(tmp_path, np.random.default_rng(0).normal(size=64).astype(np.float32), (64,))
    path = tmp_path / "c" / "0"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match=r"(?i)zstd|checksum|decompress"):
        zarr.open_array(tmp_path, mode="r")[:]


def test_wrong_chunks_are_refused_and_no_file_is_left(tmp_path):
    writer = ShardWriter(tmp_path / "c" / "0", chunk_shape=(4,), dtype=np.dtype("f4"))
    with pytest.raises(ConfigError, match=r"shape \(3,\)"), writer:
        writer.append(np.zeros(3, np.float32))
    writer = ShardWriter(tmp_path / "c" / "0", chunk_shape=(4,), dtype=np.dtype("f4"))
    with pytest.raises(ConfigError, match="float64"), writer:
        writer.append(np.zeros(4))
    assert list((tmp_path / "c").iterdir()) == []


def test_json_depends_on_content_alone():
    assert encode_json({"b": 1, "a": "µ"}) == encode_json(json.loads('{"a": "µ", "b": 1}'))
    with pytest.raises(ValueError, match="JSON compliant"):
        encode_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [(np.nan, "f4", "NaN"), (np.inf, "f4", "Infinity"), (-np.inf, "f8", "-Infinity"), (3.0, "u1", 3), (1, "?", True)],
)
def test_fill_values_as_zarr_spells_them(value, dtype, expected):
    spelled = encode_fill(value, np.dtype(dtype))
    assert spelled == expected
    assert type(spelled) is type(expected)


def test_is_fill_knows_nan():
    assert is_fill(np.full(3, np.nan), np.nan)
    assert not is_fill(np.array([np.nan, 1.0]), np.nan)
    assert is_fill(np.zeros(3, np.uint8), 0)
    assert not is_fill(np.array([0, 1], np.uint8), 0)


def test_group_metadata_carries_what_lies_below(tmp_path):
    _write(tmp_path / "a", np.arange(3, dtype=np.uint8), (3,))
    node = json.loads((tmp_path / "a" / "zarr.json").read_text())
    write_durable(tmp_path / "zarr.json", encode_json(group_metadata({"k": [1]}, consolidated={"a": node})))
    group = zarr.open_consolidated(tmp_path)
    assert group.attrs["k"] == [1]
    assert group["a"][:].tolist() == [0, 1, 2]
