from pathlib import Path

import numpy as np
import pytest
import tifffile

from tilestream.testing.scene import BANDS, NODATA, paint_scene, write_scene
from tilestream.testing.slide import reduce_mean, write_slide
from tilestream.testing.tissue import Tissue
from tilestream.types import Box, Shape

openslide = pytest.importorskip("openslide")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "made.svs", Shape(y=1290, x=1511), seed=2, mpp=0.25)


def test_openslide_knows_it_as_aperio(slide: Path) -> None:
    with openslide.OpenSlide(slide) as opened:
        assert opened.properties["openslide.vendor"] == "aperio"
        assert opened.level_dimensions == ((1511, 1290), (377, 322))
        assert float(opened.properties["openslide.mpp-x"]) == 0.25
        assert opened.properties["openslide.objective-power"] == "40"
        assert set(opened.associated_images) == {"thumbnail"}


def test_pixels_are_those_painted(slide: Path) -> None:
    box = Box(y=480, x=700, height=240, width=300)
    painted = Tissue(shape=Shape(y=1290, x=1511), seed=2, mpp=0.25).paint(box)
    stored = tifffile.imread(slide, level=0)[box.slices_yx]
    # chroma at half resolution costs a few grey levels at the rims of nuclei
    assert np.abs(stored.astype(float) - painted).mean() < 4


def test_levels_agree(slide: Path) -> None:
    fine, coarse = tifffile.imread(slide, level=0), tifffile.imread(slide, level=1)
    difference = np.abs(reduce_mean(fine, 4)[: coarse.shape[0], : coarse.shape[1]].astype(float) - coarse)
    assert difference.mean() < 3


def test_identifying_pages_only_when_asked(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "named.svs", Shape(y=300, x=400), identifying=True)
    with openslide.OpenSlide(path) as opened:
        assert {"label", "macro"} <= set(opened.associated_images)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, second = (write_slide(tmp_path / name, Shape(y=500, x=600), seed=4) for name in ("a.svs", "b.svs"))
    assert first.read_bytes() == second.read_bytes()


def test_scene_opens_with_coordinates_and_bands(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = write_scene(tmp_path / "scene.tif", Shape(y=701, x=903), seed=1, gsd_m=20, epsg=32631)
    with rasterio.open(path) as scene:
        assert scene.crs.to_epsg() == 32631
        assert scene.res == (20, 20)
        assert scene.nodata == NODATA
        assert scene.descriptions == BANDS
        assert scene.scales == (0.0001,) * 4
        assert scene.overviews(1) == [2, 4]
        np.testing.assert_array_equal(np.moveaxis(scene.read(), 0, -1), paint_scene(Shape(y=701, x=903), seed=1))


def test_scene_overview_averages_what_is_valid(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "scene.tif", Shape(y=301, x=403))
    with tifffile.TiffFile(path) as tiff:
        full, half = tiff.pages[0].asarray(), tiff.pages[1].asarray()
    assert half.shape == (151, 202, 4)
    squares = full[:300, :402].astype(float).reshape(150, 2, 201, 2, 4)
    valid = (squares != NODATA).sum(axis=(1, 3))
    mean = squares.sum(axis=(1, 3)) / np.maximum(valid, 1)
    assert np.abs(half[:150, :201] - mean).max() <= 0.5
    assert (half[:150, :201] == NODATA)[valid == 0].all()
    assert (valid == 0).any()
    np.testing.assert_array_equal(half[150, 201], full[300, 402])
