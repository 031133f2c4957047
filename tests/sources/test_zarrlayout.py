"""What is read by zarr-python because its layout is not known here, with the same pixels, and what is not guessed."""

from __future__ import annotations

import json

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, ZstdCodec

from tests.sources.assembled import whole_level
from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File
from tilestream.sources.ngff import read_node
from tilestream.sources.opening import open_source
from tilestream.sources.zarrlayout import layout_of

VALUES = np.random.default_rng(0).integers(0, 255, (70, 90)).astype("uint16")
INNER = ShardingCodec(chunk_shape=(8, 8), codecs=[BytesCodec()], index_codecs=[BytesCodec(), Crc32cCodec()])


def layout_at(path):
    return layout_of(read_node(File(url=str(path))))


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.parametrize(
    "options",
    [
        {"zarr_format": 2, "filters": [numcodecs.Delta("u2")]},
        {"zarr_format": 2, "compressors": numcodecs.BZ2()},
        {"zarr_format": 2, "compressors": numcodecs.LZMA()},
        {"compressors": [GzipCodec(), ZstdCodec()]},
        {"shards": (32, 32), "serializer": INNER},
        {"serializer": INNER, "compressors": [Crc32cCodec()]},
    ],
)
def test_what_is_not_known_is_read_by_zarr(tmp_path, options):
    zarr.create_array(tmp_path / "a.zarr", data=VALUES, **{"chunks": (16, 16), **options})
    assert layout_at(tmp_path / "a.zarr") is None
    source = open_source(str(tmp_path / "a.zarr"))
    np.testing.assert_array_equal(whole_level(source)[0][..., 0], VALUES)


@pytest.mark.parametrize(
    "change",
    [
        {"storage_transformers": [{"name": "x"}]},
        {"chunk_grid": {"name": "rectilinear", "configuration": {"chunk_shape": [16, 16]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16]}}},
        {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 0]}}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "-"}}},
        {"chunk_key_encoding": {"name": "hilbert"}},
        {"data_type": "bfloat16"},
        {"data_type": {"name": "uint16"}},
        {"fill_value": "0x0001"},
        {"fill_value": -1},
        {"fill_value": 1.5},
        {"fill_value": None},
        {"shape": [70.0, 90]},
        {"dimension_names": ["y"]},
        {"codecs": []},
        {"codecs": "zstd"},
        {"codecs": [{"name": "zstd"}]},
        {"codecs": [{"name": "bytes"}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "middle"}}]},
        {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}, "must_understand": False}]},
        {
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"x": 1}},
            ]
        },
        {"codecs": [{"name": "transpose", "configuration": {"order": [0, 0]}}, {"name": "bytes"}]},
        {"codecs": [{"name": "transpose", "configuration": {"order": "F"}}, {"name": "bytes"}]},
        {"must_be_known": {"must_understand": True}},
        {"harmless": {"must_understand": False}},
    ],
)
def test_metadata_that_are_not_understood_to_the_last_word(tmp_path, change):
    zarr.create_array(tmp_path / "a.zarr", data=VALUES, chunks=(16, 16))
    assert layout_at(tmp_path / "a.zarr") is not None
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps({**document, **change}))
    assert layout_at(tmp_path / "a.zarr") is None


def test_a_key_that_need_not_be_understood_leaves_it_to_zarr(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=VALUES, chunks=(16, 16))
    document = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    document["harmless"] = {"must_understand": False}
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(document))
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "a.zarr")))[0][..., 0], VALUES)
    document["harmless"] = 1
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SourceError, match="harmless"):
        open_source(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "<M8[s]"},
        {"dtype": [["a", "<u2"]]},
        {"dtype": "<c8"},
        {"order": "A"},
        {"filters": []},
        {"dimension_separator": "-"},
        {"compressor": {"id": "quantum"}},
        {"compressor": {"id": "zlib", "window": 3}},
        {"compressor": "zlib"},
        {"fill_value": "AAAA"},
        {"chunks": [16]},
        {"more": 1},
    ],
)
def test_metadata_of_zarr_2_that_are_not_understood_to_the_last_word(tmp_path, change):
    zarr.create_array(tmp_path / "a.zarr", data=VALUES, chunks=(16, 16), zarr_format=2)
    assert layout_at(tmp_path / "a.zarr") is not None
    document = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps({**document, **change}))
    assert layout_at(tmp_path / "a.zarr") is None


def test_damage_that_zarr_finds_is_named_too(tmp_path):
    zarr.create_array(
        tmp_path / "a.zarr", data=VALUES, chunks=(16, 16), zarr_format=2, compressors=numcodecs.BZ2(), filters=None
    )
    (tmp_path / "a.zarr" / "0.0").write_bytes(b"nothing")
    source = open_source(str(tmp_path / "a.zarr"))
    with pytest.raises(DamagedError, match="Zarr chunk"):
        source.read_block(0, 0, 0)
    (tmp_path / "a.zarr" / "0.0").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DamagedError, match="git lfs pull"):
        source.read_block(0, 0, 0)
