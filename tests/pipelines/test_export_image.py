"""A pyramid that was exported is the same pyramid when it is opened again, here and in the programs of others."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import rasterio
import tifffile
from rio_cogeo.cogeo import cog_validate

import tilestream as ts
from tests.pipelines.holed import holed
from tests.servers import HttpServer
from tests.sinks.build import make_sink, write_all
from tilestream.codecs.durable import durable_path
from tilestream.errors import ConfigError, OutputError
from tilestream.kernels.mip import mip_levels
from tilestream.pipelines.export_form import ExportOptions, recipe_digest
from tilestream.pipelines.export_image import Exported, export_pyramid
from tilestream.pipelines.export_place import written_by_us
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sinks import ometiff
from tilestream.sinks.raster import build_raster
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
FILES = [
    "slides/CMU-1-Small-Region.svs",
    "slides/OS-1-detail.ome.tif",
    "slides/dicom-cmu-1-small-region",
    "satellite/RGB.byte.tif",
    "satellite/cog_nodata.tif",
    "satellite/cog_nodata_nan.tif",
    "satellite/cog_scale_epsg4326.tif",
    "satellite/cogeo.tif",
    "satellite/colorado_15cm_mask.tif",
    "satellite/pix4d_alpha_nodata.tif",
    "satellite/S2_L2A_19UDP_20170729_TCI.jp2",
    "satellite/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif",
    "zarr/exemplar-001.crop.image.ome.zarr",
    "zarr/exemplar-001.crop.segmentations.ome.zarr",
    "zarr/skimage-2dt.segmentation.ome.zarr",
    "zarr/blobs_multiscale_image.v05.ome.zarr",
    "photos/kodim01.png",
]


def _export(pyramid: Pyramid, folder: Path, to: Any, **options: Any) -> tuple[Exported, Pyramid]:
    made = export_pyramid(pyramid, folder / f"made.{to}.tif", ExportOptions(to=to, **options))
    return made, ts.open_pyramid(made.path)


def _array(shape: tuple[int, ...] = (3, 1100, 1300), dtype: str = "u1") -> Pyramid:
    return ts.open_pyramid(np.random.default_rng(0).integers(0, 200, shape).astype(dtype))


def _same_pixels(made: Pyramid, wanted: Pyramid, *, knows_validity: bool = True) -> None:
    one, other = (each.read_region(each.levels[0].box) for each in (made, wanted))
    if knows_validity:
        np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_array_equal(one.pixels[:, other.valid], other.pixels[:, other.valid])


@pytest.mark.parametrize("name", FILES)
def test_cogs_of_real_images(shared_data: Path, tmp_path: Path, name: str) -> None:
    wanted = ts.open_pyramid(shared_data / name)
    made, pyramid = _export(wanted, tmp_path, "cog")
    assert cog_validate(made.path, strict=True) == (True, [], [])
    _same_pixels(pyramid, wanted)
    assert (pyramid.crs, pyramid.affine, pyramid.kind) == (wanted.crs, wanted.affine, wanted.kind)
    assert [c.name for c in pyramid.channels] == [c.name for c in wanted.channels]
    assert [(c.scale, c.offset) for c in pyramid.channels] == [(c.scale, c.offset) for c in wanted.channels]
    assert pyramid.mpp == (None if wanted.mpp is None else pytest.approx(wanted.mpp, rel=1e-9))
    if wanted.dtype.kind != "f":
        assert pyramid.info.nodata == wanted.info.nodata
    with rasterio.open(made.path) as scene:
        assert made.size_bytes == made.path.stat().st_size
        assert scene.overviews(1) == [2**level for level in range(1, made.levels)]
        seen = wanted.read_region(wanted.levels[0].box)
        np.testing.assert_array_equal(scene.read()[:, seen.valid], seen.pixels[:, seen.valid])
        # to GDAL nodata is one band's matter, and NaN is a value where it is not nodata
        if wanted.info.nodata is None or (len(wanted.channels) == 1 and wanted.dtype.kind != "f"):
            np.testing.assert_array_equal(scene.dataset_mask() != 0, seen.valid)


@pytest.mark.parametrize("name", FILES)
def test_ome_tiffs_of_real_images(shared_data: Path, tmp_path: Path, name: str) -> None:
    wanted = ts.open_pyramid(shared_data / name)
    made, pyramid = _export(wanted, tmp_path, "ome-tiff")
    says = wanted.info.validity is None or wanted.info.nodata is not None or wanted.dtype.kind == "f"
    _same_pixels(pyramid, wanted, knows_validity=says)
    assert pyramid.info.format == "ome-tiff"
    assert (pyramid.crs, pyramid.affine, pyramid.kind) == (wanted.crs, wanted.affine, wanted.kind)
    assert pyramid.mpp == wanted.mpp
    assert [c.name for c in pyramid.channels] == [c.name for c in wanted.channels]
    assert len(pyramid.levels) == made.levels
    with tifffile.TiffFile(made.path) as file:
        (series,) = file.series
        assert (series.kind, len(series.levels)) == ("ome", made.levels)
        pixels = series.levels[-1].asarray()
        last = pyramid.levels[-1]
        planar = np.moveaxis(pixels, -1, 0) if "S" in series.axes else pixels
        np.testing.assert_array_equal(planar.reshape(-1, *last.shape.yx), pyramid.read(last.box))


@pytest.mark.parametrize("codec", ["deflate", "jpeg"])
def test_openslide_opens_slides(tmp_path: Path, codec: str) -> None:
    wanted = ts.open_pyramid(write_slide(tmp_path / "a.svs", Shape(y=1200, x=1500), mpp=0.25))
    for to, levels in (("cog", 3), ("ome-tiff", 1)):  # it does not look for SubIFDs
        made, pyramid = _export(wanted, tmp_path, to, codec=codec)
        with openslide.OpenSlide(made.path) as slide:
            assert slide.level_count == levels
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
            region = np.asarray(slide.read_region((500, 400), 0, (300, 200)))[..., :3]
        ours = pyramid.read(ts.Box(y=400, x=500, height=200, width=300)).transpose(1, 2, 0)
        np.testing.assert_allclose(region.astype(int), ours, atol=0 if codec == "deflate" else 2)


def test_levels_of_half_size_are_kept_and_others_made(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "own.tif"
    levels = [generator.integers(0, 255, shape, np.uint8) for shape in ((2100, 1900), (1050, 950), (525, 475))]
    with tifffile.TiffWriter(path) as file:
        for level in levels:
            file.write(level, tile=(256, 256), subfiletype=int(level is not levels[0]))
    _, pyramid = _export(ts.open_pyramid(path), tmp_path, "cog")
    assert [level.shape.yx for level in pyramid.levels] == [(2100, 1900), (1050, 950), (525, 475), (263, 238)]
    for level, pixels in zip(pyramid.levels, levels, strict=False):
        np.testing.assert_array_equal(pyramid.read(level.box)[0], pixels)
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[3].box)[0], ts.kernels.mip(levels[2], levels=1)[0])

    slide = ts.open_pyramid(write_slide(tmp_path / "a.svs", Shape(y=1200, x=1500)))
    assert [level.scale_yx[0] for level in slide.levels] == [1, 4]
    _, pyramid = _export(slide, tmp_path, "ome-tiff")
    whole = slide.read(slide.levels[0].box)
    for level, wanted in zip(pyramid.levels[1:], ts.kernels.mip(whole, levels=2), strict=True):
        np.testing.assert_array_equal(pyramid.read(level.box), wanted)


@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_labels_stay_labels(tmp_path: Path, to: str) -> None:
    classes = np.random.default_rng(0).choice([3, 200, 40_000], (700, 900)).astype(np.uint16)
    pyramid = ts.open_pyramid(classes)
    pyramid = replace(pyramid, source=replace(pyramid.source, info=replace(pyramid.info, kind="labels")))
    _, made = _export(pyramid, tmp_path, to)
    assert made.kind == "labels"
    wanted = ts.kernels.mip(classes, levels=1, kind="labels")[0]
    np.testing.assert_array_equal(made.read(made.levels[1].box)[0], wanted)
    with tifffile.TiffFile(made.address) as file:
        assert file.pages.first.colormap is None
        assert file.pages.first.predictor == 1


def _holed(dtype: str, **more: Any) -> tuple[Pyramid, np.ndarray]:
    """Return an image of which a part was not measured, and where it was."""
    pixels = np.random.default_rng(1).integers(1, 200, (1100, 1000, 2)).astype(dtype)
    valid = np.ones((1100, 1000), np.bool_)
    valid[:600, 300:] = False
    valid[900] = False
    return holed(pixels, valid, **more), valid


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("u1", None), ("u2", 0), ("i2", -9999), ("f4", None), ("f4", -1.0), ("u1", 300)]
)
def test_what_was_not_measured_says_so(tmp_path: Path, dtype: str, nodata: float | None) -> None:
    pyramid, valid = _holed(dtype, nodata=nodata)
    made, again = _export(pyramid, tmp_path, "cog")
    _same_pixels(again, pyramid)
    assert cog_validate(made.path, strict=True)[0]
    coarse = again.read_region(again.levels[1].box)
    wanted = mip_levels(pyramid.read(pyramid.levels[0].box), valid, levels=1)[0]
    np.testing.assert_array_equal(coarse.valid, wanted.valid)
    np.testing.assert_array_equal(coarse.pixels[:, wanted.valid], wanted.pixels[:, wanted.valid])
    with rasterio.open(made.path) as scene:
        np.testing.assert_array_equal(scene.dataset_mask() != 0, valid)
        if dtype == "f4" and nodata is None:
            assert math.isnan(scene.nodata)


def test_jpeg_keeps_validity_beside_the_pixels(tmp_path: Path) -> None:
    pyramid, valid = _holed("u1", nodata=0)
    pyramid = pyramid.choose(bands=[pyramid.channels[0].name])
    made, again = _export(pyramid, tmp_path, "cog", codec="jpeg")
    assert again.info.nodata is None
    np.testing.assert_array_equal(again.read_region(again.levels[0].box).valid, valid)
    assert made.notes == ()


def test_ome_tiff_shows_glass_where_nothing_was_scanned(tmp_path: Path) -> None:
    pixels = np.full((700, 900, 3), 90, np.uint8)
    valid = np.ones((700, 900), np.bool_)
    valid[:, 512:] = False
    pyramid = holed(pixels, valid, modality="brightfield", names=("R", "G", "B"))
    made, again = _export(pyramid, tmp_path, "ome-tiff")
    assert "255, or 0 where damaged" in made.notes[0]
    for level in again.levels:
        found = again.read(level.box)
        edge = 512 >> level.index
        assert (found[:, :, edge:] == 255).all()
        assert (found[:, :, :edge] == 90).all()


@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_a_damaged_tile_of_a_real_file_is_named(shared_data: Path, tmp_path: Path, to: str) -> None:
    wanted = ts.open_pyramid(shared_data / "broken" / "corrupt.tif")
    seen = wanted.read_region(wanted.levels[0].box)
    made, again = _export(wanted, tmp_path, to)
    (reason,) = made.damage
    assert "block y=1 x=1 of level 0" in reason
    region = again.read_region(again.levels[0].box)
    assert region.valid[512:, 512:].any() == (to == "ome-tiff")
    assert not region.pixels[:, 512:, 512:].any()
    np.testing.assert_array_equal(region.pixels[:, seen.valid], seen.pixels[:, seen.valid])
    with tifffile.TiffFile(made.path) as file:
        words = file.ome_metadata if to == "ome-tiff" else file.pages.first.tags[42112].value
    assert ("damaged blocks" if to == "ome-tiff" else "DAMAGED_BLOCKS") in words


def test_damage_is_black_at_all_levels_of_a_slide_and_what_was_not_scanned_white(tmp_path: Path) -> None:
    valid = np.ones((1024, 1024), np.bool_)
    valid[:, 512:768] = False
    pyramid = holed(
        np.full((1024, 1024, 3), 90, np.uint8), valid, names=("R", "G", "B"), modality="brightfield", damaged=((1, 1),)
    )
    made, again = _export(pyramid, tmp_path, "ome-tiff")
    assert len(made.damage) == 1
    for level in again.levels:
        found = again.read(level.box)
        block = 256 >> level.index
        assert (found[:, :, 2 * block : 3 * block] == 255).all()
        assert (found[:, block : 2 * block, block : 2 * block] == 0).all()
        assert (found[:, 2 * block :, : 2 * block] == 90).all()


def test_the_entropy_raster_of_a_run(tmp_path: Path) -> None:
    sink = make_sink(tmp_path)
    sink.finish(write_all(sink, damaged=[3]))
    build_raster(sink.root, tmp_path / "a.entropy.zarr")
    wanted = ts.open_pyramid(tmp_path / "a.entropy.zarr")
    for to in ("cog", "ome-tiff"):
        made, again = _export(wanted, tmp_path, to)
        _same_pixels(again, wanted)
        assert [c.name for c in again.channels] == ["entropy"]
        assert again.dtype == np.float32
        assert again.mpp == pytest.approx(wanted.mpp)
        assert made.damage == ()


@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_bytes_follow_from_image_and_options(tmp_path: Path, to: Any) -> None:
    pyramid, found = _array((3, 1500, 1400)), set()
    for threads in (1, 3):
        made, _ = _export(pyramid, tmp_path, to, threads=threads)
        found.add(made.path.read_bytes())
    assert len(found) == 1
    options = ExportOptions(to=to)
    assert written_by_us(made.path) == recipe_digest(pyramid.info, options)
    assert recipe_digest(pyramid.info, options) != recipe_digest(pyramid.info, replace(options, codec="zstd"))
    assert recipe_digest(pyramid.info, options) == recipe_digest(pyramid.info, replace(options, quality=10))


@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_colour_profile_and_date_are_kept(tmp_path: Path, to: str) -> None:
    profile = bytes(imagecodecs.cms_profile("srgb"))
    path = tmp_path / "icc.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", iccprofile=profile)
    pyramid = ts.open_pyramid(path)
    made, _ = _export(pyramid, tmp_path, to)
    with tifffile.TiffFile(made.path) as file:
        assert file.pages.first.iccprofile == profile
    for date, wanted in (("2020-02-19T06:44:01Z", "2020:02:19 06:44:01"), ("2020-01/2020-02", None)):
        scene = holed(np.ones((64, 64, 1), np.uint16), np.ones((64, 64), np.bool_), datetime=date)
        made, _ = _export(scene, tmp_path, to)
        with tifffile.TiffFile(made.path) as file:
            assert file.pages.first.tags.valueof(306) == wanted


def test_remote_images_are_read_in_few_requests(tmp_path: Path, http_server: HttpServer) -> None:
    write_slide(http_server.root / "a.svs", Shape(y=1200, x=1500))
    wanted = ts.open_pyramid(http_server.root / "a.svs")
    remote = ts.open_pyramid(f"{http_server.url}/a.svs")
    http_server.log.clear()
    _, again = _export(remote, tmp_path, "cog")
    assert len(http_server.log.requests) < 10, http_server.log.requests
    _same_pixels(again, wanted)


def test_files_of_others_are_not_ours(shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("tilestream")
    assert written_by_us(shared_data / "satellite" / "cogeo.tif") is None
    assert written_by_us(tmp_path / "text") is None
    assert written_by_us(tmp_path) is None


@pytest.mark.parametrize("dtype", ["u8", "i8"])
def test_types_that_cannot_be_reduced(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(ConfigError, match="whole numbers of up to 32 bits"):
        _export(_array(dtype=dtype), tmp_path, "cog")
    assert not list(tmp_path.iterdir())


def test_bool_becomes_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((600, 700)) < 0.5
    _, again = _export(ts.open_pyramid(pixels), tmp_path, "cog")
    np.testing.assert_array_equal(again.read(again.levels[0].box)[0], pixels)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_file_leaks: None) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(ometiff, "encode_directories", full)
    with pytest.raises(OutputError, match="full disk"):
        _export(_array(), tmp_path, "ome-tiff")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(tmp_path: Path, no_thread_leaks: None) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_pyramid(_array(), tmp_path / "a.tif", ExportOptions(to="cog"), on_progress=stop)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_written_over(tmp_path: Path) -> None:
    made, _ = _export(_array(), tmp_path, "cog")
    whole = made.path.read_bytes()

    with pytest.raises(KeyboardInterrupt), durable_path(made.path) as partial:
        raise KeyboardInterrupt
    partial.write_bytes(b"left by a killed process" * 1000)
    made.path.unlink()
    _export(_array(), tmp_path, "cog")
    assert made.path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [made.path]
