"""Scenes of single-band files made by code: grids, names, what is left out, damage."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
import tifffile

from tests.sources.assembled import whole_level
from tests.sources.madescene import noise, save_band
from tilestream.errors import DamagedError, SourceError
from tilestream.sources.opening import open_source


def save_scene(folder, bands, **assets):
    """`bands`: name → (pixels, step, options of the asset)."""
    folder.mkdir(exist_ok=True)
    described = {}
    for number, (name, (pixels, step, more)) in enumerate(bands.items()):
        save_band(folder / f"{name}.tif", pixels, step=step, **more)
        described[name] = {
            "href": f"https://somewhere/else/{name}.tif",
            "type": "image/tiff",
            "eo:bands": [{"name": name, "common_name": name, "center_wavelength": 0.4 + number}],
        }
    item = {"type": "Feature", "stac_version": "1.0.0", "assets": {**described, **assets}}
    (folder / "item.json").write_text(json.dumps(item))
    return str(folder)


def test_coarse_bands_are_repeated(tmp_path):
    fine, coarse = noise(70, 1), noise(24, 2)  # 24 x 30 m covers 70 x 10 m and a bit more
    source = open_source(save_scene(tmp_path / "s", {"red": (fine, 10, {}), "swir": (coarse, 30, {})}))
    pixels, valid, _ = whole_level(source)
    np.testing.assert_array_equal(pixels[..., 0], fine)
    np.testing.assert_array_equal(pixels[..., 1], np.kron(coarse, np.ones((3, 3), np.uint16))[:70, :70])
    assert valid.all()
    assert any("swir x3" in note for note in source.info.notes)


def test_validity_is_that_of_all_bands(tmp_path):
    fine, coarse = noise(60, 1), noise(30, 2)
    fine[0, 0], coarse[5, 5] = 0, 0
    source = open_source(save_scene(tmp_path / "s", {"red": (fine, 10, {}), "swir": (coarse, 20, {})}))
    expected = np.ones((60, 60), bool)
    expected[0, 0], expected[10:12, 10:12] = False, False
    pixels, valid, _ = whole_level(source)
    np.testing.assert_array_equal(valid, expected)
    assert not pixels[~valid].any()


@pytest.mark.parametrize(
    ("step", "size", "more"), [(25, 24, {}), (20, 30, {"origin": (500007.0, 4000000.0)}), (20, 20, {})]
)
def test_bands_that_do_not_fit_are_left_out_and_named(tmp_path, step, size, more):
    bands = {"red": (noise(60, 1), 10, {}), "odd": (noise(size, 2), step, more)}
    info = open_source(save_scene(tmp_path / "s", bands)).info
    assert [channel.name for channel in info.channels] == ["red"]
    assert any("odd" in note for note in info.notes)


def test_class_layers_are_no_channels(tmp_path):
    scl = {"href": "./scl.tif", "type": "image/tiff", "roles": ["data"]}
    picture = {"href": "./tci.tif", "type": "image/tiff"}
    path = save_scene(tmp_path / "s", {"red": (noise(60, 1), 10, {})}, scl=scl, visual=picture)
    save_band(tmp_path / "s" / "tci.tif", noise(60, 4))
    save_band(tmp_path / "s" / "scl.tif", noise(60, 3))
    info = open_source(path).info
    assert [channel.name for channel in info.channels] == ["red"]
    assert [band.name for band in info.classes] == ["SCL"]
    assert info.notes == ("neither bands nor class layers: visual",)


def test_order_is_that_of_wavelength_and_names_are_unique(tmp_path):
    bands = {name: (noise(60, seed), 10, {}) for seed, name in enumerate(("a", "b", "c"))}
    path = tmp_path / "s"
    save_scene(path, bands)
    item = json.loads((path / "item.json").read_text())
    for name, wavelength, common in (("a", 3, "rededge"), ("b", 1, "rededge"), ("c", 2, "nir")):
        item["assets"][name]["eo:bands"][0] |= {"center_wavelength": wavelength, "common_name": common}
    (path / "item.json").write_text(json.dumps(item))
    assert [channel.name for channel in open_source(str(path)).info.channels] == ["b", "nir", "a"]


def test_a_damaged_band_is_named(tmp_path):
    path = save_scene(tmp_path / "s", {"red": (noise(60, 1), 10, {}), "nir": (noise(60, 2), 10, {})})
    with tifffile.TiffFile(tmp_path / "s" / "nir.tif") as tiff:
        offset = tiff.pages[0].dataoffsets[1]
    data = bytearray((tmp_path / "s" / "nir.tif").read_bytes())
    data[offset : offset + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "s" / "nir.tif").write_bytes(data)
    source = open_source(path)
    assert set(whole_level(source)[2]) == {(0, 1)}
    with pytest.raises(DamagedError, match="band nir"):
        source.read_block(0, 0, 1)


def test_a_band_that_does_not_open_is_the_scenes_error(tmp_path):
    path = save_scene(tmp_path / "s", {"red": (noise(60, 1), 10, {}), "nir": (noise(60, 2), 10, {})})
    (tmp_path / "s" / "nir.tif").write_bytes(b"not a tiff")
    with pytest.raises(SourceError, match=r"nir\.tif"):
        open_source(path)


def test_an_item_without_bands(tmp_path):
    path = save_scene(tmp_path / "s", {"red": (noise(60, 1), 10, {})})
    item = json.loads((tmp_path / "s" / "item.json").read_text())
    item["assets"]["red"]["eo:bands"] *= 3
    (tmp_path / "s" / "item.json").write_text(json.dumps(item))
    with pytest.raises(SourceError, match="without a single-band file"):
        open_source(path)


def test_bands_without_compression_are_not_mixed_up(tmp_path):
    """Their headers, tile tables and both ends of the files are the same, and blocks of coarse bands are cached."""
    for name, value in (("red", 1), ("nir", 2)):
        pixels = np.zeros((512, 512), np.uint16)
        pixels[300, 300] = value
        save_scene(tmp_path / name, {"band": (pixels, 10.0, {"compression": None, "tile": 128})})
    for name, value in (("red", 1), ("nir", 2)):
        source = open_source(str(tmp_path / name))
        assert whole_level(source, 0)[0].max() == value


@pytest.mark.parametrize("size", [99, 100, 101, 97])
def test_overviews_of_odd_sizes_are_served_by_coarser_bands(tmp_path, size):
    half = -(-size // 2)
    path = save_scene(
        tmp_path / "s",
        {"red": (noise(size, 1), 10, {}), "swir": (noise(half, 2), 20, {})},
        scl={"href": "./scl.tif", "type": "image/tiff"},
    )
    save_band(tmp_path / "s" / "scl.tif", noise(half, 3, "uint8", 12), step=20.0)
    for name in ("red", "swir"):
        with rasterio.open(tmp_path / "s" / f"{name}.tif", "r+") as file:
            file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    source = open_source(path)
    assert [level.shape.y for level in source.info.levels] == [size, half, -(-half // 2)]
    assert [band.name for band in source.info.classes] == ["SCL"]
    with rasterio.open(tmp_path / "s" / "swir.tif", overview_level=0) as file:
        np.testing.assert_array_equal(whole_level(source, 2)[0][..., 1], file.read(1))
    np.testing.assert_array_equal(whole_level(source, 1)[0][..., 1], noise(half, 2))
    np.testing.assert_array_equal(whole_level(source.class_layer("SCL"), 1)[0][..., 0], noise(half, 3, "uint8", 12))
