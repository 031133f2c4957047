"""Stores of fields as sources: every level straight from the tiles, damage as a status, errors that say what to do."""

import json
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tests.codecs.exactfield import NAME, PATH, ExactField
from tests.sources.assembled import whole_level
from tests.sources.madefields import save_fields
from tilestream.cache.fields import field_cache, forget_fields
from tilestream.cli.app import app
from tilestream.codecs.container import pack
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.metrics import collect
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.registry import CODECS
from tilestream.sources.field import FieldSource
from tilestream.sources.opening import open_source
from tilestream.sources.zarr import ZarrSource
from tilestream.types import Box


@pytest.fixture(autouse=True)
def exact_codec(monkeypatch):
    monkeypatch.setitem(CODECS, NAME, PATH)
    monkeypatch.setattr(ExactField, "unpacked", 0)
    monkeypatch.setattr(ExactField, "decoded_px", 0)
    monkeypatch.setattr(ExactField, "backends", ())
    forget_fields()


def image(shape=(3, 150, 213), dtype="uint8", seed=5):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path, pixels = tmp_path_factory.mktemp("fields") / "a.zarr", image()
    pixels[:, 16:32, 32:48] = 255
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CODECS, NAME, PATH)
        levels = save_fields(path, pixels, tile_px=16, modality="brightfield")
    return path, [level.transpose(1, 2, 0) for level in levels.pixels]


@pytest.fixture
def store(made, tmp_path):
    """Levels 0 to 4 in tiles of 16 px; those at the edges are cut, one of glass is not stored."""
    path, levels = made
    return Path(shutil.copytree(path, tmp_path / "a.zarr")), levels


def edit(path: Path, **own):
    document = json.loads((path / "zarr.json").read_bytes())
    document["attributes"]["tilestream"].update(own)
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_level_is_there_and_whole(tmp_path, dtype, channels):
    levels = save_fields(tmp_path / "a.zarr", image((channels, 150, 213), dtype), tile_px=16)
    source = open_source(str(tmp_path / "a.zarr"))
    assert isinstance(source, FieldSource)
    assert [level.shape.yx for level in source.info.levels] == [level.shape[1:] for level in levels.pixels]
    assert [level.block.y for level in source.info.levels] == [16, 8, 4, 2, 10]
    for number, expected in enumerate(levels.pixels):
        pixels, valid, damage = whole_level(source, number)
        np.testing.assert_array_equal(pixels, expected.transpose(1, 2, 0))
        assert valid.all()
        assert not damage


def test_what_the_image_is_is_kept(store):
    path, levels = store
    pyramid = open_pyramid(str(path))
    assert (pyramid.mpp, pyramid.kind, pyramid.info.format) == (0.5, "intensity", "fields")
    assert [channel.name for channel in pyramid.channels] == ["R", "G", "B"]
    assert (pyramid.info.modality, pyramid.info.validity) == ("brightfield", None)
    box = Box(level=2, y=3, x=9, height=20, width=30)
    np.testing.assert_array_equal(pyramid.read(box).transpose(1, 2, 0), levels[2][3:23, 9:39])
    assert max(pyramid.thumbnail(40).pixels.shape) <= 40


def test_a_level_costs_the_pixels_that_are_asked_for(store):
    path, levels = store
    source = open_source(str(path))
    for level, found in enumerate(levels):
        ExactField.decoded_px = 0
        whole_level(source, level)
        glass = 0 if level == 4 else source.info.levels[level].block.area
        assert ExactField.decoded_px == found[..., 0].size - glass


def test_a_tile_is_unpacked_once_for_all_its_levels(store):
    path, _ = store
    source, ExactField.unpacked = open_source(str(path)), 0
    with collect() as meter:
        for level in (3, 2, 1, 0):
            source.read_block(level, 2, 3)
    assert ExactField.unpacked == 1
    assert (meter.counts["cache.fields.misses"], meter.counts["cache.fields.hits"]) == (1, 3)
    assert 0 < field_cache().held_bytes <= field_cache().budget_bytes
    forget_fields()
    source.read_block(0, 2, 3)
    assert ExactField.unpacked == 2


def test_the_cache_keeps_to_its_budget(store, monkeypatch):
    path, levels = store
    cache = field_cache()
    before = cache.budget_bytes
    try:
        cache.resize(40_000)
        for _ in range(2):
            np.testing.assert_array_equal(whole_level(open_source(str(path)), 1)[0], levels[1])
            assert 0 < cache.held_bytes <= 40_000
    finally:
        cache.resize(before)


