"""Real files of all families but TIFF against the readers that others trust: every level, every pixel, windows."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest
import rasterio
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.assembled import whole_level
from tilestream.pyramid import open_pyramid
from tilestream.sources.opening import open_source
from tilestream.types import Box

NDPI = "slides/test3-DAPI-2-387.ndpi"
DICOM = "slides/dicom-cmu-1-small-region"
SMALL_DICOM = "slides/dicom-annotated/sm_image_control.dcm"
J2K_DICOM = "slides/camelyon-jpeg2000.dcm"
JP2 = "satellite/S2_L2A_19UDP_20170729_TCI.jp2"
JPEG = "photos/bluemarble_5400x2700.jpg"
SCENE = "satellite/S2A_29RKH_20200219_0_L2A"
ZARRS = {
    "zarr/exemplar-001.crop.image.ome.zarr": ("0", "1", "2", "3", "4"),
    "zarr/exemplar-001.crop.segmentations.ome.zarr": ("0", "1", "2", "3", "4"),
    "zarr/skimage-2dt.image.ome.zarr": ("s0", "s1", "s2"),
    "zarr/skimage-2dt.segmentation.ome.zarr": ("s0", "s1", "s2"),
    "zarr/blobs_multiscale_image.v05.ome.zarr": ("s0", "s1", "s2"),
}
ALL = (NDPI, DICOM, SMALL_DICOM, J2K_DICOM, JP2, JPEG, SCENE, *ZARRS)


def png_files(folder: Path) -> list[Path]:
    return sorted([*(folder / "photos").glob("*.png"), *(folder / "slides" / "labelled-tiles").glob("*.png")])


def reference_of(shared_data: Path, name: str, level: int):
    """Whole level `(y, x, c)` by the reference reader."""
    path = shared_data / name
    if name == NDPI:
        with openslide.OpenSlide(path) as slide:
            whole = slide.read_region((0, 0), level, slide.level_dimensions[level])
            return np.asarray(whole)[..., :3]
    if name == J2K_DICOM:
        with openslide.OpenSlide(path) as slide:
            return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))[..., :3]
    if name in ZARRS:
        stored = zarr.open_array(path / ZARRS[name][level], mode="r")[:]
        return (stored[:1] if "2dt" in name else stored).transpose(1, 2, 0)
    if name == JPEG:
        return imagecodecs.jpeg8_decode(path.read_bytes())
    with rasterio.open(path) as scene:
        return scene.read().transpose(1, 2, 0)


@pytest.mark.parametrize("name", [NDPI, J2K_DICOM, JP2, JPEG, *ZARRS])
def test_every_pixel_of_every_level(shared_data, name):
    source = open_source(str(shared_data / name))
    for level in source.info.levels:
        pixels, valid, damage = whole_level(source, level.index)
        assert not damage
        assert valid.all()
        np.testing.assert_array_equal(pixels, reference_of(shared_data, name, level.index))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_every_pixel_of_every_png(shared_data):
    files = png_files(shared_data)
    assert len(files) == 26
    for path in files:
        with rasterio.open(path) as image:
            expected = image.read().transpose(1, 2, 0)
        pixels, valid, _ = whole_level(open_source(str(path)))
        np.testing.assert_array_equal(pixels, expected[..., :3])
        assert valid.all() == (expected.shape[2] == 3 or (expected[..., 3] > 0).all())


def test_uncompressed_dicom(shared_data):
    path = shared_data / SMALL_DICOM
    frames = pydicom.dcmread(path).pixel_array
    expected = frames.reshape(5, 5, 10, 10, 3).transpose(0, 2, 1, 3, 4).reshape(50, 50, 3)
    np.testing.assert_array_equal(whole_level(open_source(str(path)))[0], expected)


def test_mistagged_dicom_is_the_slide(shared_data):
    source = open_source(str(shared_data / DICOM))
    slide = tifffile.imread(shared_data / "slides/CMU-1-Small-Region.svs", key=0)
    error = np.abs(whole_level(source)[0].astype(int) - slide).mean()
    assert error <= 4
    assert any("RGB" in note and "YCbCr" in note for note in source.info.notes)


def test_mistagged_dicom_every_level_against_its_streams(shared_data):
    """Each frame is what the JPEG library makes of it, placed where TILED_FULL says."""
    source = open_source(str(shared_data / DICOM))
    files = {}
    for path in (shared_data / DICOM).glob("*.dcm"):
        with pydicom.config.disable_value_validation():
            header = pydicom.dcmread(path)
        files[header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns] = header
    assert len(files) == len(source.info.levels) == 12
    for level in source.info.levels:
        header = files[level.shape.yx]
        frames = pydicom.encaps.generate_frames(header.PixelData, number_of_frames=int(header.NumberOfFrames))
        pixels, _, damage = whole_level(source, level.index)
        assert not damage
        for number, frame in enumerate(frames):
            y, x = (n * edge for n, edge in zip(divmod(number, level.blocks.x), level.block.yx, strict=True))
            part = pixels[y : y + level.block.y, x : x + level.block.x]
            np.testing.assert_array_equal(part, imagecodecs.jpeg8_decode(frame)[: part.shape[0], : part.shape[1]])


def test_headers_parse_in_threads_without_a_complaint(shared_data):
    """Warnings are errors here, and pydicom's switch that silences those on odd UIDs is global."""
    path = str(shared_data / DICOM)
    with ThreadPoolExecutor(4) as pool:
        infos = list(pool.map(lambda _: open_source(path).info, range(12)))
    assert all(info == infos[0] for info in infos)


