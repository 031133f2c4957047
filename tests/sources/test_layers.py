"""Class layers, classes that are not valid, and decibels: what they do to pixels, validity and identity."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from tests.sources.assembled import whole_level
from tests.sources.madescene import noise, save_band, save_landsat
from tests.sources.test_stac import band, save_item
from tilestream.errors import ConfigError, DamagedError
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.classes import KNOWN, class_rule, parse_invalid
from tilestream.sources.opening import open_source
from tilestream.types import Box, ClassBand


@pytest.fixture
def scene(tmp_path):
    """Red at 10 m and SCL at 20 m, and the path."""
    path = save_item(tmp_path / "s", {"red": band("red"), "nir": band("nir"), "scl": {"href": "./scl.tif"}})
    scl = noise(30, 9, "uint8", 12)
    save_band(tmp_path / "s" / "scl.tif", scl, step=20.0)
    return path, np.kron(scl, np.ones((2, 2), np.uint8))


@pytest.mark.parametrize("classes", [(3, 8), ("cloud_shadow", 8), ("8", "3")])
def test_pixels_of_the_classes_are_not_valid(scene, classes):
    path, scl = scene
    pyramid = open_pyramid(path).choose(invalid={"SCL": classes})
    region = pyramid.read_region(pyramid.levels[0].box)
    np.testing.assert_array_equal(region.valid, ~np.isin(scl, (3, 8)))
    assert not region.pixels[:, ~region.valid].any()
    np.testing.assert_array_equal(region.pixels[0][region.valid], noise(60, 0)[region.valid])
    assert pyramid.info.derived == ("invalid SCL=3,8",)
    assert pyramid.fingerprint == open_source(f"{path}#invalid=scl=3,8").info.fingerprint


def test_the_choice_is_another_image_for_caches_and_recipes(scene):
    path, scl = scene
    pyramid = open_pyramid(path)
    one = pyramid.choose(invalid={"SCL": (3,)})
    assert len({p.fingerprint for p in (pyramid, one, pyramid.choose(invalid={"SCL": (8,)}))}) == 3
    for chosen, wrong in ((pyramid, ()), (one, (3,)), (pyramid, ())):  # through one cache
        np.testing.assert_array_equal(chosen.read_region(chosen.levels[0].box).valid, ~np.isin(scl, wrong))
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint


def test_fewer_bands_and_classes_together(scene):
    path, scl = scene
    pyramid = open_pyramid(path).choose(bands=["nir"], invalid={"SCL": (5,)})
    region = pyramid.read_region(Box(level=0, y=7, x=5, height=40, width=31))
    window = np.s_[7:47, 5:36]
    np.testing.assert_array_equal(region.valid, scl[window] != 5)
    np.testing.assert_array_equal(region.pixels[0][region.valid], noise(60, 1)[window][region.valid])


def test_a_band_that_is_not_chosen_is_not_read(tmp_path):
    path = save_item(tmp_path / "s", {"red": band("red"), "nir": band("nir")})
    pixels = noise(60, 0)
    pixels[0, 0] = 0
    save_band(tmp_path / "s" / "nir.tif", pixels)
    pyramid = open_pyramid(path)
    (tmp_path / "s" / "nir.tif").write_bytes(b"gone")
    region = pyramid.choose(bands=["red"]).read_region(pyramid.levels[0].box)
    assert region.valid.all()
    assert not region.damage


def test_a_layer_that_is_damaged_makes_the_pixels_unknown(scene, tmp_path):
    path, _ = scene
    source = open_source(f"{path}#invalid=SCL=3")
    data = bytearray((tmp_path / "s" / "scl.tif").read_bytes())
    data[8:] = bytes(len(data) - 8)
    (tmp_path / "s" / "scl.tif").write_bytes(data)
    with pytest.raises(DamagedError, match="class layer SCL"):
        source.read_block(0, 0, 0)


def test_a_level_that_the_layer_lacks_is_made_by_mode(tmp_path):
    path = save_item(tmp_path / "s", {"red": band("red"), "scl": {"href": "./scl.tif"}})
    fine = np.kron(noise(20, 1, "uint8", 9), np.ones((6, 6), np.uint8))
    fine[::6, ::6] = 11  # one pixel in 36: the mode does not see it
    save_band(tmp_path / "s" / "scl.tif", fine, step=5.0)
    layer = open_pyramid(path).classes("SCL")
    expected = fine.reshape(60, 2, 60, 2)
    expected = np.where((expected[:, 1, :, 1] == expected[:, 1, :, 0]), expected[:, 1, :, 1], 255)
    np.testing.assert_array_equal(layer.read(layer.levels[0].box)[0], expected)


@pytest.mark.parametrize(
    ("classes", "wanted"),
    [
        (["bit3"], [22280]),
        (["cloud"], [22280]),
        (["bit3", "bit6"], [22280, 21824]),
        (["bits8-9:3"], [22280]),
        (["cloud_confidence:1"], [21824]),
        ([1, "clear"], [1, 21824]),
        (["fill"], [1]),
    ],
)
def test_bit_fields(tmp_path, classes, wanted):
    path, pixels = save_landsat(tmp_path / "s", {"4": "SR_B4"})
    found = whole_level(open_pyramid(path).choose(invalid={"QA_PIXEL": classes}).source)[1]
    np.testing.assert_array_equal(found, ~np.isin(pixels["QA"], wanted))


@pytest.mark.parametrize(
    ("band", "word", "message"),
    [
        ("scl", "12", r"`12`, expected one of 0 \(no_data\)"),
        ("scl", "300", "`300`"),
        ("scl", "clouds", "`clouds`, expected one of 0"),
        ("qa_pixel", "cloud_confidence", "cloud_confidence:0…3"),
        ("qa_pixel", "cloud_confidence:4", "bits 0 to 15"),
        ("qa_pixel", "bit16", "bits 0 to 15"),
        ("qa_pixel", "bits9-8:1", "`bits9-8:1`"),
        ("qa_pixel", "70000", "0 to 65535"),
        ("qa_pixel", "", "``"),
    ],
)
def test_a_class_that_does_not_exist(band, word, message):
    dtype = np.dtype(np.uint8 if band == "scl" else np.uint16)
    with pytest.raises(ConfigError, match=message):
        class_rule(KNOWN[band], [word], dtype)


def test_a_rule_has_one_spelling():
    texts = [["9", "bit3", "8"], ["8", "8", "a", 9]]
    plain = ClassBand(name="x", bits={"a": (3, 1)})
    assert {class_rule(plain, words, np.dtype(np.uint8)).text for words in texts} == {"x=8,9,bit3"}


def test_no_such_layer(scene):
    path, _ = scene
    for choose in (lambda p: p.classes("QA"), lambda p: p.choose(invalid={"QA": (1,)})):
        with pytest.raises(ConfigError, match=r"class layer `QA`.*one of SCL"):
            choose(open_pyramid(path))
    with pytest.raises(ConfigError, match="no layer: the image has none"):
        open_pyramid(np.zeros((8, 8), np.uint8)).choose(invalid={"SCL": (1,)})


@pytest.mark.parametrize("text", ["SCL", "=3", "SCL=", "SCL=3,,4", ""])
def test_an_option_that_is_not_understood(text):
    with pytest.raises(ConfigError, match="a layer and its classes"):
        parse_invalid([text])


def test_options_for_one_layer_add_up():
    assert parse_invalid(["SCL=3, 8", "QA=bit1", "SCL=9"]) == {"SCL": ("3", "8", "9"), "QA": ("bit1",)}


@pytest.mark.parametrize(("quantity", "factor"), [("power", 10), ("amplitude", 20)])
def test_decibels(quantity, factor):
    pixels = np.array([[[1.0, 10.0, 0.0], [0.5, -1.0, np.nan], [100.0, 1e-8, np.inf]]], np.float32)
    pyramid = open_pyramid(pixels[0]).choose(decibels=quantity)
    region = pyramid.read_region(pyramid.levels[0].box)
    valid = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
    np.testing.assert_array_equal(region.valid, valid)
    with np.errstate(all="ignore"):
        expected = np.where(valid, factor * np.log10(pixels[0].astype(np.float64)), 0)
    np.testing.assert_allclose(region.pixels[0], expected, rtol=1e-6)
    assert (pyramid.dtype, pyramid.info.derived) == (np.float32, (f"decibels of {quantity}",))


def test_decibels_are_those_of_the_physical_value_and_zeros_are_nodata(tmp_path):
    raster = {"scale": 0.01, "offset": 1, "nodata": 0}
    path = save_item(tmp_path / "s", {"vv": band("vv", raster=raster)})
    pixels = noise(60, 0)
    pixels[1, 2] = 0
    save_band(tmp_path / "s" / "vv.tif", pixels, nodata=None)
    source = open_source(f"{path}#db=power")
    found, valid, _ = whole_level(source)
    expected = 10 * np.log10(pixels * 0.01 + 1)
    np.testing.assert_allclose(found[valid, 0], expected[pixels != 0], rtol=1e-6)
    assert not valid[1, 2]
    assert (source.info.channels[0].scale, source.info.channels[0].offset, source.info.nodata) == (1.0, 0.0, None)


def test_decibels_that_make_no_sense(scene):
    path, _ = scene
    for url, message in ((f"{path}#db=dB", "power or amplitude"), (f"{path}#classes=SCL&db=power", "class numbers")):
        with pytest.raises(ConfigError, match=message):
            open_source(url)
    with pytest.raises(ConfigError, match="in decibels already"):
        open_pyramid(f"{path}#db=power").choose(decibels="power")


def test_the_scene_of_the_collection(shared_data):
    path = shared_data / "satellite" / "S2A_29RKH_20200219_0_L2A"
    pyramid = open_pyramid(path)
    assert [channel.name for channel in pyramid.channels] == ["coastal", "blue", "green", "red", "nir", "swir16"]
    assert pyramid.info.datetime == "2020-02-19T11:34:25.405000Z"
    assert json.dumps(sorted(pyramid.info.absent)) == json.dumps(
        ["nir08", "nir09", "rededge1", "rededge2", "rededge3", "swir22"]
    )
    layer = pyramid.classes("SCL")
    assert [level.shape for level in layer.levels] == [level.shape for level in pyramid.levels]
    chosen = pyramid.choose(invalid={"SCL": (3, 8, 9, 10)})
    for level in pyramid.levels:
        clear = ~np.isin(layer.read(level.box)[0], (3, 8, 9, 10))
        plain = pyramid.read_region(level.box).valid
        np.testing.assert_array_equal(chosen.read_region(level.box).valid, plain & clear)
    share = 1 - clear.mean()
    assert 0.03 < share < 0.05  # the item says 4.05 % clouds
