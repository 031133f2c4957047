"""Real TIFF files against the readers that others trust, every level and every pixel."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.enums import Resampling
from rasterio.windows import Window

from tests.sources.assembled import whole_level
from tilestream.errors import ConfigError, SourceError
from tilestream.pyramid import Pyramid
from tilestream.sources.files import File
from tilestream.sources.tiff import open_tiff
from tilestream.types import Box

SLIDES = ("slides/CMU-1-Small-Region.svs", "slides/OS-1-detail.ome.tif", "slides/OS-2-ndpi.ome.tif")
S2 = "satellite/S2A_29RKH_20200219_0_L2A"
SCENES = (
    "satellite/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif",
    "satellite/LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF",
    "satellite/RGB.byte.tif",
    *(f"{S2}/{band}.tif" for band in ("B01", "B02", "B03", "B04", "B08", "B11", "SCL")),
    "satellite/cog_nodata.tif",
    "satellite/cog_nodata_nan.tif",
    "satellite/cog_scale_epsg4326.tif",
    "satellite/colorado_15cm_mask.tif",
    "satellite/pix4d_alpha_nodata.tif",
)
JPEG_SCENE = "satellite/cogeo.tif"


def source_of(path: Path):
    return open_tiff(File(url=str(path)))


def open_level(path: Path, level: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path) if level == 0 else rasterio.open(path, overview_level=level - 1)


@pytest.mark.parametrize("name", SLIDES)
def test_tiled_jpeg_slides_equal_tifffile(shared_data, name):
    source = source_of(shared_data / name)
    with tifffile.TiffFile(shared_data / name) as reference:
        expected = reference.pages[0].asarray()
    pixels, valid, damage = whole_level(source)
    np.testing.assert_array_equal(pixels, expected)
    assert valid.all()
    assert not damage


def test_jpeg_scene_equals_tifffile_at_every_level(shared_data):
    source = source_of(shared_data / JPEG_SCENE)
    with tifffile.TiffFile(shared_data / JPEG_SCENE) as reference:
        levels = [page.asarray() for page in reference.pages if not page.subfiletype & 4]
    assert len(source.info.levels) == len(levels) == 7
    for index, expected in enumerate(levels):
        pixels, valid, _ = whole_level(source, index)
        np.testing.assert_array_equal(pixels, expected)
        assert valid.all()


@pytest.mark.parametrize("name", SCENES)
def test_scenes_equal_rasterio_at_every_level(shared_data, name):
    source = source_of(shared_data / name)
    with open_level(shared_data / name, 0) as reference:
        assert len(source.info.levels) == 1 + len(reference.overviews(1))
    for level in source.info.levels:
        with open_level(shared_data / name, level.index) as reference:
            expected = np.moveaxis(reference.read(), 0, 2)[:, :, : len(source.info.channels)]
            mask = reference.dataset_mask() != 0
        if np.issubdtype(expected.dtype, np.floating):
            mask &= np.isfinite(expected).all(axis=2)
        if name.endswith("pix4d_alpha_nodata.tif"):  # GDAL lets a nodata value that cannot occur win over alpha
            with open_level(shared_data / name, level.index) as reference:
                mask = reference.read(4) != 0
        pixels, valid, damage = whole_level(source, level.index)
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(valid, mask)
        assert not damage


@pytest.mark.parametrize("name", [*SCENES, JPEG_SCENE, "satellite/cog_world.tif"])
def test_place_and_bands_equal_rasterio(shared_data, name):
    info = source_of(shared_data / name).info
    with open_level(shared_data / name, 0) as reference:
        assert info.crs == reference.crs.to_string()
        assert info.affine == pytest.approx(tuple(reference.transform)[:6], rel=1e-12)
        assert info.dtype == np.dtype(reference.dtypes[0])
        if not name.endswith("pix4d_alpha_nodata.tif"):
            assert info.nodata == reference.nodata
        assert tuple(channel.scale for channel in info.channels) == reference.scales[: len(info.channels)]
        assert tuple(channel.offset for channel in info.channels) == reference.offsets[: len(info.channels)]
    assert info.modality == "scene"
    assert info.kind == "intensity"
    assert info.mpp_yx is None


@pytest.mark.parametrize("level", [0, 1, 3, 6])
def test_the_largest_scene_equals_rasterio_in_windows(shared_data, level):
    path = shared_data / "satellite/cog_world.tif"
    pyramid = Pyramid(source=source_of(path))
    size = pyramid.levels[level].shape
    rng = np.random.default_rng(level)
    with open_level(path, level) as reference:
        for _ in range(6):
            height, width = rng.integers(1, min(1500, size.y), 2)
            y, x = int(rng.integers(0, size.y - height + 1)), int(rng.integers(0, size.x - width + 1))
            expected = reference.read(window=Window(x, y, int(width), int(height)))
            region = pyramid.read_region(Box(level=level, y=y, x=x, height=int(height), width=int(width)))
            np.testing.assert_array_equal(region.pixels, expected)
            np.testing.assert_array_equal(region.valid, expected[0] != 0)


@pytest.mark.parametrize("name", [SLIDES[0], SLIDES[1], "satellite/RGB.byte.tif", "satellite/cogeo.tif"])
def test_windows_across_blocks_and_image_edges(shared_data, name):
    source = source_of(shared_data / name)
    whole, valid, _ = whole_level(source)
    pyramid = Pyramid(source=source)
    block, size = source.info.levels[0].block, source.info.shape
    for y, x in ((-7, -9), (block.y - 3, block.x - 5), (size.y - 20, size.x - 31), (0, size.x - 1), (size.y - 1, 0)):
        region = pyramid.read_region(Box(y=y, x=x, height=41, width=57))
        inside = (slice(max(0, y), min(size.y, y + 41)), slice(max(0, x), min(size.x, x + 57)))
        there = (slice(inside[0].start - y, inside[0].stop - y), slice(inside[1].start - x, inside[1].stop - x))
        expected = np.where(valid[inside][..., None], whole[inside], 0)
        np.testing.assert_array_equal(np.moveaxis(region.pixels, 0, 2)[there], expected)
        np.testing.assert_array_equal(region.valid[there], valid[inside])
        outside = np.ones((41, 57), bool)
        outside[there] = False
        assert not region.valid[outside].any()
        assert not region.pixels[:, outside].any()


def test_svs_says_what_it_knows(shared_data):
    source = source_of(shared_data / SLIDES[0])
    info = source.info
    assert (info.format, info.modality, info.mpp_yx) == ("aperio-svs", "brightfield", (0.499, 0.499))
    assert info.associated == ("thumbnail",)
    with tifffile.TiffFile(shared_data / SLIDES[0]) as reference:
        np.testing.assert_array_equal(source.read_associated("thumbnail"), reference.pages[1].asarray())
    for name in ("label", "macro"):
        with pytest.raises(ConfigError, match=name):
            source.read_associated(name)


def test_ome_says_what_it_knows(shared_data):
    info = source_of(shared_data / SLIDES[1]).info
    assert info.mpp_yx == pytest.approx((0.22710240047237298, 0.2270972430394695))
    assert (info.format, info.modality) == ("ome-tiff", "brightfield")


def test_a_class_band_without_a_table_says_how_to_take_it(shared_data):
    info = source_of(shared_data / f"{S2}/SCL.tif").info
    assert info.kind == "intensity"
    assert any("#kind=labels" in note for note in info.notes)


def test_external_overviews_are_levels(shared_data):
    path = shared_data / "satellite/LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF"
    info = source_of(path).info
    assert len(info.levels) == 5
    for level in info.levels[1:]:
        with rasterio.open(path, overview_level=level.index - 1) as reference:
            step = reference.transform.a, reference.transform.e
        assert (info.affine[0] * level.scale_yx[1], info.affine[4] * level.scale_yx[0]) == pytest.approx(step)


def test_overview_that_is_cut_off_keeps_its_true_ratio(shared_data):
    info = source_of(shared_data / "satellite/cog_nodata_nan.tif").info
    assert info.levels[1].scale_yx == pytest.approx((549 / 274, 549 / 274))


def test_one_bad_tile_costs_one_tile(shared_data):
    source = source_of(shared_data / "broken/corrupt.tif")
    good, _, none = whole_level(source_of(shared_data / JPEG_SCENE))
    pixels, valid, damage = whole_level(source)
    assert not none
    assert list(damage) == [(1, 1)]
    assert "outside the file" in damage[1, 1]
    np.testing.assert_array_equal(pixels[:512], good[:512])
    np.testing.assert_array_equal(pixels[512:, :512], good[512:, :512])
    assert not valid[512:, 512:].any()
    for level in source.info.levels[1:]:
        assert not whole_level(source, level.index)[2]


def test_overflowed_rows_per_strip_are_read_where_gdal_shifts_bands(shared_data):
    """The tag says one strip a band, the file holds 13: GDAL takes strips 1 and 2 for bands 2 and 3."""
    source = source_of(shared_data / "broken/tiff_overflow_rows_per_strip.tif")
    with open_level(shared_data / "broken/tiff_overflow_rows_per_strip.tif", 0) as reference:
        shifted = reference.read()
    pixels, valid, _ = whole_level(source)
    stream = np.moveaxis(pixels, 2, 0).reshape(-1, 278)
    for band in range(3):
        np.testing.assert_array_equal(stream[29 * band : 29 * band + 374], shifted[band])
    ours = np.corrcoef(pixels[..., 0].ravel(), pixels[..., 1].ravel())[0, 1]
    assert ours > 0.85 > np.corrcoef(shifted[0].ravel(), shifted[1].ravel())[0, 1]  # colours of a photograph agree
    assert valid.all()
    assert any("rows per strip" in note for note in source.info.notes)


def test_fax_pages_equal_tifffile(shared_data, caplog):
    caplog.set_level(logging.CRITICAL)
    source = source_of(shared_data / "broken/total-pages-zero.tif")
    assert source.info.axes["page"] == 3
    for page in range(3):
        with tifffile.TiffFile(shared_data / "broken/total-pages-zero.tif") as reference:
            expected = ~reference.pages[page].asarray()  # white is stored as 0
        pixels, _, damage = whole_level(source.isel(page=page))
        np.testing.assert_array_equal(pixels[:, :, 0], expected)
        assert not damage


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif", "of 88"),
        ("crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif", "of 3728"),
        ("crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif", "of 4567"),
        ("random-text.svs", "TIFF header"),
    ],
)
def test_hopeless_files_are_refused_with_a_reason(shared_data, name, reason):
    with pytest.raises(SourceError, match=reason):
        source_of(shared_data / "broken" / name)


def test_decimated_reads_are_not_what_is_compared(shared_data):
    """The overviews are read as stored: rasterio's own decimation of level 0 differs, so the tests above can fail."""
    path = shared_data / f"{S2}/B02.tif"
    with open_level(path, 0) as reference:
        decimated = reference.read(1, out_shape=(549, 549), resampling=Resampling.nearest)
    stored = whole_level(source_of(path), 1)[0][:, :, 0]
    with open_level(path, 1) as reference:
        np.testing.assert_array_equal(stored, reference.read(1))
    assert stored.shape == decimated.shape
