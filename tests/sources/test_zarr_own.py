"""Stores of our own: which shards were written, what is valid, and formats that are not known yet."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import tifffile
import zarr

import tilestream as ts
from tests.sources.assembled import whole_level
from tests.sources.madezarr import save_pyramid
from tests.sources.test_extras import store
from tilestream.codecs.shardmap import encode_shard_map
from tilestream.errors import DamagedError, SourceError
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.opening import open_source
from tilestream.types import Box


def image(size=512, glass=True):
    values = np.random.default_rng(3).integers(0, 255, (3, size, size)).astype("uint8")
    if glass:
        values[:, : size // 2, : size // 2] = 255
    return values


def pyramid(path, *, chunk_px=128, **more):
    """Two levels; the top-left shard of the first is glass, and not stored."""
    fine = image()
    coarse = fine[:, ::2, ::2].copy()
    shards = {
        "0": encode_shard_map(np.array([[False, True], [True, True]])),
        "1": encode_shard_map(np.ones((1, 1), bool)),
    }
    save_pyramid(path, [fine, coarse], chunk_px=chunk_px, **{"shards": shards, **more})
    return path, fine


def test_glass_is_background_and_a_lost_shard_is_damage(tmp_path):
    path, fine = pyramid(tmp_path / "a.zarr")
    source = open_source(str(path))
    pixels, valid, damage = whole_level(source)
    assert not damage
    assert valid.all()
    np.testing.assert_array_equal(pixels, fine.transpose(1, 2, 0))
    assert [note for note in source.info.notes if note.startswith("stored")] == [
        "stored shards: level 0 3 of 4, level 1 1 of 1; absent ones read as 255"
    ]
    (path / "0" / "image" / "c" / "0" / "1" / "0").unlink()
    source = open_source(str(path))
    assert any("written and are gone: level 0 1" in note for note in source.info.notes)
    assert set(whole_level(source)[2]) == {(2, 0), (2, 1), (3, 0), (3, 1)}
    with pytest.raises(DamagedError, match="`c/0/1/0` is gone"):
        source.read_block(0, 2, 0)


def test_a_lost_shard_of_a_store_that_was_built(tmp_path):
    pixels = image(700, glass=False).transpose(1, 2, 0).copy()
    pixels[:256, :256] = 255
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), compression="zlib", photometric="rgb")
    ts.build_pyramid(str(tmp_path / "a.tif"), str(tmp_path / "a.zarr"), profile="portable")
    source = open_source(str(tmp_path / "a.zarr"))
    assert len(source.info.levels) > 1
    assert all(layout is not None for layout in source.layouts)
    np.testing.assert_array_equal(whole_level(source)[0], pixels)
    (tmp_path / "a.zarr" / "1" / "image" / "c" / "0" / "0" / "0").unlink()
    source = open_source(str(tmp_path / "a.zarr"))
    assert whole_level(source, 1)[2]
    assert not whole_level(source, 0)[2]


def test_a_lost_file_of_a_store_without_shards_is_damage_too(tmp_path):
    """As the profile `gdal` has it; without a map a file that is gone cannot be told from background."""
    path, _ = pyramid(tmp_path / "a.zarr", counts=1, shards=None)
    (path / "0" / "image" / "c" / "0" / "3" / "3").unlink()
    assert not whole_level(open_source(str(path)))[2]
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["tilestream"]["shards"] = {"0": encode_shard_map(np.ones((4, 4), bool))}
    (path / "zarr.json").write_text(json.dumps(root))
    glass = {(0, 0), (0, 1), (1, 0), (1, 1)}  # it, too, was written then
    assert set(whole_level(open_source(str(path)))[2]) == {*glass, (3, 3)}


@pytest.mark.parametrize("text", ["", "?", encode_shard_map(np.ones((5, 5), bool))])
def test_a_map_that_is_none_is_named(tmp_path, text):
    path, _ = pyramid(tmp_path / "a.zarr", shards={"0": text})
    with pytest.raises(SourceError, match="map of shards"):
        open_source(str(path))


def test_the_mask_of_a_store(tmp_path):
    fine = np.zeros((1, 512, 512), np.uint8)
    fine[0, 100:, 30:] = 1
    path, pixels = pyramid(tmp_path / "a.zarr", valid=[fine, fine[:, ::2, ::2].copy()])
    opened = open_pyramid(path)
    assert opened.info.validity == "mask"
    box = Box(y=90, x=20, height=300, width=310)
    region = opened.read_region(box)
    np.testing.assert_array_equal(region.valid, fine[0, 90:390, 20:330] == 1)
    np.testing.assert_array_equal(region.pixels, np.where(region.valid, pixels[:, 90:390, 20:330], 0))
    coarse = opened.read_region(Box(level=1, y=0, x=0, height=256, width=256)).valid
    np.testing.assert_array_equal(coarse, fine[0, ::2, ::2] == 1)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again.read_region(box).valid, region.valid)
    bare, _ = pyramid(tmp_path / "b.zarr")
    assert open_pyramid(bare).info.validity is None
    assert open_pyramid(bare).fingerprint != opened.fingerprint


def test_a_mask_on_another_grid_is_refused(tmp_path):
    path, _ = pyramid(tmp_path / "a.zarr", valid=[np.ones((1, 511, 512), np.uint8), np.ones((1, 256, 256), np.uint8)])
    with pytest.raises(SourceError, match="a mask of levels"):
        open_source(str(path))


def test_formats_that_are_not_known_yet(tmp_path):
    path, _ = pyramid(tmp_path / "a.zarr", format=2, version="9.1")
    with pytest.raises(SourceError, match=r"format 2 .* by tilestream 9\.1"):
        open_source(str(path))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"zarr.json": {"zarr_format": 4, "node_type": "group"}}, "Zarr format 4"),
        ({".zgroup": {"zarr_format": 4}}, "Zarr format 4"),
        ({"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.7"}}}}, "0.7"),
        ({"zarr.json": {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "1.0-dev"}}}}, "1.0"),
    ],
)
def test_versions_that_are_not_known_yet(tmp_path, files, said):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(SourceError, match=f"{said}.*newer tilestream"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("name", ["1/image/zarr.json", "labels/zarr.json", "labels/valid/zarr.json", "zarr.json"])
def test_one_document_that_is_no_json_is_named(tmp_path, name):
    valid = [np.ones((1, 512, 512), np.uint8), np.ones((1, 256, 256), np.uint8)]
    path, _ = pyramid(tmp_path / "a.zarr", valid=valid)
    (path / name).write_text("{")
    with pytest.raises(SourceError, match=f"{name}`.*no JSON"):
        open_source(str(path))


def test_absent_chunks_of_any_store_are_counted(tmp_path):
    for zarr_format, keys in ((2, {"name": "v2", "separator": "."}), (3, {"name": "default", "separator": "/"})):
        path = tmp_path / f"{zarr_format}.zarr"
        array = zarr.create_array(
            path,
            shape=(100, 100),
            chunks=(32, 32),
            dtype="i2",
            fill_value=-5,
            zarr_format=zarr_format,
            chunk_key_encoding=keys,
        )
        assert any("level 0 0 of 16; absent ones read as -5" in note for note in open_source(str(path)).info.notes)
        array[:40, :70] = 3
        (path / "stray.txt").write_text("no chunk")
        assert any("level 0 6 of 16" in note for note in open_source(str(path)).info.notes)
        array[:] = 3
        assert not any("stored" in note for note in open_source(str(path)).info.notes)


def test_too_many_files_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("tilestream.sources.zarrstored.MOST_LISTED", 10)
    array = zarr.create_array(tmp_path / "a.zarr", shape=(500, 100), chunks=(32, 32), dtype="u1")
    array[:480] = 3
    notes = open_source(str(tmp_path / "a.zarr")).info.notes
    assert not any("stored" in note for note in notes)
    group = zarr.open_group(tmp_path / "b.zarr", mode="w")
    group.create_array("0", shape=(500, 100), chunks=(32, 32), dtype="u1")[:480] = 3
    group.create_array("1", shape=(64, 64), chunks=(32, 32), dtype="u1")[:32] = 3
    notes = open_source(str(tmp_path / "b.zarr")).info.notes
    assert any("stored chunks: level 0 not counted (up to 64), level 1 2 of 4" in note for note in notes)


@pytest.mark.parametrize(
    ("moment", "known"),
    [
        ("2020-02-19T11:34:25.405000Z", True),
        ("2020-02-19", True),
        ("born 1953-04-01", False),
        (5, False),
        (None, False),
    ],
)
def test_dates_of_our_record_are_dates(tmp_path, moment, known):
    path = store(tmp_path / "a.zarr", image={"datetime": moment, "modality": "brightfield", "gcps": [[1, 2]]})
    info = open_source(str(tmp_path / "a.zarr")).info
    assert info.datetime == (moment if known else None)
    assert (info.modality, info.gcps, path.attrs["tilestream"]["format"]) == ("brightfield", (), 1)
