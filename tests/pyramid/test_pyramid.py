"""Windows over blocks, with sources made of arrays and of holes."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from tilestream.errors import ConfigError, DamagedError
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.types import Block, Box, Channel, ImageInfo, Level, PlanLevel, Shape


class HoleySource:
    """Blocks of 8 x 8 of which one is absent, one damaged and one partly valid."""

    def __init__(self, shape: tuple[int, int] = (30, 43)) -> None:
        self.pixels = np.random.default_rng(7).integers(1, 255, (*shape, 3), dtype=np.uint8)
        self.reads: list[tuple[int, int]] = []
        level = Level(index=0, shape=Shape(y=shape[0], x=shape[1]), block=Shape(y=8, x=8))
        channels = tuple(Channel(name=name) for name in "RGB")
        self.info = ImageInfo(
            format="holey", levels=(level,), dtype=np.dtype("u1"), channels=channels, fingerprint=f"holey{id(self)}"
        )

    def read_block(self, level: int, iy: int, ix: int, out: Any = None) -> Block | None:
        self.reads.append((iy, ix))
        if (iy, ix) == (1, 1):
            return None
        if (iy, ix) == (2, 3):
            raise DamagedError("no EOI marker")
        pixels = self.pixels[iy * 8 : iy * 8 + 8, ix * 8 : ix * 8 + 8]
        valid = pixels[..., 0] > 20 if (iy, ix) == (0, 0) else None
        return Block(pixels=pixels, valid=valid)

    def isel(self, **index: int) -> HoleySource:
        return self

    def read_associated(self, name: str) -> Any:
        raise KeyError(name)


def expected(source: HoleySource, box: Box) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    height, width = source.pixels.shape[:2]
    pixels = np.zeros((box.height, box.width, 3), np.uint8)
    valid = np.zeros((box.height, box.width), np.bool_)
    for y in range(box.height):
        for x in range(box.width):
            at = y + box.y, x + box.x
            block = at[0] // 8, at[1] // 8
            if not (0 <= at[0] < height and 0 <= at[1] < width) or block in ((1, 1), (2, 3)):
                continue
            valid[y, x] = block != (0, 0) or source.pixels[at][0] > 20
            pixels[y, x] = source.pixels[at] if valid[y, x] else 0
    return pixels.transpose(2, 0, 1), valid


@given(y=st.integers(-9, 35), x=st.integers(-9, 50), height=st.integers(0, 30), width=st.integers(0, 30))
def test_windows_are_what_the_blocks_hold(y: int, x: int, height: int, width: int) -> None:
    source = HoleySource()
    box = Box(y=y, x=x, height=height, width=width)
    region = Pyramid(source=source, cache_bytes=0).read_region(box)
    pixels, valid = expected(source, box)
    np.testing.assert_array_equal(region.pixels, pixels)
    np.testing.assert_array_equal(region.valid, valid)
    touches = box.intersect(Box(y=16, x=24, height=8, width=8))
    assert bool(region.damage) == bool(touches.height and touches.width)


def test_damage_is_named_by_block_and_reason() -> None:
    pyramid = Pyramid(source=HoleySource())
    box = Box(y=10, x=20, height=10, width=10)
    assert pyramid.read_region(box).damage == ("block y=2 x=3 of level 0: no EOI marker",)
    with pytest.raises(DamagedError, match="block y=2 x=3 of level 0: no EOI marker"):
        pyramid.read(box)


def test_cached_blocks_are_read_once_and_damaged_ones_again() -> None:
    source = HoleySource()
    pyramid = Pyramid(source=source, cache_bytes=1 << 20)
    for _ in range(3):
        pyramid.read_region(Box(y=0, x=0, height=30, width=43))
    assert source.reads.count((0, 0)) == 1
    assert source.reads.count((1, 1)) == 1
    assert source.reads.count((2, 3)) == 3


def test_an_array_is_a_pyramid() -> None:
    array = np.arange(50 * 70 * 3, dtype=np.uint16).reshape(50, 70, 3)
    pyramid = open_pyramid(array)
    region = pyramid.read(Box(y=3, x=5, height=20, width=30))
    np.testing.assert_array_equal(region, array[3:23, 5:35].transpose(2, 0, 1))
    copy = pickle.loads(pickle.dumps(pyramid))
    np.testing.assert_array_equal(copy.read(Box(y=3, x=5, height=20, width=30)), region)


@pytest.mark.parametrize("max_px", [1, 7, 25, 70, 500])
def test_thumbnail_has_the_longest_edge_asked_for_and_keeps_the_mean(max_px: int) -> None:
    array = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    region = open_pyramid(array).thumbnail(max_px)
    assert max(region.pixels.shape[1:]) == min(max_px, 70)
    assert region.valid.all()
    np.testing.assert_allclose(region.pixels.mean(axis=(1, 2)), array.mean(axis=(0, 1)), atol=6)


def test_thumbnail_of_strips_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(1).integers(0, 255, (301, 97, 3), dtype=np.uint8)
    whole = open_pyramid(array).thumbnail(45).pixels
    monkeypatch.setattr("tilestream.pyramid.overview.STRIP_PX", 1)
    np.testing.assert_array_equal(open_pyramid(array).thumbnail(45).pixels, whole)


@given(cut_y=st.integers(1, 20), cut_x=st.integers(1, 20))
def test_a_virtual_level_does_not_depend_on_how_it_is_cut(cut_y: int, cut_x: int) -> None:
    array = np.random.default_rng(2).integers(0, 255, (61, 83, 3), dtype=np.uint8)
    pyramid = open_pyramid(array)
    level = PlanLevel(
        stored=0, ratio_yx=(Fraction(5, 2), Fraction(7, 3)), shape=Shape(y=25, x=36), scale_yx=(2.5, 7 / 3)
    )

    def read(box: Box) -> np.ndarray[Any, Any]:
        pixels, valid = np.empty((box.height, box.width, 3), np.uint8), np.ones((box.height, box.width), np.bool_)
        assert not pyramid.read_plan(level, box, pixels, valid).damage
        assert valid.all()
        return pixels

    whole = read(Box(y=0, x=0, height=25, width=36))
    rows = [
        np.concatenate(
            [read(Box(y=y, x=x, height=min(cut_y, 25 - y), width=min(cut_x, 36 - x))) for x in range(0, 36, cut_x)],
            axis=1,
        )
        for y in range(0, 25, cut_y)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), whole)


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="level 3"):
        open_pyramid(np.zeros((9, 9), np.uint8)).read(Box(level=3, y=0, x=0, height=1, width=1))


def test_associated_images_that_could_identify_are_refused() -> None:
    with pytest.raises(ConfigError, match="keep-identifying"):
        open_pyramid(np.zeros((9, 9), np.uint8)).read_associated("label")


@pytest.mark.parametrize("store", ["tif", "zarr"])
def test_uncompressed_images_with_equal_headers_are_not_mixed_up(tmp_path: Path, store: str) -> None:
    """Their headers, tile tables and file sizes are the same; only pixels far from both ends differ."""
    found = []
    for value in (1, 2):
        pixels = np.zeros((1024, 1024), np.uint16)
        pixels[400:600, 400:600] = value
        path = tmp_path / f"{value}.{store}"
        if store == "tif":
            tifffile.imwrite(path, pixels, tile=(256, 256))
        else:
            zarr.create_array(path, data=pixels, chunks=(256, 256), compressors=None)
        found.append(open_pyramid(path))
    for value, pyramid in enumerate(found, 1):
        assert pyramid.read(pyramid.levels[0].box).max() == value
        copy = pickle.loads(pickle.dumps(pyramid))
        assert copy.read(copy.levels[0].box).max() == value
    assert found[0].fingerprint != found[1].fingerprint


def test_what_is_not_valid_is_zero_even_where_the_file_says_otherwise(tmp_path: Path) -> None:
    pixels = np.full((64, 64), -9999, np.float32)
    pixels[10:20, 10:20], pixels[12, 12] = 5, np.nan
    tifffile.imwrite(tmp_path / "nodata.tif", pixels, extratags=[(42113, "s", 0, "-9999", True)])
    pyramid = open_pyramid(tmp_path / "nodata.tif")
    region = pyramid.read_region(pyramid.levels[0].box)
    assert np.count_nonzero(region.valid) == 99
    assert set(region.pixels[0][region.valid].tolist()) == {5.0}
    assert not region.pixels[0][~region.valid].any()
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[0].box)[0], pixels)
    planned, seen = np.empty((40, 40, 1), np.float32), np.ones((40, 40), np.bool_)
    level = PlanLevel(stored=0, shape=pyramid.levels[0].shape, scale_yx=(1.0, 1.0))
    pyramid.read_plan(level, Box(y=0, x=0, height=40, width=40), planned, seen)
    np.testing.assert_array_equal(planned[..., 0], region.pixels[0, :40, :40])


def test_a_chosen_band_is_not_valid_where_it_holds_nodata(tmp_path: Path) -> None:
    pixels = np.zeros((64, 64, 2), np.uint16)
    pixels[..., 1], pixels[:32, :, 0] = 7, 3
    path = tmp_path / "two.tif"
    tags = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(path, pixels, planarconfig="contig", photometric="minisblack", extratags=tags)
    pyramid = open_pyramid(path)
    first = pyramid.choose(bands=[pyramid.channels[0].name])
    assert pyramid.read_region(pyramid.levels[0].box).valid.all()
    np.testing.assert_array_equal(first.read_region(first.levels[0].box).valid, pixels[..., 0] != 0)
