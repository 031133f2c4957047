"""STAC items made by code: factors that two catalogues state wrongly or not at all, links, class assets, dates."""

from __future__ import annotations

import json

import fsspec
import numpy as np
import pytest

from tests.servers import sent_bytes
from tests.sources.assembled import whole_level
from tests.sources.madescene import STEM_L8, noise, save_band, save_jp2, save_landsat, save_safe
from tilestream.errors import ConfigError, SourceError
from tilestream.metrics import collect
from tilestream.pipelines.check import run_check
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.opening import open_source
from tilestream.types import Box

S2 = {"constellation": "sentinel-2", "datetime": "2022-06-01T11:21:11Z"}
L2 = {"platform": "landsat-8", "landsat:correction": "L2SP", "landsat:collection_number": "02"}


def band(name, *, common=None, raster=None, href=None, **more):
    asset = {"href": href or f"./{name}.tif", "type": "image/tiff", **more}
    asset["eo:bands"] = [{"name": name, "common_name": common or name}]
    return asset | ({} if raster is None else {"raster:bands": [raster]})


def save_item(folder, assets, properties=None, *, files=None):
    folder.mkdir(exist_ok=True)
    for seed, key in enumerate(assets if files is None else files):
        save_band(folder / f"{key}.tif", noise(60, seed), nodata=None)
    item = {"type": "Feature", "stac_version": "1.0.0", "properties": properties or {}, "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    return str(folder)


@pytest.mark.parametrize(
    ("properties", "raster", "expected"),
    [
        ({"s2:processing_baseline": "02.14"}, None, (1e-4, 0.0)),
        ({"s2:processing_baseline": "04.00"}, None, (1e-4, -0.1)),
        ({"s2:product_uri": "S2A_MSIL2A_20220601T112121_N0400_R037_T29RKH.SAFE"}, None, (1e-4, -0.1)),
        ({"s2:processing_baseline": "05.09"}, {"scale": 1e-4, "offset": -0.1}, (1e-4, -0.1)),
        # what the pixels hold goes before what raster:bands says of them
        (
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True},
            {"scale": 1e-4, "offset": -0.1},
            (1e-4, 0.0),
        ),
        (
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False},
            {"scale": 1e-4, "offset": -0.1},
            (1e-4, -0.1),
        ),
        (
            {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False},
            {"scale": 1e-4, "offset": 0},
            (1e-4, -0.1),
        ),
        (
            {"s2:processing_baseline": "02.14", "earthsearch:boa_offset_applied": False},
            {"scale": 1e-4, "offset": 0},
            (1e-4, 0.0),
        ),
        ({}, None, (1.0, 0.0)),
    ],
)
def test_the_offset_of_sentinel_2(tmp_path, properties, raster, expected):
    info = open_source(save_item(tmp_path / "s", {"red": band("red", raster=raster)}, S2 | properties)).info
    assert (info.channels[0].scale, info.channels[0].offset) == expected
    assert (info.nodata, info.datetime) == (0.0, "2022-06-01T11:21:11Z")


def test_landsat_items_without_factors(tmp_path):
    assets = {"red": band("red"), "lwir11": band("lwir11")}
    info = open_source(save_item(tmp_path / "s", assets, L2)).info
    assert [(c.scale, c.offset) for c in info.channels] == [(2.75e-05, -0.2), (0.00341802, 149.0)]


def test_the_item_itself_stands_for_its_scene_and_its_form_1_1_is_read(tmp_path):
    asset = {"href": "./red.tif", "bands": [{"name": "red", "eo:common_name": "red"}], "raster:scale": 0.5, "nodata": 7}
    path = save_item(tmp_path / "s", {"red": asset})
    source = open_source(f"{path}/item.json")
    assert (source.info.channels[0].scale, source.info.validity) == (0.5, "mask")
    pixels = noise(60, 0)
    np.testing.assert_array_equal(whole_level(source)[1], pixels != 7)


def test_names_do_not_depend_on_what_was_downloaded(tmp_path):
    assets = {f"rededge{n}": band(f"rededge{n}", common="rededge") for n in (1, 2, 3)}
    info = open_source(save_item(tmp_path / "s", assets, files=["rededge2"])).info
    assert [channel.name for channel in info.channels] == ["rededge2"]
    assert set(info.absent) == {"rededge1", "rededge3"}


def test_one_band_in_two_formats_is_not_missing(tmp_path):
    assets = {"red": band("red"), "red-jp2": band("red", href="https://somewhere/red.jp2")}
    info = open_source(save_item(tmp_path / "s", assets, files=["red"])).info
    assert ([channel.name for channel in info.channels], dict(info.absent)) == (["red"], {})


