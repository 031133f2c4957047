"""Sentinel-2 products made by code: offsets and baselines, resolutions, what is missing, what contradicts itself."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from tests.sources.assembled import whole_level
from tests.sources.madescene import GRANULE, STEM, noise, save_band, save_safe
from tilestream.errors import ConfigError, SourceError
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources.opening import open_source

BANDS = {"B02": 10, "B08": 10, "B05": 20, "B09": 60, "SCL": 20}


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    """A product of which tests change copies."""
    return save_safe(tmp_path_factory.mktemp("safe") / "S2A_MSIL2A.SAFE", BANDS)


@pytest.fixture
def copy(safe, tmp_path):
    shutil.copytree(safe[0], tmp_path / "p.SAFE")
    return tmp_path / "p.SAFE"


def test_one_product_is_one_pyramid(safe):
    path, pixels = safe
    source = open_source(path)
    info = source.info
    assert info.format == "sentinel2-l2a"
    assert [channel.name for channel in info.channels] == ["blue", "rededge1", "nir", "nir09"]
    assert {(channel.scale, channel.offset) for channel in info.channels} == {(1e-4, -0.1)}
    assert (info.crs, info.datetime, info.nodata) == ("EPSG:32629", "2020-02-19T11:21:11.024Z", 0.0)
    assert info.levels[0].block.yx == (64, 64)  # the tiles of its files, not whole images
    found, _, _ = whole_level(source)
    for index, (band, factor) in enumerate({"B02": 1, "B05": 2, "B08": 1, "B09": 6}.items()):
        np.testing.assert_array_equal(found[..., index], np.kron(pixels[band], np.ones((factor, factor), np.uint16)))


def test_the_scene_classification_is_an_image_of_labels_on_its_grid(safe):
    path, pixels = safe
    layer = open_pyramid(path).classes("SCL")
    assert (layer.kind, layer.levels[0].shape.yx, layer.info.classes[0].values[9]) == (
        "labels",
        (120, 120),
        "cloud_high_probability",
    )
    np.testing.assert_array_equal(layer.read(layer.levels[0].box)[0], np.kron(pixels["SCL"], np.ones((2, 2), np.uint8)))
    assert layer.fingerprint == open_source(f"{path}#classes=scl").info.fingerprint


@pytest.mark.parametrize(
    ("level", "baseline", "offset", "expected"),
    [
        ("L2A", "02.14", None, (1e-4, 0.0)),
        ("L2A", "05.10", -1000, (1e-4, -0.1)),
        ("L1C", "03.01", None, (1e-4, 0.0)),
        ("L1C", "04.00", -1000, (1e-4, -0.1)),
    ],
)
def test_the_offset_came_with_baseline_4(tmp_path, level, baseline, offset, expected):
    path, _ = save_safe(tmp_path / "p", {"B02": 10, "B03": 10}, level=level, baseline=baseline, offset=offset)
    info = open_source(path).info
    assert {(channel.scale, channel.offset) for channel in info.channels} == {expected}
    assert any(f"baseline {baseline}" in note for note in info.notes)


@pytest.mark.parametrize(("baseline", "offset"), [("02.14", -1000), ("04.00", None)])
def test_a_baseline_without_its_offsets_is_a_mixture(tmp_path, baseline, offset):
    path, _ = save_safe(tmp_path / "p", {"B02": 10}, baseline=baseline, offset=offset)
    with pytest.raises(SourceError, match=f"baseline {baseline} with .* offsets"):
        open_source(path)


def test_a_missing_band_is_named_and_refused_when_asked_for(tmp_path):
    path, _ = save_safe(tmp_path / "p", {"B02": 10}, listed=["B11", "B12", "SCL"])
    pyramid = open_pyramid(path)
    assert set(pyramid.info.absent) == {"swir16", "swir22", "SCL"}
    with pytest.raises(ConfigError, match="swir16, a band that the metadata names and whose file is not there"):
        pyramid.choose(bands=["blue", "swir16"])


def test_a_product_without_any_band(tmp_path, safe):
    shutil.copy(f"{safe[0]}/MTD_MSIL2A.xml", tmp_path)
    with pytest.raises(SourceError, match="without a single-band file; not there: blue"):
        open_source(str(tmp_path))


def test_the_native_resolution_goes_before_others(tmp_path):
    path, pixels = save_safe(tmp_path / "p", {"B02": 10, "B05": 20})
    other = tmp_path / "p" / GRANULE / "R60m" / f"{STEM}_B02_60m.tif"
    save_band(other, noise(20, 8), step=60.0)
    text = (tmp_path / "p" / "MTD_MSIL2A.xml").read_text()
    more = f"<IMAGE_FILE>{GRANULE}/R60m/{STEM}_B02_60m</IMAGE_FILE>"
    (tmp_path / "p" / "MTD_MSIL2A.xml").write_text(text.replace("<Granule>", f"<Granule>{more}"))
    np.testing.assert_array_equal(whole_level(open_source(path))[0][..., 0], pixels["B02"])
    (tmp_path / "p" / GRANULE / "R10m" / f"{STEM}_B02_10m.jp2").unlink()
    info = open_source(path).info  # part of a download: the coarse one is what there is
    assert info.levels[0].shape.yx == (60, 60)
    assert any("blue x3" in note for note in info.notes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</n1:Level-2A_User_Product>", "", "not well-formed"),
        ("?>", '?><!DOCTYPE a [<!ENTITY b "c">]>', "document type or entities"),
        ("<PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>", "", "no PROCESSING_BASELINE"),
        (">04.00<", ">four<", "PROCESSING_BASELINE `four`"),
        ("BOA_QUANTIFICATION_VALUE", "SOMETHING", "no BOA_QUANTIFICATION_VALUE"),
        (">10000<", ">0<", "BOA_QUANTIFICATION_VALUE 0"),
        ('band_id="12"', 'band_id="13"', "band_id `13`"),
        ("IMAGE_FILE", "OTHER", "no IMAGE_FILE"),
        (f"{GRANULE}/R10m/{STEM}_B02_10m", f"GRANULE/other/IMG_DATA/R10m/{STEM}_B02_10m", "2 granules"),
    ],
)
def test_broken_metadata(copy, old, new, message):
    text = (copy / "MTD_MSIL2A.xml").read_text()
    assert old in text
    (copy / "MTD_MSIL2A.xml").write_text(text.replace(old, new))
    with pytest.raises(SourceError, match=message):
        open_source(str(copy))


def test_metadata_that_is_no_utf8(copy):
    (copy / "MTD_MSIL2A.xml").write_bytes("<!DOCTYPE a>".encode("utf-16"))
    with pytest.raises(SourceError, match="not UTF-8"):
        open_source(str(copy))


def test_a_listed_path_does_not_lead_out_of_the_product(copy):
    text = (copy / "MTD_MSIL2A.xml").read_text()
    (copy / "MTD_MSIL2A.xml").write_text(text.replace(f"{GRANULE}/R10m/{STEM}_B02", f"../{GRANULE}/R10m/{STEM}_B02"))
    assert "blue" not in [channel.name for channel in open_source(str(copy)).info.channels]


@pytest.mark.parametrize("pattern", [f"{STEM}_{{}}_10m.tif", "{}.tif"])
def test_a_plain_folder_of_bands(tmp_path, pattern):
    for seed, band in enumerate(("B02", "B03", "B8A")):
        save_band(tmp_path / pattern.format(band), noise(60, seed), nodata=None)
    info = open_source(str(tmp_path)).info
    assert [channel.name for channel in info.channels] == ["blue", "green", "nir08"]
    assert {channel.scale for channel in info.channels} == {1.0}
    assert any("as stored" in note for note in info.notes)
    assert info.datetime == ("2020-02-19T11:21:11Z" if "T29" in pattern else None)
    assert info.nodata == 0.0


def test_bands_in_folders_by_resolution(safe):
    path, _ = safe
    info = open_source(f"{path}/{GRANULE}").info
    assert [channel.name for channel in info.channels] == ["blue", "rededge1", "nir", "nir09"]
    assert [band.name for band in info.classes] == ["SCL"]


def test_bands_of_two_products_in_one_folder(tmp_path):
    for date in ("20200219T112111", "20200224T112109"):
        for band in ("B02", "B03"):
            save_band(tmp_path / f"T29RKH_{date}_{band}_10m.tif", noise(40, 1))
    with pytest.raises(SourceError, match="bands of 2 products"):
        open_source(str(tmp_path))


def test_bands_of_landsat_are_not_taken_for_those_of_sentinel(tmp_path):
    for band in ("B10", "B11"):
        save_band(tmp_path / f"LC08_X_{band}.TIF", noise(40, 1))
    with pytest.raises(SourceError, match="no image itself"):
        open_source(str(tmp_path))
