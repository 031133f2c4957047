"""JPEG tiles that are copied are the same bytes, and everything beside them is as it would be without copying."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from rio_cogeo.cogeo import cog_validate

import tilestream as ts
from tests.pipelines.holed import holed as holed_pyramid
from tilestream.errors import ConfigError
from tilestream.pipelines.export_form import ExportOptions
from tilestream.pipelines.export_image import Exported, export_pyramid
from tilestream.pyramid.pyramid import Pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TARGETS = ["cog", "ome-tiff"]
REAL = [
    "slides/CMU-1-Small-Region.svs",
    "slides/OS-1-detail.ome.tif",
    "slides/OS-2-ndpi.ome.tif",
    "satellite/cogeo.tif",
]


def _copy(pyramid: Pyramid, folder: Path, to: Any) -> tuple[Exported, Pyramid]:
    made = export_pyramid(pyramid, folder / f"made.{to}.tif", ExportOptions(to=to, codec="copy"))
    return made, ts.open_pyramid(made.path)


def _scans(page: Any) -> list[bytes]:
    """Return the entropy-coded data of each tile of a page."""
    handle = page.parent.filehandle
    found = []
    for offset, nbytes in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        data = handle.read(nbytes)
        found.append(data[data.index(b"\xff\xda") :])
    return found


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data: Path, tmp_path: Path, name: str, to: str) -> None:
    wanted = ts.open_pyramid(shared_data / name)
    made, again = _copy(wanted, tmp_path, to)
    assert (made.notes, made.damage) == ((), ())
    with tifffile.TiffFile(shared_data / name) as source, tifffile.TiffFile(made.path) as copy:
        assert _scans(copy.pages.first) == _scans(source.pages.first)
        np.testing.assert_array_equal(copy.pages.first.asarray(), source.pages.first.asarray())
    box = wanted.levels[0].box
    np.testing.assert_array_equal(again.read(box), wanted.read(box))
    if to == "cog":
        assert cog_validate(made.path, strict=True) == (True, [], [])
    with openslide.OpenSlide(made.path) as slide:
        region = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]
    np.testing.assert_array_equal(region, wanted.read(box).transpose(1, 2, 0))


@pytest.mark.parametrize("tile_px", [240, 256])
def test_levels_that_are_made_are_near_those_of_the_kernel(tmp_path: Path, tile_px: int) -> None:
    wanted = ts.open_pyramid(write_slide(tmp_path / "a.svs", Shape(y=1300, x=1500), tile_px=tile_px))
    _, again = _copy(wanted, tmp_path, "ome-tiff")
    assert again.levels[0].block.yx == (tile_px, tile_px)
    assert max(again.levels[-1].shape.yx) <= tile_px
    exact = ts.kernels.mip(wanted.read(wanted.levels[0].box), levels=len(again.levels) - 1)
    for level, pixels in zip(again.levels[1:], exact, strict=True):
        assert np.abs(again.read(level.box).astype(int) - pixels).mean() < 3


def test_stored_levels_of_half_size_are_copied_too(tmp_path: Path) -> None:
    path = tmp_path / "own.tif"
    generator = np.random.default_rng(0)
    options = {"tile": (256, 256), "compression": "jpeg", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as file:
        for number, edge in enumerate((1000, 500)):
            file.write(generator.integers(0, 255, (edge, edge, 3), np.uint8), subfiletype=int(number > 0), **options)
    made, _ = _copy(ts.open_pyramid(path), tmp_path, "cog")
    with tifffile.TiffFile(path) as source, tifffile.TiffFile(made.path) as copy:
        assert [page.shape[0] for page in copy.pages] == [1000, 500, 250]
        for number in (0, 1):
            assert _scans(copy.pages[number]) == _scans(source.pages[number])


@pytest.fixture
def holed(tmp_path: Path) -> Pyramid:
    """A slide of which tile 1, 2 is not stored and tile 0, 1 is damaged."""
    path = write_slide(tmp_path / "holed.svs", Shape(y=700, x=900), tile_px=256)
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages.first
        counts = list(page.databytecounts)
        file.filehandle.seek(page.dataoffsets[1])
        file.filehandle.write(b"no JPEG")
        counts[6] = 0
        page.tags[325].overwrite(counts)
    return ts.open_pyramid(path)


@pytest.mark.parametrize("to", TARGETS)
def test_tiles_that_are_damaged_or_not_stored(holed: Pyramid, tmp_path: Path, to: str) -> None:
    made, again = _copy(holed, tmp_path, to)
    (reason,) = made.damage
    assert "block y=0 x=1 of level 0" in reason
    seen, wanted = again.read_region(again.levels[0].box), holed.read_region(holed.levels[0].box)
    np.testing.assert_array_equal(seen.pixels[:, wanted.valid], wanted.pixels[:, wanted.valid])
    if to == "cog":
        np.testing.assert_array_equal(seen.valid, wanted.valid)
        assert cog_validate(made.path, strict=True)[0]
    else:
        assert (seen.pixels[:, :256, 256:512] == 0).all()
        assert (seen.pixels[:, 256:512, 512:768] == 255).all()


@pytest.mark.parametrize("to", TARGETS)
def test_an_archive_gives_back_the_streams_of_its_source(shared_data: Path, tmp_path: Path, to: str) -> None:
    name = "slides/CMU-1-Small-Region.svs"
    ts.build_pyramid(shared_data / name, tmp_path / "a.zarr", profile="archive")
    wanted = ts.open_pyramid(tmp_path / "a.zarr")
    made, again = _copy(wanted, tmp_path, to)
    assert (made.notes, made.damage) == ((), ())
    with tifffile.TiffFile(shared_data / name) as source, tifffile.TiffFile(made.path) as copy:
        assert _scans(copy.pages.first) == _scans(source.pages.first)
        np.testing.assert_array_equal(copy.pages.first.asarray(), source.pages.first.asarray())
    assert again.mpp == pytest.approx(wanted.mpp)


def test_a_flipped_bit_in_an_archive_is_damage(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.svs", Shape(y=700, x=900), tile_px=256)
    ts.build_pyramid(slide, tmp_path / "a.zarr", profile="archive")
    shard = tmp_path / "a.zarr" / "0" / "image" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[data.index(b"\xff\xda") + 2000] ^= 1
    shard.write_bytes(data)
    made, again = _copy(ts.open_pyramid(tmp_path / "a.zarr"), tmp_path, "cog")
    (reason,) = made.damage
    assert "checksum" in reason.lower() or "CRC" in reason
    assert 0 < again.read_region(again.levels[0].box).valid.mean() < 1


def test_masks_are_kept_beside_copies(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(50, 200, (900, 800, 3), np.uint8)
    valid = np.ones((900, 800), np.bool_)
    valid[100:300, 200:700] = False
    masked = holed_pyramid(pixels, valid, names=("R", "G", "B"))
    first = export_pyramid(masked, tmp_path / "jpeg.tif", ExportOptions(to="cog", codec="jpeg"))
    wanted = ts.open_pyramid(first.path)
    made, again = _copy(wanted, tmp_path, "cog")
    for level in wanted.levels:
        one, other = again.read_region(level.box), wanted.read_region(level.box)
        np.testing.assert_array_equal(one.valid, other.valid)
        np.testing.assert_array_equal(one.pixels, other.pixels)
    with tifffile.TiffFile(first.path) as source, tifffile.TiffFile(made.path) as copy:
        assert _scans(copy.pages.first) == _scans(source.pages.first)
    assert cog_validate(made.path, strict=True)[0]
    made, again = _copy(wanted, tmp_path, "ome-tiff")
    assert any("coded anew" in note for note in made.notes)
    assert any("not measured" in note for note in made.notes)
    assert (again.read(again.levels[0].box)[:, 150:250, 250:650] < 5).all()


def test_channels_of_grey_are_copied_into_planes(tmp_path: Path) -> None:
    path = tmp_path / "grey.ome.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (2, 600, 500), np.uint8)
    options = {"tile": (128, 128), "compression": "jpeg", "photometric": "minisblack"}
    tifffile.imwrite(path, pixels, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["a", "b"]}}, **options)
    wanted = ts.open_pyramid(path)
    made, again = _copy(wanted, tmp_path, "ome-tiff")
    np.testing.assert_array_equal(again.read(again.levels[0].box), wanted.read(wanted.levels[0].box))
    with tifffile.TiffFile(path) as source, tifffile.TiffFile(made.path) as copy:
        for number in (0, 1):
            assert _scans(copy.pages[number]) == _scans(source.pages[number])
    with pytest.raises(ConfigError, match="Export to OME-TIFF"):
        _copy(wanted, tmp_path, "cog")


def test_what_cannot_be_copied_is_refused_with_the_reason(shared_data: Path, tmp_path: Path) -> None:
    cases = {
        "satellite/RGB.byte.tif": "strips",
        "satellite/cog_nodata.tif": "deflate",
        "slides/camelyon-jpeg2000.dcm": "jpeg2k",
        "photos/kodim01.png": "cannot be taken out",
    }
    for name, words in cases.items():
        with pytest.raises(ConfigError, match=f"codec `copy`: .*{words}"):
            _copy(ts.open_pyramid(shared_data / name), tmp_path, "cog")
    assert not list(tmp_path.iterdir())
