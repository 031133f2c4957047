"""Every readable file of the real images, every level, against the reader with the same decoder, through `read`."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pydicom
import pytest
import rasterio
import tifffile
import zarr
from rasterio.windows import Window

from tilestream.errors import DamagedError, SourceError
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.sources.discovery import find_inputs
from tilestream.types import Box, Level

Reference = Callable[[Path, Level, Box], np.ndarray]
"""Pixels `(y, x, c)` of a box inside a level."""

WINDOWS = 12
WHOLE_PX = 20_000_000
"""Levels up to this size are compared as a whole too, with a frame of what lies outside."""


def by_tifffile(path: Path, level: Level, box: Box) -> np.ndarray:
    """Tiled JPEG, of which tifffile and we ask the same decoder; pages of overviews are levels, masks are not."""
    return _tiff_level(path, level.index)[box.slices_yx]


@functools.lru_cache(2)
def _tiff_level(path: Path, index: int) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        pages = [page for page in file.pages if not page.subfiletype & 4]
        return np.asarray(pages[index].asarray())


def by_fax(path: Path, level: Level, box: Box) -> np.ndarray:
    """Fax, in which 0 is white: tifffile gives what is stored, we what is seen."""
    return ~_tiff_level(path, 0)[..., None][box.slices_yx]


def by_rasterio(path: Path, level: Level, box: Box) -> np.ndarray:
    """Lossless scenes and JP2; overviews as stored."""
    return _raster(path, level.index, box)


def by_rasterio_without_alpha(path: Path, level: Level, box: Box) -> np.ndarray:
    """As `by_rasterio`, its last band being validity."""
    return _raster(path, level.index, box)[..., :3]


def _raster(path: Path, level: int, box: Box) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        options = {} if level == 0 else {"overview_level": level - 1}
        with rasterio.open(path, **options) as scene:
            return np.moveaxis(scene.read(window=Window(box.x, box.y, box.width, box.height)), 0, 2)


S2_BANDS = {  # level of the band's file and how often a pixel of it is repeated, for each level of the scene
    "B01": ((0, 6), (0, 3), (1, 3)),
    **dict.fromkeys(("B02", "B03", "B04", "B08"), ((0, 1), (1, 1), (2, 1))),
    "B11": ((0, 2), (0, 1), (1, 1)),
}


def by_rasterio_bands(path: Path, level: Level, box: Box) -> np.ndarray:
    """A folder of bands; coarser ones repeated, and a pixel that lacks a band (0 is nodata) 0 in all."""
    bands = []
    for name, steps in S2_BANDS.items():
        stored, times = steps[level.index]
        whole = Box(level=stored, y=0, x=0, height=-(-level.shape.y // times), width=-(-level.shape.x // times))
        pixels = _raster(path / f"{name}.tif", stored, whole)[..., 0]
        bands.append(pixels.repeat(times, axis=0).repeat(times, axis=1)[: level.shape.y, : level.shape.x])
    scene = np.stack(bands, axis=2)[box.slices_yx]
    return np.where((scene != 0).all(axis=2, keepdims=True), scene, 0)


def by_openslide(path: Path, level: Level, box: Box) -> np.ndarray:
    """What OpenSlide alone reads."""
    scale = round(level.scale_yx[1])
    with openslide.OpenSlide(path) as slide:
        at = box.x * scale, box.y * scale
        return np.asarray(slide.read_region(at, level.index, (box.width, box.height)))[..., :3]


def by_zarr(path: Path, level: Level, box: Box) -> np.ndarray:
    """The array that the multiscale names, its first time."""
    group = zarr.open_group(path, mode="r")
    described = group.attrs.get("ome", group.attrs)
    array = zarr.open_array(path / described["multiscales"][0]["datasets"][level.index]["path"], mode="r")
    return np.moveaxis(array[(..., *box.slices_yx)].reshape(-1, box.height, box.width), 0, 2)[..., : _channels(array)]


def _channels(array: zarr.Array) -> int:
    return 1 if array.shape[0] == 10 else array.shape[0]  # ten times, the first of which is chosen


def by_imagecodecs(path: Path, level: Level, box: Box) -> np.ndarray:
    """PNG and JPEG without tiles."""
    return _picture(path)[box.slices_yx]


@functools.lru_cache(1)
def _picture(path: Path) -> np.ndarray:
    decode = imagecodecs.jpeg8_decode if path.suffix == ".jpg" else imagecodecs.png_decode
    return np.asarray(decode(path.read_bytes()))[..., :3]


def by_pydicom(path: Path, level: Level, box: Box) -> np.ndarray:
    """Frames taken apart by pydicom, decoded by imagecodecs: JPEG as JFIF says, whatever the header claims."""
    return _dicom_level(path, level)[box.slices_yx]


@functools.lru_cache(1)
def _dicom_level(path: Path, level: Level) -> np.ndarray:
    for file in sorted(path.glob("*.dcm")) if path.is_dir() else [path]:
        header = pydicom.dcmread(file)
        if (header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns) == level.shape.yx:
            break
    frames = header.pixel_array if not header.file_meta.TransferSyntaxUID.is_compressed else _frames(header)
    rows, columns = header.Rows, header.Columns
    across = -(-level.shape.x // columns)
    whole = np.zeros((-(-level.shape.y // rows) * rows, across * columns, 3), np.uint8)
    for number, frame in enumerate(frames):
        y, x = rows * (number // across), columns * (number % across)
        whole[y : y + rows, x : x + columns] = frame
    return whole[: level.shape.y, : level.shape.x]


def _frames(header: pydicom.Dataset) -> list[np.ndarray]:
    streams = pydicom.encaps.generate_frames(header.PixelData, number_of_frames=int(header.NumberOfFrames))
    return [imagecodecs.jpeg8_decode(s) if s[:2] == b"\xff\xd8" else imagecodecs.jpeg2k_decode(s) for s in streams]


def by_strips(path: Path, level: Level, box: Box) -> np.ndarray:
    """Raw strips of one band after the other, of which no reader makes sense; the table of them is sound."""
    data = path.read_bytes()
    sizes, offsets = (np.frombuffer(data, "<u4", 39, at) for at in (204, 360))
    stream = b"".join(data[at : at + size] for at, size in zip(offsets, sizes, strict=True))
    return np.moveaxis(np.frombuffer(stream, np.uint8).reshape(3, *level.shape.yx), 0, 2)[box.slices_yx]


def by_the_good_copy(path: Path, level: Level, box: Box) -> np.ndarray:
    """The same file before two of its bytes were changed."""
    return by_tifffile(path.parents[1] / "satellite" / "cogeo.tif", level, box)


TABLE: dict[str, Reference] = {
    "broken/corrupt.tif": by_the_good_copy,
    "broken/tiff_overflow_rows_per_strip.tif": by_strips,
    "broken/total-pages-zero.tif": by_fax,
    "photos/bluemarble_5400x2700.jpg": by_imagecodecs,
    **{f"photos/kodim{number:02}.png": by_imagecodecs for number in range(1, 17)},
    "satellite/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif": by_rasterio,
    "satellite/LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF": by_rasterio,
    "satellite/RGB.byte.tif": by_rasterio,
    "satellite/S2A_29RKH_20200219_0_L2A": by_rasterio_bands,
    "satellite/S2_L2A_19UDP_20170729_TCI.jp2": by_rasterio,
    "satellite/cog_nodata.tif": by_rasterio,
    "satellite/cog_nodata_nan.tif": by_rasterio,
    "satellite/cog_scale_epsg4326.tif": by_rasterio,
    "satellite/cog_world.tif": by_rasterio,
    "satellite/cogeo.tif": by_tifffile,
    "satellite/colorado_15cm_mask.tif": by_rasterio,
    "satellite/pix4d_alpha_nodata.tif": by_rasterio_without_alpha,
    "slides/CMU-1-Small-Region.svs": by_tifffile,
    "slides/OS-1-detail.ome.tif": by_tifffile,
    "slides/OS-2-ndpi.ome.tif": by_tifffile,
    "slides/camelyon-jpeg2000.dcm": by_pydicom,
    "slides/dicom-annotated/sm_image_control.dcm": by_pydicom,
    "slides/dicom-cmu-1-small-region": by_pydicom,
    **{
        f"slides/labelled-tiles/{name}.png": by_imagecodecs
        for name in (
            "almost-white-1",
            "diagnostic-slide-thumb-rgb",
            "high-nuclei-score-level0",
            "low-nuclei-score-level0",
            "medium-nuclei-score-level1",
            "no-tissue",
            "no-tissue-red-pen",
            "no-tissue2",
            "tcga-red-pen",
            "very-low-nuclei-score-level0",
        )
    },
    "slides/test3-DAPI-2-387.ndpi": by_openslide,
    "zarr/blobs_multiscale_image.v05.ome.zarr": by_zarr,
    "zarr/exemplar-001.crop.image.ome.zarr": by_zarr,
    "zarr/exemplar-001.crop.segmentations.ome.zarr": by_zarr,
    "zarr/skimage-2dt.image.ome.zarr": by_zarr,
    "zarr/skimage-2dt.segmentation.ome.zarr": by_zarr,
}
LEVELS = {
    **dict.fromkeys(("satellite/cogeo.tif", "broken/corrupt.tif", "satellite/cog_world.tif"), 7),
    "slides/test3-DAPI-2-387.ndpi": 7,
    "slides/dicom-cmu-1-small-region": 12,
    "satellite/LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF": 5,
    **dict.fromkeys(("satellite/cog_nodata.tif", "satellite/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif"), 4),
    "satellite/S2A_29RKH_20200219_0_L2A": 3,
    "satellite/cog_nodata_nan.tif": 2,
    **dict.fromkeys(("zarr/exemplar-001.crop.image.ome.zarr", "zarr/exemplar-001.crop.segmentations.ome.zarr"), 5),
    **dict.fromkeys(("zarr/skimage-2dt.image.ome.zarr", "zarr/skimage-2dt.segmentation.ome.zarr"), 3),
    "zarr/blobs_multiscale_image.v05.ome.zarr": 3,
}
"""Levels that a file stores, 1 where it is not named; so that none is left out of the comparison."""
DAMAGED = {"broken/corrupt.tif": Box(level=0, y=512, x=512, height=512, width=512)}


def boxes(level: Level, seed: int) -> Iterator[Box]:
    """Corners, block edges, places at random and outside, and all of a level that is not too large."""
    rng = np.random.default_rng(seed)
    (height, width), block = level.shape.yx, level.block
    edges = [
        (-5, -9),
        (height - 7, width - 4),
        (-3, width - 11),
        (block.y - 6, block.x - 3),
        ((level.blocks.y - 1) * block.y - 2, (level.blocks.x // 2) * block.x - 8),
        (height + 2, width + 3),
    ]
    for y, x in edges:
        yield Box(level=level.index, y=y, x=x, height=int(rng.integers(9, 40)), width=int(rng.integers(9, 40)))
    for _ in range(WINDOWS - len(edges)):
        y, x = int(rng.integers(-20, height)), int(rng.integers(-20, width))
        yield Box(level=level.index, y=y, x=x, height=int(rng.integers(1, 600)), width=int(rng.integers(1, 600)))
    if level.shape.area <= WHOLE_PX:
        yield Box(level=level.index, y=-1, x=-2, height=height + 3, width=width + 3)


def expected_of(path: Path, pyramid: Pyramid, box: Box, reference: Reference) -> np.ndarray:
    """The box by the reference, 0 outside the image."""
    level = pyramid.levels[box.level]
    inside = box.intersect(level.box)
    expected = np.zeros((box.height, box.width, len(pyramid.channels)), pyramid.dtype)
    if inside.height and inside.width:
        rows = slice(inside.y - box.y, inside.y_stop - box.y)
        expected[rows, inside.x - box.x : inside.x_stop - box.x] = reference(path, level, inside)
    return expected.transpose(2, 0, 1)


def test_every_file_that_opens_is_in_the_table(shared_data: Path) -> None:
    readable = set()
    for found in find_inputs([shared_data]):
        if found.state == "input":
            try:
                open_pyramid(found.path)
            except SourceError:
                assert found.relative.startswith("broken/"), found.relative
                continue
            readable.add(found.relative)
    assert readable == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_every_level_is_bit_equal(shared_data: Path, name: str) -> None:
    path = shared_data / name
    pyramid = open_pyramid(path)
    nothing = Box(y=0, x=0, height=0, width=0)
    assert len(pyramid.levels) == LEVELS.get(name, 1)
    for level in pyramid.levels:
        for box in boxes(level, seed=level.index):
            expected = expected_of(path, pyramid, box, TABLE[name])
            hurt = DAMAGED.get(name, nothing)
            overlap = box.intersect(hurt) if hurt.level == box.level else nothing
            if overlap.height and overlap.width:
                with pytest.raises(DamagedError, match="block y=1 x=1 of level 0"):
                    pyramid.read(box)
                found = pyramid.read_region(box).pixels
                rows = slice(overlap.y - box.y, overlap.y_stop - box.y)
                expected[:, rows, overlap.x - box.x : overlap.x_stop - box.x] = 0
            else:
                found = pyramid.read(box)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected, err_msg=f"{box}")


@pytest.mark.parametrize("page", [1, 2])
def test_other_pages_and_times_are_read_too(shared_data: Path, page: int) -> None:
    fax = shared_data / "broken" / "total-pages-zero.tif"
    with tifffile.TiffFile(fax) as file:
        expected = ~file.pages[page].asarray()
    chosen = open_pyramid(fax).isel(page=page)
    np.testing.assert_array_equal(chosen.read(chosen.levels[0].box)[0], expected)
    cells = shared_data / "zarr" / "skimage-2dt.segmentation.ome.zarr"
    late = open_pyramid(cells).isel(t=page * 4)
    np.testing.assert_array_equal(late.read(late.levels[1].box)[0], zarr.open_array(cells / "s1", mode="r")[page * 4])