def test_what_is_known_of_the_slides(shared_data):
    ndpi = open_source(str(shared_data / NDPI)).info
    assert (ndpi.format, ndpi.modality, len(ndpi.levels)) == ("openslide-hamamatsu", "fluorescence", 7)
    assert ndpi.mpp == pytest.approx(0.22817, abs=1e-5)
    assert ndpi.associated == ()  # it has a macro image, which is never offered
    dicom = open_source(str(shared_data / DICOM)).info
    assert dicom.mpp == pytest.approx(0.499)
    assert [level.scale_yx[0] for level in dicom.levels] == [2.0**n for n in range(12)]
    assert open_source(str(shared_data / J2K_DICOM)).info.mpp_yx == (28.968, 28.969)


def test_nothing_of_a_patient_is_in_the_record(shared_data):
    secrets = set()
    for name in (J2K_DICOM, SMALL_DICOM):
        header = pydicom.dcmread(shared_data / name, stop_before_pixels=True)
        for field in ("PatientName", "PatientID", "BarcodeValue", "AccessionNumber", "ContainerIdentifier"):
            secrets |= {str(header.get(field))} if header.get(field) else set()
        text = pickle.dumps(open_source(str(shared_data / name))) + repr(open_source(str(shared_data / name))).encode()
        assert len(secrets) > 1
        assert not [secret for secret in secrets if len(secret) > 3 and secret.encode() in text]


def test_jp2_has_its_place(shared_data):
    info = open_source(str(shared_data / JP2)).info
    with rasterio.open(shared_data / JP2) as scene:
        assert info.crs == f"EPSG:{scene.crs.to_epsg()}"
        assert info.affine == pytest.approx(tuple(scene.transform)[:6])


def test_zarr_says_what_it_is(shared_data):
    image = open_source(str(shared_data / "zarr/exemplar-001.crop.image.ome.zarr")).info
    assert [channel.name for channel in image.channels] == ["DNA", "FDX1", "CD1D", "CD357"]
    assert image.levels[2].scale_yx == pytest.approx((4.032258, 4.032258))
    assert image.format == "ome-zarr-0.4"
    assert open_source(str(shared_data / "zarr/skimage-2dt.segmentation.ome.zarr")).info.kind == "labels"
    cells = str(shared_data / "zarr/exemplar-001.crop.segmentations.ome.zarr")
    assert open_source(cells).info.kind == "intensity"
    assert any("#kind=labels" in note for note in open_source(cells).info.notes)
    assert open_source(cells + "#kind=labels").info.kind == "labels"


def test_time_is_selected(shared_data):
    path = shared_data / "zarr/skimage-2dt.image.ome.zarr"
    source = open_source(f"{path}#t=3")
    expected = zarr.open_array(path / "s1", mode="r")[3]
    np.testing.assert_array_equal(whole_level(source, 1)[0][..., 0], expected)
    assert source.info.selection == {"t": 3}
    assert not any("axis t" in note for note in source.info.notes)
    assert any("axis t" in note for note in open_source(str(path)).info.notes)


