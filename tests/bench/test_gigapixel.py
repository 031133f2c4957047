from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from tests.bench.gigapixel import FACTOR, read_block, shape_of, write_gigapixel
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.testing.slide import reduce_mean, write_slide
from tilestream.types import Box, Shape

SHAPE = Shape(y=5003, x=6007)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("small") / "made.svs", Shape(y=1000, x=1000), seed=1)


@pytest.fixture(scope="module", params=["made", "real"])
def big(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    small = made
    if request.param == "real":
        small = request.getfixturevalue("shared_data") / "slides" / "CMU-1-Small-Region.svs"
    return write_gigapixel(tmp_path_factory.mktemp("big") / "big.svs", SHAPE, slide=small)


def test_openslide_sees_an_aperio_pyramid(big: Path) -> None:
    with openslide.OpenSlide(big) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.level_dimensions == ((6007, 5003), (1501, 1250), (375, 312))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5, abs=0.01)


def test_a_sparse_one_has_a_quarter_of_the_tiles(tmp_path: Path, made: Path) -> None:
    sparse = write_gigapixel(tmp_path / "sparse.svs", Shape(y=60_000, x=60_000), slide=made, is_sparse=True)
    with tifffile.TiffFile(sparse) as tiff:
        there = np.array(tiff.pages.first.databytecounts) > 0
    assert 0.2 < there.mean() < 0.3
    region = open_pyramid(sparse).read_region(Box(level=0, y=64 * 240 - 100, x=0, height=200, width=50))
    assert region.valid is not None
    assert region.valid[:100].all()
    assert not region.valid[100:].any()


def test_levels_are_the_means_of_the_level_below(big: Path) -> None:
    with tifffile.TiffFile(big) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
    assert [level.shape[:2] for level in levels] == [(5003, 6007), (1250, 1501), (312, 375)]
    for fine, coarse in pairwise(levels):
        difference = np.abs(reduce_mean(fine, FACTOR).astype(float) - coarse)
        # JPEG at quality 98 of the coarse level, rounding of both
        assert difference.mean() < 2
        assert np.percentile(difference, 99) < 10
        # and not by being empty: a shift by one pixel would be seen
        assert np.abs(np.roll(coarse, 1, axis=0).astype(float) - coarse).mean() > 2


def test_level_0_repeats_the_pixels_of_the_small_slide(big: Path, made: Path, request: pytest.FixtureRequest) -> None:
    small = made
    if "real" in request.node.callspec.id:
        small = request.getfixturevalue("shared_data") / "slides" / "CMU-1-Small-Region.svs"
    with tifffile.TiffFile(big) as tiff:
        page = tiff.pages.first
        pixels, tiles = page.asarray(), len(page.dataoffsets)
    block = read_block(small).pixels
    assert tiles == 21 * 26
    y, x = np.arange(SHAPE.y) % block.shape[0], np.arange(SHAPE.x) % block.shape[1]
    np.testing.assert_array_equal(pixels, block[y[:, None], x[None, :]])


def test_openslide_and_tifffile_decode_the_same(big: Path) -> None:
    region = np.asarray(openslide.OpenSlide(big).read_region((3000, 2000), 0, (700, 500)))[..., :3]
    stored = tifffile.imread(big, level=0)[2000:2500, 3000:3700]
    assert np.abs(region.astype(int) - stored).mean() < 1


def test_a_hundred_thousand_squared_is_a_few_megabytes(tmp_path: Path, made: Path) -> None:
    path = write_gigapixel(tmp_path / "huge.svs", shape_of(10), slide=made)
    assert path.stat().st_size < 8e6
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (100_000, 100_000)
        last = np.asarray(slide.read_region((99_800, 99_800), 0, (200, 200)))[..., :3]
        assert last.std() > 0


def test_another_slide_must_be_tiled_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.zeros((50, 50, 3), np.uint8))
    with pytest.raises(SystemExit, match="expected square JPEG tiles"):
        read_block(path)


def test_our_own_source_reads_it(big: Path) -> None:
    pyramid = open_pyramid(big)
    assert [level.shape.yx for level in pyramid.levels] == [(5003, 6007), (1250, 1501), (312, 375)]
    assert pyramid.info.format == "aperio-svs"
    for level in range(3):
        box = Box(level=level, y=100, x=130, height=200, width=230)
        stored = tifffile.imread(big, level=level)[box.slices_yx]
        np.testing.assert_array_equal(pyramid.read(box), stored.transpose(2, 0, 1))
