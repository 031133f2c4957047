"""COGs byte by byte: the layout that GDAL's driver writes and readers over the network rely on."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from tilestream.sinks import cog
from tilestream.sinks.cog import CogWriter
from tilestream.sinks.tiffcodec import tile_codec
from tilestream.sinks.tiffdirectory import text
from tilestream.sinks.tiffpyramid import TiffPyramid
from tilestream.types import Array, Shape

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
TILE_PX = 64


def _pyramid(
    shape: tuple[int, int], dtype: str = "u1", *, codec: str = "zstd", samples: int = 1, **options
) -> TiffPyramid:
    levels = [Shape(y=shape[0], x=shape[1])]
    while max(levels[-1].yx) > TILE_PX:
        levels.append(Shape(y=-(-levels[-1].y // 2), x=-(-levels[-1].x // 2)))
    made = tile_codec(codec, dtype=np.dtype(dtype), samples=samples, quality=90)
    return TiffPyramid(
        levels=tuple(levels), dtype=np.dtype(dtype), planes=((0, samples),), codec=made, tile_px=TILE_PX,
        skips_fill=True, **options,
    )  # fmt: skip


def _levels(pyramid: TiffPyramid, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    samples = pyramid.planes[0][1]
    return [generator.integers(1, 200, (*shape.yx, samples)).astype(pyramid.dtype) for shape in pyramid.levels]


def _write(path: Path, pyramid: TiffPyramid, levels: list[Array], valid: Array | None = None, *, seed: int = 0) -> int:
    """Write levels as a COG, tiles in any order."""
    places = [
        (level, iy, ix)
        for level in range(len(levels))
        for iy in range(pyramid.tiles(level).y)
        for ix in range(pyramid.tiles(level).x)
    ]
    with CogWriter(path, pyramid) as file:
        for number in np.random.default_rng(seed).permutation(len(places)):
            level, iy, ix = places[number]
            part = slice(iy * TILE_PX, (iy + 1) * TILE_PX), slice(ix * TILE_PX, (ix + 1) * TILE_PX)
            seen = None if valid is None else valid[:: 2**level, :: 2**level][part]
            for tile in pyramid.encode(levels[level][part], seen, level=level, iy=iy, ix=ix):
                file.add(tile)
        return file.finish({305: text("tested")})


def _framed(data: bytes, offset: int, nbytes: int) -> None:
    """Check that a tile lies between its size and a repetition of its end."""
    assert struct.unpack("<I", data[offset - 4 : offset]) == (nbytes,)
    assert data[offset + nbytes : offset + nbytes + 4] == data[offset + nbytes - 4 : offset + nbytes]


def test_layout(tmp_path: Path) -> None:
    path, pyramid = tmp_path / "a.tif", _pyramid((300, 421))
    size = _write(path, pyramid, _levels(pyramid))
    data = path.read_bytes()
    assert size == len(data)
    ghost = data[8:].partition(b"bytes\n")
    assert ghost[0] == b"GDAL_STRUCTURAL_METADATA_SIZE=000140 "
    assert ghost[2].startswith(b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert [page.subfiletype for page in file.pages] == [0, 1, 1, 1]
        assert [page.shape for page in file.pages] == [(300, 421), (150, 211), (75, 106), (38, 53)]
        assert file.pages[0].tags[305].value == "tested"
        assert 305 not in file.pages[1].tags
        order = [
            where for page in reversed(file.pages) for where in zip(page.dataoffsets, page.databytecounts, strict=True)
        ]
    assert max(page.offset for page in file.pages) < order[0][0]
    assert order == sorted(order)
    for (offset, nbytes), (following, _) in zip(order, [*order[1:], (len(data) + 4, 0)], strict=True):
        _framed(data, offset, nbytes)
        assert following == offset + nbytes + 8  # nothing between tiles


def test_masks_follow_their_tiles(tmp_path: Path) -> None:
    path, pyramid = tmp_path / "a.tif", _pyramid((300, 421), masks=True)
    valid = np.ones((300, 421), np.bool_)
    valid[100:220, 250:] = False
    levels = _levels(pyramid)
    for level, pixels in enumerate(levels):
        pixels[~valid[:: 2**level, :: 2**level]] = 0
    _write(path, pyramid, levels, valid)
    data = path.read_bytes()
    assert b"MASK_INTERLEAVED_WITH_IMAGERY=YES\n" in data[:250]
    assert data[8:].startswith(b"GDAL_STRUCTURAL_METADATA_SIZE=000174 bytes\n")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert [page.subfiletype for page in file.pages] == [0, 4, 1, 1, 1, 5, 5, 5]
        tiles, masks = file.pages[0], file.pages[1]
        sparse = [not count for count in tiles.databytecounts]
        assert any(sparse)
        for index in range(len(sparse)):
            _framed(data, masks.dataoffsets[index], masks.databytecounts[index])
            if not sparse[index]:
                end = tiles.dataoffsets[index] + tiles.databytecounts[index]
                assert masks.dataoffsets[index] == end + 8
    with rasterio.open(path) as made:
        assert made.mask_flag_enums == ([rasterio.enums.MaskFlags.per_dataset],)
        np.testing.assert_array_equal(made.dataset_mask() != 0, valid)
        np.testing.assert_array_equal(made.read(1), levels[0][..., 0])


def test_no_mask_where_all_is_valid(tmp_path: Path) -> None:
    path, pyramid = tmp_path / "a.tif", _pyramid((100, 100), masks=True)
    _write(path, pyramid, _levels(pyramid), np.ones((100, 100), np.bool_))
    with tifffile.TiffFile(path) as file:
        assert [page.subfiletype for page in file.pages] == [0, 1]


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    dtype=st.sampled_from(["u1", "i2", "u4", "f4", "f8"]),
    codec=st.sampled_from(["none", "deflate", "zstd", "lzw"]),
    samples=st.sampled_from([1, 2, 5]),
)
def test_gdal_reads_every_level(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, dtype: str, codec: str, samples: int
) -> None:
    path = tmp_path_factory.mktemp("cog") / "a.tif"
    pyramid = _pyramid((height, width), dtype, codec=codec, samples=samples)
    levels = _levels(pyramid)
    _write(path, pyramid, levels)
    for level, pixels in enumerate(levels):
        with rasterio.open(path, **({"overview_level": level - 1} if level else {})) as made:
            assert level or made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            np.testing.assert_array_equal(made.read().transpose(1, 2, 0), pixels)


def test_the_order_in_which_tiles_come_does_not_matter(tmp_path: Path) -> None:
    pyramid = _pyramid((300, 300), masks=True)
    valid = np.tri(300, dtype=np.bool_)
    for seed in (1, 2):
        _write(tmp_path / f"{seed}.tif", pyramid, _levels(pyramid), valid, seed=seed)
    assert (tmp_path / "1.tif").read_bytes() == (tmp_path / "2.tif").read_bytes()


def test_a_large_file_is_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pyramid = tmp_path / "a.tif", _pyramid((300, 300))
    levels = _levels(pyramid)
    small = _write(path, pyramid, levels)
    for limit, is_big in ((small + 1, False), (small, True)):
        monkeypatch.setattr(cog, "CLASSIC_BYTES", limit)
        size = _write(path, pyramid, levels)
        assert size == path.stat().st_size
        with rasterio.open(path) as made:
            np.testing.assert_array_equal(made.read(1), levels[0][..., 0])
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff == is_big


def test_nodata_tiles_are_left_out(tmp_path: Path) -> None:
    path, pyramid = tmp_path / "a.tif", _pyramid((100, 100), "f4", nodata=float("nan"))
    levels = _levels(pyramid)
    levels[0][64:, :64] = np.nan
    _write(path, pyramid, levels, np.isfinite(levels[0][..., 0]))
    with tifffile.TiffFile(path) as file:
        assert [count > 0 for count in file.pages[0].databytecounts] == [True, True, False, True]
    with rasterio.open(path) as made:
        assert np.isnan(made.nodata)
        np.testing.assert_array_equal(made.read(1), levels[0][..., 0])


def test_nothing_is_left_beside_the_file(tmp_path: Path, no_file_leaks: None) -> None:
    pyramid = _pyramid((100, 100))
    _write(tmp_path / "a.tif", pyramid, _levels(pyramid))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