def test_scene_of_bands(shared_data):
    source = open_source(str(shared_data / SCENE))
    names = {"coastal": ("B01", 6), "blue": ("B02", 1), "green": ("B03", 1), "red": ("B04", 1), "nir": ("B08", 1)}
    names["swir16"] = ("B11", 2)
    assert [channel.name for channel in source.info.channels] == list(names)
    assert source.info.channels[0].scale == 0.0001
    pixels, valid, damage = whole_level(source)
    assert not damage
    every = np.ones(source.info.shape.yx, bool)
    for number, (file, factor) in enumerate(names.values()):
        with rasterio.open(shared_data / SCENE / f"{file}.tif") as band:
            expected = np.kron(band.read(1), np.ones((factor, factor), np.uint16))
        every &= expected != 0
        np.testing.assert_array_equal(pixels[..., number][valid], expected[valid])
    np.testing.assert_array_equal(valid, every)
    with rasterio.open(shared_data / SCENE / "B11.tif") as band:  # its level 0 is the scene's level 1
        np.testing.assert_array_equal(whole_level(source, 1)[0][..., 5], band.read(1))
    assert [band.name for band in source.info.classes] == ["SCL"]


@given(data=st.data())
def test_windows_across_blocks_and_edges(shared_data, data):
    name = data.draw(st.sampled_from([NDPI, J2K_DICOM, "zarr/exemplar-001.crop.image.ome.zarr"]))
    pyramid = open_pyramid(str(shared_data / name))
    level = data.draw(st.sampled_from(pyramid.levels[:4]))
    y, x = data.draw(st.integers(-20, level.shape.y + 10)), data.draw(st.integers(-20, level.shape.x + 10))
    box = Box(level=level.index, y=y, x=x, height=data.draw(st.integers(1, 80)), width=data.draw(st.integers(1, 80)))
    region = pyramid.read_region(box)
    padded = np.zeros((box.height, box.width, len(pyramid.channels)), pyramid.dtype)
    inside = box.intersect(level.box)
    if inside.height and inside.width:
        whole = _cached_reference(shared_data, name, level.index)
        padded[inside.y - y : inside.y_stop - y, inside.x - x : inside.x_stop - x] = whole[inside.slices_yx]
    np.testing.assert_array_equal(region.pixels.transpose(1, 2, 0), padded)


_references: dict[tuple[str, int], np.ndarray] = {}


def _cached_reference(shared_data, name, level):
    if (name, level) not in _references:
        _references[name, level] = reference_of(shared_data, name, level)
    return _references[name, level]


@pytest.mark.parametrize("name", ALL)
def test_pickles_small_and_reads_on_the_other_side(shared_data, name):
    source = open_source(str(shared_data / name))
    assert len(pickle.dumps(source)) < 8192
    again = pickle.loads(pickle.dumps(source))
    assert again.info == source.info
    np.testing.assert_array_equal(again.read_block(0, 0, 0).pixels, source.read_block(0, 0, 0).pixels)


def _first_block(source, queue):
    queue.put(int(source.read_block(0, 0, 0).pixels.astype(np.int64).sum()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("name", ALL)
def test_a_forked_child_reads(shared_data, name):
    """The parent has read before it forks; its handles, locks and event loop must not be used by the child."""
    source = open_source(str(shared_data / name))
    expected = int(source.read_block(0, 0, 0).pixels.astype(np.int64).sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_first_block, args=(source, queue))
    child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.join(10)
        child.kill()


@pytest.mark.parametrize("name", [NDPI, DICOM, "zarr/skimage-2dt.image.ome.zarr"])
def test_threads_read_the_same(shared_data, name):
    source = open_source(str(shared_data / name))
    blocks = source.info.levels[0].blocks
    cells = [(iy, ix) for iy in range(blocks.y) for ix in range(blocks.x)][:8] * 4
    expected = {cell: source.read_block(0, *cell).pixels for cell in set(cells)}
    barrier = threading.Barrier(4)

    def read(part):
        barrier.wait()
        return [np.array_equal(source.read_block(0, *cell).pixels, expected[cell]) for cell in part]

    with ThreadPoolExecutor(4) as pool:
        assert all(all(found) for found in pool.map(read, [cells[n::4] for n in range(4)]))