def test_a_band_in_several_resolutions_is_the_finest(tmp_path):
    assets = {
        f"B02_{metres}m": band("B02", common="blue", href=f"./B02_{metres}m.tif", gsd=metres) for metres in (60, 10, 20)
    }
    info = open_source(save_item(tmp_path / "s", assets)).info
    assert [channel.name for channel in info.channels] == ["blue"]
    assert any(note == "neither bands nor class layers: B02_60m, B02_20m" for note in info.notes)
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "s")))[0][..., 0], noise(60, 1))


def test_bands_that_tools_call_b1_are_different_ones(tmp_path):
    assets = {key: {"href": f"./{key}.tif", "eo:bands": [{"name": "b1"}]} for key in ("dem", "slope", "gone")}
    info = open_source(save_item(tmp_path / "s", assets, files=["dem", "slope"])).info
    assert ([channel.name for channel in info.channels], set(info.absent)) == (["dem", "slope"], {"gone"})


def test_items_of_radar_images(tmp_path):
    assets = {word: {"href": f"./{word}.tif", "roles": ["data"]} for word in ("vv", "vh")}
    info = open_source(save_item(tmp_path / "s", assets | {"angle": {"href": "./angle.tif"}})).info
    assert [channel.name for channel in info.channels] == ["vv", "vh"]


def test_an_item_that_says_nothing_spectral(tmp_path):
    assets = {"elevation": {"href": "./elevation.tif", "bands": [{"name": "elevation"}]}}
    assert [channel.name for channel in open_source(save_item(tmp_path / "s", assets)).info.channels] == ["elevation"]


def test_classes_of_the_item_go_before_those_that_are_known(tmp_path):
    fields = [{"name": "haze", "offset": 0, "length": 1}, {"name": "certainty", "offset": 1, "length": 2}]
    classes = [{"value": 0, "name": "land"}, {"value": 1, "name": "sea"}]
    assets = {
        "red": band("red"),
        "quality": {"href": "./quality.tif", "classification:bitfields": fields},
        "kind": {"href": "./kind.tif", "raster:bands": [{"classification:classes": classes}]},
    }
    bands = {band.name: band for band in open_source(save_item(tmp_path / "s", assets)).info.classes}
    assert bands["quality"].bits == {"haze": (0, 1), "certainty": (1, 2)}
    assert bands["kind"].values == {0: "land", 1: "sea"}


@pytest.mark.parametrize("raster", [{"scale": 0}, {"scale": "nan"}, {"offset": 1e999}, {"scale": "a"}])
def test_factors_that_are_no_numbers(tmp_path, raster):
    with pytest.raises(SourceError, match="break the format"):
        open_source(save_item(tmp_path / "s", {"red": band("red", raster=raster)}))


@pytest.mark.parametrize("files", [["red", "scl"], ["red"]])
def test_a_layer_that_cannot_be_had_does_not_stop_the_scene(tmp_path, files):
    path = save_item(tmp_path / "s", {"red": band("red"), "scl": {"href": "./scl.tif"}}, files=files)
    (tmp_path / "s" / "scl.tif").write_bytes(b"no tiff") if "scl" in files else None
    pyramid = open_pyramid(path)
    assert not pyramid.info.classes
    with pytest.raises(ConfigError, match="SCL.*does not open" if "scl" in files else "whose file is not there"):
        pyramid.classes("SCL")


def test_bands_in_different_coordinate_systems(tmp_path):
    path = save_item(tmp_path / "s", {"red": band("red"), "nir": band("nir")})
    save_band(tmp_path / "s" / "nir.tif", noise(60, 5), code=32630)
    with pytest.raises(SourceError, match="red in EPSG:32629, nir in EPSG:32630"):
        open_source(path)


def test_an_item_without_copies_opens_what_its_links_point_to(tmp_path, http_server):
    save_band(http_server.root / "red.tif", noise(60, 1), nodata=None)
    assets = {
        "red": band("red", href=f"{http_server.url}/red.tif"),
        "thumbnail": {"href": "./t.png", "roles": ["thumbnail"]},
    }
    path = save_item(tmp_path / "here", assets, files=[])
    (tmp_path / "here" / "t.png").write_bytes(b"")
    np.testing.assert_array_equal(whole_level(open_source(f"{path}/item.json"))[0][..., 0], noise(60, 1))


def test_a_remote_item_with_relative_links(http_server):
    save_item(http_server.root / "s", {"red": band("red"), "nir": band("nir")}, files=["red"])
    info = open_source(f"{http_server.url}/s/item.json").info
    assert ([channel.name for channel in info.channels], set(info.absent)) == (["red"], {"nir"})


