"""Landsat folders made by code: each form of the MTL, each level and collection, what is missing, what is broken."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sources.assembled import whole_level
from tests.sources.madescene import STEM_L8, landsat_groups, save_band, save_landsat, save_mtl
from tilestream.errors import ConfigError, SourceError
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.opening import open_source

BANDS = {"2": "SR_B2", "4": "SR_B4", "ST_B10": "ST_B10"}


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
def test_level_2_in_each_form(tmp_path, form):
    path, pixels = save_landsat(tmp_path / "s", BANDS, form=form)
    source = open_source(path)
    info = source.info
    assert info.format == "landsat-c2-l2sp"
    assert [(c.name, c.scale, c.offset) for c in info.channels] == [
        ("blue", 2.75e-05, -0.2),
        ("red", 2.75e-05, -0.2),
        ("lwir11", 0.00341802, 149.0),
    ]
    assert info.datetime == "2020-12-04T18:55:16.123456Z"
    assert (info.crs, info.nodata, info.validity) == ("EPSG:32629", 0.0, "nodata")
    assert [band.name for band in info.classes] == ["QA_PIXEL"]
    found, _, _ = whole_level(source)
    for index, number in enumerate(BANDS):
        np.testing.assert_array_equal(found[..., index], pixels[number])


def test_a_pixel_of_0_is_fill_whatever_the_file_says(tmp_path):
    path, pixels = save_landsat(tmp_path / "s", BANDS)
    pixels["4"][3, 5] = 0
    save_band(tmp_path / "s" / f"{STEM_L8}_SR_B4.TIF", pixels["4"], step=30.0, nodata=None)
    _, valid, _ = whole_level(open_source(path))
    assert not valid[3, 5]
    assert valid.sum() == valid.size - 1


def test_level_1_reflectance_is_that_of_the_mtl_and_says_so(tmp_path):
    path, _ = save_landsat(tmp_path / "s", {"4": "B4", "10": "B10"}, level="L1TP")
    info = open_source(path).info
    assert [(c.name, c.scale, c.offset) for c in info.channels] == [("red", 2e-5, -0.1), ("lwir11", 3.342e-4, 0.1)]
    assert any("sun's elevation (18.80722985 degrees)" in note for note in info.notes)
    assert any("radiances" in note for note in info.notes)


def test_collection_1(tmp_path):
    stem = "LC08_L1TP_047027_20201204_20201210_01_T1"
    path, pixels = save_landsat(tmp_path / "s", {"4": "B4"}, level="L1TP", collection=1, stem=stem)
    pyramid = open_pyramid(path)
    assert (pyramid.info.format, pyramid.channels[0].scale) == ("landsat-c1-l1tp", 2e-5)
    np.testing.assert_array_equal(pyramid.classes("BQA").read(pyramid.levels[0].box)[0], pixels["QA"])


def test_the_panchromatic_band_does_not_lie_on_the_grid_of_the_others(tmp_path):
    """It is finer and begins half of its pixel off: alone on its grid, it must not push out all others."""
    path, _ = save_landsat(tmp_path / "s", {"3": "B3", "4": "B4", "8": "B8"}, level="L1TP")
    pyramid = open_pyramid(path)
    assert [channel.name for channel in pyramid.channels] == ["green", "red"]
    assert pyramid.affine == (30.0, 0.0, 500000.0, 0.0, -30.0, 4000000.0)
    assert any("pan (a band whose grid" in note and f"open `{STEM_L8}_B8.TIF`" in note for note in pyramid.info.notes)
    with pytest.raises(ConfigError, match="pan, a band whose grid"):
        pyramid.choose(bands=["pan"])


def test_a_missing_band_is_named_and_refused_when_asked_for(tmp_path):
    path, _ = save_landsat(tmp_path / "s", BANDS)
    (tmp_path / "s" / f"{STEM_L8}_SR_B4.TIF").unlink()
    (tmp_path / "s" / f"{STEM_L8}_QA_PIXEL.TIF").unlink()
    pyramid = open_pyramid(path)
    assert [channel.name for channel in pyramid.channels] == ["blue", "lwir11"]
    assert any(
        note.startswith("left out: red, QA_PIXEL (a band that the metadata names") for note in pyramid.info.notes
    )
    with pytest.raises(
        ConfigError, match=r"`bands`: got red, a band that the metadata names.*names among blue, lwir11"
    ):
        pyramid.choose(bands=["red"])
    with pytest.raises(ConfigError, match="whose file is not there"):
        pyramid.choose(invalid={"QA_PIXEL": ["cloud"]})


@pytest.mark.parametrize(
    ("group", "line"),
    [
        ("PRODUCT_CONTENTS", "PROCESSING_LEVEL"),
        ("IMAGE_ATTRIBUTES", "SENSOR_ID"),
        ("IMAGE_ATTRIBUTES", "SPACECRAFT_ID"),
        ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "REFLECTANCE_MULT_BAND_4"),
        ("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", "REFLECTANCE_ADD_BAND_4"),
        ("LEVEL2_SURFACE_TEMPERATURE_PARAMETERS", "TEMPERATURE_ADD_BAND_ST_B10"),
    ],
)
def test_a_needed_line_is_missing(tmp_path, group, line):
    path, _ = save_landsat(tmp_path / "s", BANDS)
    groups = landsat_groups(STEM_L8, BANDS)
    del groups[group][line]
    save_mtl(tmp_path / "s" / f"{STEM_L8}_MTL.txt", groups)
    with pytest.raises(SourceError, match=f"no line {line}"):
        open_source(path)


def test_level_1_factors_do_not_stand_in_for_those_of_level_2(tmp_path):
    """Both are in one file, under the same names in other groups."""
    path, _ = save_landsat(tmp_path / "s", BANDS)
    groups = landsat_groups(STEM_L8, BANDS)
    del groups["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"]
    save_mtl(tmp_path / "s" / f"{STEM_L8}_MTL.txt", groups)
    with pytest.raises(SourceError, match=r"no line .*REFLECTANCE_MULT_BAND_2"):
        open_source(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "breaks off"),
        ("GROUP = A\n  X = 1\n", "breaks off inside group A"),
        ("GROUP = A\nEND_GROUP = B\nEND\n", "closes group B"),
        ("GROUP = A\nnonsense\nEND_GROUP = A\nEND\n", "line 2 `nonsense`"),
        ("END\n", "no group"),
        ("GROUP = A\nSPACECRAFT_ID = X\nEND_GROUP = A\nEND\n", "no line PROCESSING_LEVEL"),
    ],
)
def test_a_broken_text(tmp_path, text, message):
    (tmp_path / "X_MTL.txt").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 5}', '{"a": {}, "b": {}}', "[" * 100_000])
def test_broken_json(tmp_path, text):
    (tmp_path / "X_MTL.json").write_text(text)
    with pytest.raises(SourceError, match=r"JSON|no group"):
        open_source(str(tmp_path))


def test_an_unknown_sensor_is_named(tmp_path):
    path, _ = save_landsat(tmp_path / "s", BANDS)
    groups = landsat_groups(STEM_L8, BANDS)
    groups["IMAGE_ATTRIBUTES"]["SENSOR_ID"] = "HAL"
    save_mtl(tmp_path / "s" / f"{STEM_L8}_MTL.txt", groups)
    with pytest.raises(SourceError, match="SENSOR_ID HAL"):
        open_source(path)


def test_the_metadata_file_stands_for_its_scene(tmp_path):
    path, _ = save_landsat(tmp_path / "s", BANDS)
    assert open_source(f"{path}/{STEM_L8}_MTL.txt").info == open_source(path).info
