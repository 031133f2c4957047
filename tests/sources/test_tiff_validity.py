"""Which pixels of a TIFF are valid: masks, alpha, nodata, sparse tiles; and bands as GDAL writes them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio
from rasterio.enums import MaskFlags, Resampling
from rasterio.transform import Affine

from tests.sources.assembled import whole_level
from tests.sources.madetiff import Page, image_tags, opened, photo, tiles_of, write_tiff
from tilestream.errors import DamagedError
from tilestream.sources.opening import open_source


def geotiff(path, pixels: np.ndarray, **more) -> None:
    """Write `(c, y, x)` with GDAL."""
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 500000, 0, -10, 5000000)}
    mask, build = more.pop("mask", None), more.pop("overviews", ())
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(path, "w", dtype=pixels.dtype.name, **profile, **place, **more) as file:
            file.write(pixels)
            if mask is not None:
                file.write_mask(mask)
        if build:
            with rasterio.open(path, "r+") as file:
                file.build_overviews(build)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("compress", ["jpeg", "deflate"])
def test_internal_masks_are_validity_at_every_level(tmp_path, tiled, compress):
    pixels = np.moveaxis(photo(300, 280), 2, 0)
    mask = np.zeros((300, 280), bool)
    mask[20:150, 40:270] = True
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {"blockysize": 16}
    colour = {"photometric": "YCBCR"} if compress == "jpeg" else {}
    geotiff(tmp_path / "a.tif", pixels, mask=mask, overviews=[2, 4], compress=compress, **options, **colour)
    source = opened(tmp_path / "a.tif")
    assert len(source.info.levels) == 3
    for level in range(3):
        with rasterio.open(tmp_path / "a.tif", **({"overview_level": level - 1} if level else {})) as reference:
            assert MaskFlags.per_dataset in reference.mask_flag_enums[0]
            np.testing.assert_array_equal(whole_level(source, level)[1], reference.dataset_mask() != 0)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_alpha_is_validity_and_no_channel(tmp_path, interleave):
    pixels = np.moveaxis(photo(100, 90, channels=4), 2, 0).copy()
    pixels[3] = np.where(np.arange(90) < 30, 0, np.where(np.arange(90) < 60, 128, 255))
    geotiff(tmp_path / "a.tif", pixels, ALPHA="YES", photometric="RGB", interleave=interleave)
    source = opened(tmp_path / "a.tif")
    assert [channel.name for channel in source.info.channels] == ["R", "G", "B"]
    got, valid, _ = whole_level(source)
    np.testing.assert_array_equal(valid, pixels[3] != 0)
    np.testing.assert_array_equal(np.moveaxis(got, 2, 0), pixels[:3])


def test_a_fourth_band_that_is_no_alpha_is_a_channel(tmp_path):
    pixels = np.moveaxis(photo(60, 50, channels=4), 2, 0)
    geotiff(tmp_path / "a.tif", pixels, photometric="RGB", ALPHA="NO")
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.descriptions = ("red", "green", "blue", "nir")
    source = opened(tmp_path / "a.tif")
    assert [channel.name for channel in source.info.channels] == ["red", "green", "blue", "nir"]
    np.testing.assert_array_equal(np.moveaxis(whole_level(source)[0], 2, 0), pixels)


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("u1", 0), ("u2", 65535), ("i2", -9999), ("f4", -9999.0), ("f4", np.nan), ("f8", 1e30)]
)
def test_nodata_and_not_a_number_are_not_valid(tmp_path, dtype, nodata):
    pixels = np.random.default_rng(0).integers(1, 200, (2, 80, 70)).astype(dtype)
    pixels[:, 10:20] = nodata
    pixels[0, 30:40] = nodata  # one band alone does not make a pixel invalid, unless it is not a number
    if dtype[0] == "f":
        pixels[1, 50] = np.nan
    geotiff(tmp_path / "a.tif", pixels, nodata=nodata)
    source = opened(tmp_path / "a.tif")
    expected = np.ones((80, 70), bool)
    expected[10:20] = False
    if dtype[0] == "f":
        expected[50] = False
        expected[30:40] &= not np.isnan(nodata)
    np.testing.assert_array_equal(whole_level(source)[1], expected)
    assert source.info.nodata == pytest.approx(nodata, nan_ok=True)


def test_sparse_scenes_are_not_valid_where_nothing_is_stored(tmp_path):
    pixels = np.zeros((1, 256, 256), "u1")
    pixels[:, :64, :64] = 7
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "SPARSE_OK": True}
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", count=1, height=256, width=256, dtype="uint8", crs="EPSG:4326",
        transform=Affine(0.1, 0, 0, 0, -0.1, 1), **options,
    ) as file:  # fmt: skip
        file.write(pixels[:, :64, :64], window=((0, 64), (0, 64)))
    source = opened(tmp_path / "a.tif")
    assert source.read_block(0, 2, 2) is None
    got, valid, damage = whole_level(source)
    assert not damage
    assert valid.sum() == 64 * 64
    np.testing.assert_array_equal(got, pixels[0][..., None])


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_jpeg_scenes_of_any_number_of_bands_equal_gdal(tmp_path, interleave, count):
    pixels = np.moveaxis(photo(150, 140, channels=count), 2, 0)
    options = {"compress": "jpeg", "tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": interleave}
    geotiff(tmp_path / "a.tif", pixels, ALPHA="NO", **options)
    with rasterio.open(tmp_path / "a.tif") as reference:
        expected = reference.read()
    np.testing.assert_array_equal(np.moveaxis(whole_level(opened(tmp_path / "a.tif"))[0], 2, 0), expected)


def test_a_mask_may_be_cut_otherwise_than_its_image(tmp_path):
    pixels, seen = photo(100, 90, channels=1), np.zeros((100, 90), bool)
    seen[30:77, 11:80] = True
    image = Page(
        tags=image_tags(100, 90, piece=(48, 32)),
        pieces=[tile.tobytes() for tile in tiles_of(pixels, (48, 32))],
    )
    rows = np.packbits(seen, axis=1)
    strips = [rows[at : at + 9].tobytes() for at in range(0, 100, 9)]
    mask = Page(tags=image_tags(100, 90, bits=1, subfile=4, rows=9), pieces=strips, tiled=False)
    got, valid, damage = whole_level(opened(write_tiff(tmp_path / "a.tif", image, mask)))
    assert not damage
    np.testing.assert_array_equal(valid, seen)
    np.testing.assert_array_equal(got, pixels)


def test_a_mask_of_another_size_is_left_out_with_a_note(tmp_path):
    image = Page(tags=image_tags(64, 64, piece=(64, 64)), pieces=[bytes(4096)])
    mask = Page(tags=image_tags(32, 32, piece=(32, 32), bits=1, subfile=4), pieces=[bytes(128)])
    source = opened(write_tiff(tmp_path / "a.tif", image, mask))
    assert source.read_block(0, 0, 0).valid is None
    assert any("another size" in note for note in source.info.notes)


def test_a_damaged_mask_makes_its_block_damaged(tmp_path):
    image = Page(tags=image_tags(64, 64, piece=(64, 64)), pieces=[bytes(4096)])
    mask = Page(tags=image_tags(64, 64, piece=(64, 64), bits=1, subfile=4, compression=8), pieces=[b"garbage"])
    source = opened(write_tiff(tmp_path / "a.tif", image, mask))
    with pytest.raises(DamagedError, match="deflate"):
        source.read_block(0, 0, 0)


@pytest.mark.parametrize("overviews", [False, True])
def test_a_mask_in_a_file_beside_the_image_is_read(tmp_path, overviews):
    """As GDAL writes it: `image.tif.msk`, 0 where nothing was measured, with overviews of its own or not."""
    seen = np.zeros((300, 200), np.uint8)
    seen[40:250, 30:180] = 255
    path, how = tmp_path / "a.tif", {"driver": "GTiff", "height": 300, "width": 200, "tiled": True, "blockxsize": 64}
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False, TIFF_USE_OVR=False):
        warnings.simplefilter("ignore")  # of a missing place on Earth
        with rasterio.open(path, "w", count=1, dtype="uint8", blockysize=64, **how) as file:
            file.write(np.full((1, 300, 200), 7, np.uint8))
            file.write_mask(seen)
        if overviews:
            with rasterio.open(path, "r+") as file:
                file.build_overviews([2], Resampling.nearest)
    assert (tmp_path / "a.tif.msk").exists()
    source = open_source(str(path))
    np.testing.assert_array_equal(whole_level(source, 0)[1], seen != 0)
    for level in source.info.levels[1:]:
        valid = whole_level(source, level.index)[1]
        assert valid[30, 30]
        assert not valid[10, 10]