def test_nothing_is_fetched_where_copies_lie_beside_the_item(tmp_path):
    assets = {"red": band("red"), "nir": band("nir", href="http://127.0.0.1:9/nir.tif")}
    info = open_source(save_item(tmp_path / "s", assets, files=["red"])).info
    assert set(info.absent) == {"nir"}


def test_a_file_of_several_bands_is_named(tmp_path):
    asset = band("visual")
    asset["eo:bands"] *= 3
    with pytest.raises(SourceError, match=r"of several bands: visual.*open the file of several bands itself"):
        open_source(save_item(tmp_path / "s", {"visual": asset}))


@pytest.mark.parametrize("name", ["item.json", f"{STEM_L8}_MTL.txt", f"{STEM_L8}_MTL.xml"])
def test_scenes_over_http_by_their_metadata(http_server, name):
    if name == "item.json":
        save_item(
            http_server.root / "s", {"red": band("red"), "SCL": {"href": "./SCL.tif"}}, {"datetime": "2020-12-04"}
        )
    else:
        save_landsat(http_server.root / "s", {"4": "SR_B4"}, form=name[-3:])
    found, here = (open_source(f"{place}/s/{name}") for place in (http_server.url, http_server.root))
    assert found.info == here.info
    layer = found.info.classes[0].name
    np.testing.assert_array_equal(whole_level(found)[0], whole_level(here)[0])
    np.testing.assert_array_equal(whole_level(found.class_layer(layer))[0], whole_level(here.class_layer(layer))[0])


def test_a_safe_on_object_storage(tmp_path, s3, s3_environment):
    path, _ = save_safe(tmp_path / "a.SAFE", {"B02": 10, "B05": 20, "SCL": 20})
    fsspec.filesystem("s3", **s3.options).put(path, f"{s3.bucket}/a.SAFE", recursive=True)
    found = open_source(f"{s3.url}/a.SAFE")
    assert found.info == open_source(path).info
    np.testing.assert_array_equal(whole_level(found)[0], whole_level(open_source(path))[0])


@pytest.mark.parametrize("address", ["", "#invalid=SCL=3", "#db=power"])
def test_tiles_of_a_remote_scene_are_asked_for_together(http_server, address):
    path = http_server.root / "s"
    save_item(path, {"red": band("red"), "nir": band("nir"), "scl": {"href": "./scl.tif"}})
    for seed, name in enumerate(("red", "nir")):
        save_band(path / f"{name}.tif", noise(480, seed), compression=None)
    save_band(path / "scl.tif", noise(240, 5, "uint8", 12), step=20.0, compression=None)
    with collect() as meter:
        pyramid = open_pyramid(f"{http_server.url}/s/item.json{address}")
        opening = sent_bytes(http_server)
        http_server.log.clear()
        found = pyramid.read_region(Box(level=0, y=40, x=33, height=400, width=410))
    assert len(http_server.log.seen("GET")) <= 3 * 3  # not one for each of some 400 tiles
    assert meter.counts["bytes_read"] == (opening + sent_bytes(http_server)).total()
    here = open_pyramid(f"{path}/item.json{address}").read_region(Box(level=0, y=40, x=33, height=400, width=410))
    np.testing.assert_array_equal(found.pixels, here.pixels)
    np.testing.assert_array_equal(found.valid, here.valid)


def test_tiles_of_a_remote_jpeg_2000_are_asked_for_together(http_server):
    save_jp2(
        http_server.root / "a.jp2", noise(512, 1), TLM="YES"
    )  # says where tiles lie: nobody steps through the file
    pyramid = open_pyramid(f"{http_server.url}/a.jp2")
    found = pyramid.read(Box(level=0, y=10, x=70, height=400, width=300))
    assert len(http_server.log.seen("GET")) < 10
    assert pyramid.levels[0].block.yx == (64, 64)
    np.testing.assert_array_equal(found[0], noise(512, 1)[10:410, 70:370])


def test_the_forecast_of_metadata_is_that_of_its_bands(tmp_path):
    path = save_item(tmp_path / "s", {"red": band("red"), "nir": band("nir")})
    sizes = [sum((tmp_path / "s" / f"{name}.tif").stat().st_size for name in ("red", "nir"))]
    cohort = read_cohort([f"{path}/item.json", path])
    rows = run_check(cohort, EmbedConfig(out=tmp_path / "out", where="all", tile_px=32)).rows
    sizes.append(sum(file.stat().st_size for file in (tmp_path / "s").iterdir()))
    assert [row.forecast.read_bytes for row in rows] == sizes