def test_a_store_that_was_made_again_in_its_place_is_read_anew(tmp_path):
    for seed in (1, 2):
        pixels = image((1, 32, 32), seed=seed)
        save_fields(tmp_path / "a.zarr", pixels, tile_px=16)
        np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "a.zarr")))[0][..., 0], pixels[0])


def test_memory_of_the_caller_is_filled(store):
    path, levels = store
    source = open_source(str(path))
    out = np.zeros((8, 8, 3), np.uint8)
    assert source.read_block(1, 3, 2, out).pixels is out
    np.testing.assert_array_equal(out, levels[1][24:32, 16:24])
    edge = source.read_block(0, 9, 13, np.zeros((16, 16, 3), np.uint8))
    np.testing.assert_array_equal(edge.pixels, levels[0][144:, 208:])


@pytest.mark.parametrize("step", [4, 1, None])
def test_what_was_not_measured_is_not_valid_on_any_level(tmp_path, step):
    pixels, valid = image((2, 100, 90), "int16"), np.ones((100, 90), bool)
    valid[:40, :35] = valid[77, 88] = False
    levels = save_fields(tmp_path / "a.zarr", pixels, valid, tile_px=16, step=step, nodata=-5.0)
    source = open_source(str(tmp_path / "a.zarr"))
    assert source.info.validity == "mask"
    for number, (expected, seen) in enumerate(zip(levels.pixels, levels.valid, strict=True)):
        found, own, damage = whole_level(source, number)
        np.testing.assert_array_equal(own, seen)
        np.testing.assert_array_equal(found[seen], expected.transpose(1, 2, 0)[seen])
        assert not found[~seen].any()
        assert not damage


@pytest.mark.parametrize("harm", ["gone", "cut", "flipped", "another size", "another type"])
def test_a_damaged_tile_is_a_status_on_each_of_its_levels(store, harm):
    path, levels = store
    chunk = path / "0/image/c/0/3/4"
    data = chunk.read_bytes()
    if harm == "gone":
        chunk.unlink()
    elif harm == "cut":
        chunk.write_bytes(data[:-20])
    elif harm == "flipped":
        chunk.write_bytes(data[:99] + bytes([data[99] ^ 4]) + data[100:])
    else:
        header = {"s": [16, 32], "d": "uint8", "v": [1, 2, 3]}
        header |= {"s": [16, 16], "d": "uint16"} if harm == "another type" else {}
        chunk.write_bytes(pack("constant", version=1, header=header))
    source = open_source(str(path))
    for level in range(4):
        pixels, valid, damage = whole_level(source, level)
        assert set(damage) == {(3, 4)}
        assert "c/0/3/4" in damage[3, 4]
        np.testing.assert_array_equal(pixels[valid], levels[level][valid])
    assert not whole_level(source, 4)[2]
    region = open_pyramid(str(path)).read_region(Box(y=40, x=60, height=30, width=40))
    assert len(region.damage) == 1
    assert not region.valid.all()
    assert any("gone: level 0 1" in note for note in source.info.notes) is (harm == "gone")


def test_a_tile_smaller_than_its_place_is_damaged(store):
    path, _ = store
    (path / "0/image/c/0/3/4").write_bytes(
        pack("constant", version=1, header={"s": [16, 7], "d": "uint8", "v": [1] * 3})
    )
    with pytest.raises(DamagedError, match="16 x 7 px"):
        open_source(str(path)).read_block(0, 3, 4)


def test_blocks_that_are_not_there(store):
    source = open_source(str(store[0]))
    for at in ((0, 10, 0), (0, 0, 14), (5, 0, 0), (-1, 0, 0), (1, 0, -1)):
        with pytest.raises(IndexError):
            source.read_block(*at)


def test_it_pickles_small_and_reads_elsewhere(store):
    path, levels = store
    pyramid = open_pyramid(str(path))
    pyramid.read(Box(y=0, x=0, height=20, width=20))
    data = pickle.dumps(pyramid)
    assert len(data) < 20_000
    again = pickle.loads(data)
    assert again.identity == pyramid.identity
    np.testing.assert_array_equal(whole_level(again.source, 3)[0], levels[3])


def test_threads_get_the_same(store):
    path, levels = store
    source = open_source(str(path))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: whole_level(source, n % 5)[0], range(20)))
    for number, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels, levels[number % 5])


def test_xarray_opens_all_levels(store):
    path, levels = store
    with xr.open_datatree(path, engine="tilestream") as tree:
        assert len(tree.children) == 5 or len(tree.levels) == 5
        np.testing.assert_array_equal(tree["3/image"].transpose("y", "x", "c").values, levels[3])


def test_an_ordinary_store_is_made_of_it(store, tmp_path):
    path, levels = store
    ts.build_pyramid(str(path), str(tmp_path / "b.zarr"), profile="portable")
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "b.zarr")))[0], levels[0])


def test_on_object_storage(tmp_path, s3):
    levels = save_fields(tmp_path / "a.zarr", image((1, 40, 60)), tile_px=16)
    (tmp_path / "a.zarr/0/image/c/0/1/1").write_bytes(b"no tile")
    pyramid = open_pyramid(s3.upload(tmp_path / "a.zarr"), options=s3.options, cache_bytes=0)
    s3.log.clear()
    region = pyramid.read_region(Box(level=1, y=0, x=0, height=20, width=30))
    tiles = [request.path for request in s3.log.seen("GET") if "/0/image/c/" in request.path]
    assert len(tiles) == len(set(tiles)) + 1 == 13  # the damaged one is asked for again by who reads it
    assert len(region.damage) == 1
    expected = levels.pixels[1][:, region.valid]
    np.testing.assert_array_equal(region.pixels[:, region.valid], expected)
    s3.log.clear()
    pyramid.read_region(Box(y=0, x=16, height=16, width=44))
    assert not [request for request in s3.log.seen("GET") if "/0/image/c/" in request.path]


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"format": 2, "version": "9.1"}, "format 2 of tilestream's stores, written by tilestream 9.1"),
        ({"codec": "wavelet"}, "tiles of the codec `wavelet`.*expected one of .*hash"),
        ({"codec": None}, "codec `None`"),
        ({"levels": 9}, "9 levels in 2 arrays"),
        ({"levels": "5"}, "levels 5"),
        ({"level_step": 0}, "level_step 0"),
        ({"level_step": 1 << 40}, "level_step 1099511627776"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(store, own, named):
    path, _ = store
    edit(path, **own)
    with pytest.raises(SourceError, match=named):
        open_source(str(path))


def test_a_mask_of_other_levels_is_refused(tmp_path):
    valid = np.ones((40, 40), bool)
    valid[3, 3] = False
    save_fields(tmp_path / "a.zarr", image((1, 40, 40)), valid, tile_px=16)
    document = tmp_path / "a.zarr/labels/valid/1/image/zarr.json"
    content = json.loads(document.read_bytes())
    content["shape"] = [30, 20]
    document.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="a mask of levels"):
        open_source(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize(
    ("tile", "named"),
    [
        (pack("wavelet", version=1), "got the codec `wavelet`.*Install the package that wrote it"),
        (pack("os:system", version=1), "got the codec `os:system`"),
        (pack(NAME, version=9), "version 9"),
    ],
)
def test_a_tile_that_is_not_known_here_costs_no_others(store, tile, named):
    path, levels = store
    (path / "0/image/c/0/3/4").write_bytes(tile)
    pixels, valid, damage = whole_level(open_source(str(path)), 1)
    assert set(damage) == {(3, 4)}
    assert re.search(named, damage[3, 4])
    np.testing.assert_array_equal(pixels[valid], levels[1][valid])


def test_a_user_says_where_it_is_decoded(store):
    path, _ = store
    plain, on_device = open_source(str(path)), open_source(f"{path}#decode=cuda")
    plain.read_block(1, 2, 3)
    pickle.loads(pickle.dumps(on_device)).read_block(1, 2, 3)
    assert ExactField.backends == ((None, 1), ("cuda", 1))
    assert on_device.info.derived == ("decoded by cuda",)
    assert on_device.info.fingerprint != plain.info.fingerprint


@pytest.mark.parametrize("backend", ["cpu", "cuda", "tpu"])
def test_what_is_not_computed_is_not_decoded_elsewhere(tmp_path, backend):
    zarr.create_array(tmp_path / "a.zarr", data=image(), chunks=(3, 64, 64), dimension_names=["c", "y", "x"])
    with pytest.raises(ConfigError, match="a store of fields" if backend != "tpu" else "one of cpu, cuda"):
        open_source(f"{tmp_path}/a.zarr#decode={backend}")


def test_info_says_codec_bits_psnr_by_level_and_how_large_a_network_is(store):
    path, _ = store
    quality = {
        "bpp": 1.25,
        "bytes": 4992,
        "psnr": [30.125, 31.5, None, 33.0, 40.25],
        "arrays": {"0": 4000},
        "exact": [2],
    }
    edit(path, quality=quality)
    done = CliRunner().invoke(app, ["info", str(path), "--json"])
    assert done.exit_code == 0, done.output
    coded = json.loads(done.stdout)["coded"]
    assert coded["codec"] == NAME
    assert coded["settings"]["quality"] == 50
    assert {name: coded[name] for name in quality} == quality
    assert (coded["tile_px"], coded["parameters"]) == (16, {"table": 3 * (256 + 64 + 16 + 4)})
    assert coded["tile_bytes"] > 0
    text = CliRunner().invoke(app, ["info", str(path)]).stdout
    assert "exact, levels 4, quality 50, steps 2000, tiles of 16 px" in text
    assert "1.25 bits per pixel, 4,992 bytes" in text
    assert "table 1,020 parameters in" in text
    table = [line.split() for line in text.splitlines() if line.startswith(" " * 4)]
    assert [row[-1] for row in table] == ["30.12", "31.50", "exact", "33.00", "40.25"]


def test_info_of_a_record_that_says_nonsense_still_tells_the_image(store):
    path, _ = store
    edit(path, quality={"bpp": "much", "psnr": "good"}, settings=[3])
    coded = json.loads(CliRunner().invoke(app, ["info", str(path), "--json"]).stdout)["coded"]
    assert (coded["bpp"], coded["psnr"], coded["settings"]) == (None, [], {})
    assert CliRunner().invoke(app, ["info", str(path)]).exit_code == 0


def test_info_of_other_images_has_no_coding(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=image(), chunks=(3, 64, 64), dimension_names=["c", "y", "x"])
    assert json.loads(CliRunner().invoke(app, ["info", str(tmp_path / "a.zarr"), "--json"]).stdout)["coded"] is None


def test_with_every_level_an_array_any_client_sees_them_and_ours_reads_the_same(tmp_path):
    pixels = image()
    pixels[:, :32, :32] = 255
    levels = save_fields(tmp_path / "a.zarr", pixels, tile_px=16, step=1)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    pyramid = open_pyramid(str(tmp_path / "a.zarr"))
    assert len(pyramid.levels) == len(levels.pixels) == 5
    assert isinstance(pyramid.source, FieldSource)
    for number, expected in enumerate(levels.pixels):
        np.testing.assert_array_equal(root[f"{number}/image"][...], expected)
        np.testing.assert_array_equal(pyramid.read(pyramid.levels[number].box), expected)
    (tmp_path / "a.zarr/1/image/c/0/1/1").write_bytes(b"no tile")
    forget_fields()
    damaged = [number for number in range(5) if whole_level(pyramid.source, number)[2]]
    assert damaged == [1]


def test_one_array_gives_all_levels_to_us_and_level_0_to_others(tmp_path):
    levels = save_fields(tmp_path / "a.zarr", image((1, 500, 37)), tile_px=64, step=None)
    assert list(zarr.open_group(tmp_path / "a.zarr", mode="r")) == ["0"]
    source = open_source(str(tmp_path / "a.zarr"))
    assert [level.block.y for level in source.info.levels] == [64, 32, 16, 8]
    for number, expected in enumerate(levels.pixels):
        np.testing.assert_array_equal(whole_level(source, number)[0], expected.transpose(1, 2, 0))


def test_an_array_of_tiles_without_our_record_is_an_ordinary_zarr(tmp_path):
    pixels = image((3, 40, 40))
    serializer = {"name": "tilestream.neural", "configuration": {"codec": NAME}}
    zarr.create_array(
        tmp_path / "a.zarr", data=pixels, chunks=(3, 16, 16), serializer=serializer, compressors=None, filters=None,
        dimension_names=["c", "y", "x"],
    )  # fmt: skip
    source = open_source(str(tmp_path / "a.zarr"))
    assert isinstance(source, ZarrSource)
    assert source.layouts[0] is not None
    np.testing.assert_array_equal(whole_level(source)[0].transpose(2, 0, 1), pixels)
