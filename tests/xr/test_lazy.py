"""Lazy arrays of levels against the whole image in memory."""

from __future__ import annotations

import asyncio
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilestream.errors import DamagedError, OutputError
from tilestream.pyramid import Pyramid
from tilestream.types import Block, Box, Channel, ImageInfo, Level, PlanLevel, Shape
from tilestream.xr.lazy import CHUNK_BYTES, View, chunk_of
from tilestream.xr.tree import level_dataset, stored_level, to_datatree

SHAPE = Shape(y=90, x=130)
BLOCK = Shape(y=16, x=20)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A source that remembers which blocks were read; the third one of the first row can be damaged."""

    pixels: np.ndarray
    info: ImageInfo
    damaged: tuple[int, int] | None = None
    """Row and column; a negative row damages the whole image."""
    seen: list = field(default_factory=list)

    def read_block(self, level, iy, ix, out=None):
        self.seen.append((iy, ix))
        if self.damaged is not None and ((iy, ix) == self.damaged or self.damaged[0] < 0):
            raise DamagedError("the JPEG stream ends early")
        rows = slice(iy * BLOCK.y, (iy + 1) * BLOCK.y)
        part = self.pixels[rows, ix * BLOCK.x : (ix + 1) * BLOCK.x]
        nodata = self.info.nodata
        if nodata is None:
            return Block(pixels=part)
        valid = (part != nodata).any(axis=2)
        return Block(pixels=np.where(valid[..., None], part, 0).astype(part.dtype), valid=valid)


def made(channels=3, dtype="uint8", shape=SHAPE, **options):
    pixels = np.random.default_rng(1).integers(1, 200, (*shape.yx, channels)).astype(dtype)
    given = {name: options.pop(name) for name in ("damaged",) if name in options}
    info = ImageInfo(
        format="made",
        levels=(Level(index=0, shape=shape, block=BLOCK),),
        dtype=pixels.dtype,
        channels=options.pop("names", tuple(Channel(name=f"c{number}") for number in range(channels))),
        fingerprint="made",
        **options,
    )
    if info.nodata is not None:
        pixels[:7, :9] = info.nodata
    return Pyramid(source=Counted(pixels=pixels, info=info, **given), cache_bytes=0)


def image_of(pyramid, **options):
    return level_dataset(pyramid, stored_level(pyramid, 0), **options)["image"]


PYRAMID = made()
WHOLE = PYRAMID.source.pixels.transpose(2, 0, 1)
EXPECTED = xr.DataArray(WHOLE, dims=("c", "y", "x"))


def indexers(size):
    return st.one_of(
        st.slices(size),
        st.integers(-size, size - 1),
        hnp.arrays(np.int64, st.integers(0, 6), elements=st.integers(-size, size - 1)),
    )


@given(indexers(3), indexers(SHAPE.y), indexers(SHAPE.x))
def test_any_index(c, y, x):
    np.testing.assert_array_equal(image_of(PYRAMID).isel(c=c, y=y, x=x).values, EXPECTED.isel(c=c, y=y, x=x).values)


@given(st.slices(SHAPE.y), st.slices(SHAPE.y), indexers(SHAPE.x))
def test_an_index_of_an_index_and_another_order_of_axes(first, second, x):
    found = image_of(PYRAMID).isel(y=first).isel(y=second, x=x).transpose("y", ..., "c")
    expected = EXPECTED.isel(y=first).isel(y=second, x=x).transpose("y", ..., "c")
    np.testing.assert_array_equal(found.values, expected.values)


def test_points():
    y, x = (xr.DataArray(at, dims="point") for at in ([3, 80, 3], [1, 120, 64]))
    np.testing.assert_array_equal(image_of(PYRAMID).isel(y=y, x=x), WHOLE[:, [3, 80, 3], [1, 120, 64]])


@pytest.mark.parametrize("at", [90, -91, [3, 90], [-91, 0]])
@pytest.mark.parametrize("chunks", [None, {"y": 30}])
def test_positions_outside_are_an_error_and_no_pixels(at, chunks):
    image = image_of(PYRAMID)
    image = image if chunks is None else image.chunk(chunks)
    with pytest.raises(IndexError):
        image.isel(y=at)
    if np.max(at) == 90:  # xarray itself takes -91 for -1 where there is no coordinate
        with pytest.raises(IndexError):
            image.drop_vars("y").isel(y=at).load()
    with pytest.raises(IndexError):
        image.isel(y=xr.DataArray([[0], [90]], dims=("a", "b")))


@pytest.mark.parametrize(
    ("index", "blocks"),
    [
        ({"y": slice(0, 16), "x": slice(0, 20)}, {(0, 0)}),
        ({"y": slice(15, 17), "x": 0}, {(0, 0), (1, 0)}),
        ({"y": slice(0, None, 48), "x": slice(0, None, 60)}, {(y, x) for y in (0, 3) for x in (0, 3, 6)}),
        ({"y": [0, 89], "x": [129, 0]}, {(y, x) for y in (0, 5) for x in (0, 6)}),
        ({"y": slice(0, 0)}, set()),
    ],
)
def test_no_block_is_read_that_is_not_touched_and_none_twice(index, blocks):
    pyramid = made()
    image_of(pyramid).isel(index).values  # noqa: B018 - reading is what is looked at
    assert sorted(pyramid.source.seen) == sorted(blocks)


@given(st.data())
def test_virtual_levels_do_not_depend_on_the_cut(data):
    ratio = data.draw(st.sampled_from([Fraction(5, 2), Fraction(3), Fraction(7, 4)]))
    shape = Shape(y=-int(-SHAPE.y // ratio), x=-int(-SHAPE.x // ratio))
    level = PlanLevel(stored=0, ratio_yx=(ratio, ratio), shape=shape, scale_yx=(float(ratio), float(ratio)))
    image = level_dataset(PYRAMID, level)["image"]
    whole = np.zeros((*shape.yx, 3), np.uint8)
    box = Box(y=0, x=0, height=shape.y, width=shape.x)
    valid = np.ones(shape.yx, np.bool_)
    PYRAMID.read_plan(level, box, whole, valid)
    assert valid.all()
    y, x = data.draw(indexers(shape.y)), data.draw(indexers(shape.x))
    expected = xr.DataArray(whole.transpose(2, 0, 1), dims=("c", "y", "x")).isel(y=y, x=x)
    np.testing.assert_array_equal(image.isel(y=y, x=x).values, expected.values)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_nodata_is_as_stored_or_nan(dtype):
    pyramid = made(dtype=dtype, nodata=0, validity="nodata")
    raw, decoded = image_of(pyramid, mask_and_scale=False), image_of(pyramid)
    np.testing.assert_array_equal(raw.values, pyramid.source.pixels.transpose(2, 0, 1))
    assert raw.attrs["_FillValue"] == 0
    assert "_FillValue" not in decoded.attrs
    assert decoded.encoding["_FillValue"] == 0
    assert decoded.encoding["dtype"] == np.dtype(dtype)
    assert np.isnan(decoded.values[:, :7, :9]).all()
    # what xarray itself makes of the same attributes
    theirs = xr.decode_cf(raw.to_dataset(name="image"))["image"]
    xr.testing.assert_identical(*(found.drop_vars(["y", "x"]).drop_encoding() for found in (decoded, theirs)))
    assert decoded.dtype == theirs.dtype
    at = {"y": slice(3, 50, 7), "x": [100, 2]}
    np.testing.assert_array_equal(decoded.isel(at).values, theirs.isel(at).values)


def test_nodata_that_no_sample_can_hold_is_told():
    pyramid = made()
    pyramid = replace(pyramid, source=replace(pyramid.source, info=replace(pyramid.info, nodata=-9999.0)))
    image = image_of(pyramid)
    assert image.dtype == np.uint8
    assert image.attrs["nodata"] == -9999
    assert "_FillValue" not in image.encoding


@pytest.mark.parametrize(
    ("scales", "offsets", "dtype", "attrs"),
    [
        ((1e-4,) * 2, (0.0,) * 2, "float64", {}),
        ((1e-4,) * 2, (-0.1,) * 2, "float64", {}),
        ((1e-4, 1.0), (0.0, 0.0), "uint16", {"channel_scale": [1e-4, 1.0], "channel_offset": [0.0, 0.0]}),
        ((1.0, 1.0), (0.0, 3.0), "uint16", {"channel_scale": [1.0, 1.0], "channel_offset": [0.0, 3.0]}),
        ((1.0, 1.0), (0.0, 0.0), "uint16", {}),
    ],
)
def test_factor_and_offset_only_where_all_channels_have_the_same(scales, offsets, dtype, attrs):
    names = tuple(
        Channel(name=f"b{n}", scale=s, offset=o) for n, (s, o) in enumerate(zip(scales, offsets, strict=True))
    )
    pyramid = made(channels=2, dtype="uint16", names=names)
    image, stored = image_of(pyramid), pyramid.source.pixels.transpose(2, 0, 1)
    assert image.dtype == dtype
    assert image.attrs == attrs
    expected = stored if attrs else stored * scales[0] + offsets[0]
    np.testing.assert_allclose(image.values, expected, rtol=1e-6)


def test_validity_beside_the_samples_is_a_variable():
    pyramid = made(nodata=0, validity="mask")
    dataset = level_dataset(pyramid, stored_level(pyramid, 0))
    expected = np.ones(SHAPE.yx, bool)
    expected[:7, :9] = False
    np.testing.assert_array_equal(dataset["valid"], expected)
    np.testing.assert_array_equal(dataset["valid"].isel(y=3, x=[4, 50]), [False, True])
    assert dataset["valid"].dtype == bool
    np.testing.assert_array_equal(dataset["image"].notnull().all("c"), expected)


def test_damage_is_an_error_that_names_level_and_block_and_costs_nothing_else():
    pyramid = made(damaged=(0, 2))
    image = image_of(pyramid)
    with pytest.raises(DamagedError, match=r"block y=0 x=2 of level 0: the JPEG stream ends early.*read_region"):
        image.values  # noqa: B018
    np.testing.assert_array_equal(image.isel(x=slice(60, None)).values, WHOLE[:, :, 60:])
    with pytest.raises(DamagedError, match="block y=0 x=2"):
        image.chunk(x=30).compute(scheduler="threads")
    with pytest.raises(DamagedError, match=r"block y=0 x=4 of level 0: [^;]*; and 37 more\."):
        image_of(made(damaged=(-1, 0))).load()


def test_threads_read_the_same():
    image = image_of(made())
    parts = [slice(start, start + 23) for start in range(0, 110, 5)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: image.isel(x=part).values, parts))
    for part, pixels in zip(parts, found, strict=True):
        np.testing.assert_array_equal(pixels, WHOLE[:, :, part])


@pytest.mark.skipif(not hasattr(xr.DataArray, "load_async"), reason="xarray has it since 2025.8")
def test_coroutines_read_the_same():
    loaded = asyncio.run(image_of(made()).isel(y=slice(3, 9)).load_async())
    np.testing.assert_array_equal(loaded.values, WHOLE[:, 3:9])


def test_an_image_cannot_be_written_into():
    pyramid = made()
    image = image_of(pyramid)
    with pytest.raises(OutputError, match="writers that share a shard lose pixels"):
        image[0, 0, 0] = 1
    assert pyramid.source.seen == []  # refused before anything is loaded
    for locked in (False, True):
        with pytest.raises(OutputError, match="reads only"):
            da.store(da.zeros(image.shape, dtype=image.dtype, chunks=32), image, lock=locked)
    with pytest.raises(OutputError, match="reads only"):
        image.isel(y=slice(0, 9)).loc[{"y": 0.5}] = 1
    with pytest.raises(OutputError, match="reads only"):
        image.chunk(x=30)[..., 0] = 1
    with pytest.raises(TypeError):
        da.to_zarr(da.zeros(image.shape, chunks=32), image)
    np.testing.assert_array_equal(image.values, WHOLE)


def test_what_was_loaded_or_computed_with_is_the_users_own():
    image = image_of(made())
    loaded = image.isel(y=slice(0, 4)).load()
    loaded[0, 0, 0] = 255
    assert loaded.values[0, 0, 0] == 255
    changed = image.chunk(x=30) + 1
    changed[0, 0, 0] = 7
    assert changed.values[0, 0, 0] == 7


def test_a_level_pickles_small_and_tokens_follow_the_pixels():
    from dask.base import tokenize

    pyramid = made()
    tree = to_datatree(pyramid)
    array = tree["0/image"].variable._data.array
    assert len(pickle.dumps(array)) < pyramid.source.pixels.nbytes + 3000
    other = replace(pyramid, source=replace(pyramid.source, info=replace(pyramid.info, fingerprint="other")))
    tokens = {tokenize(to_datatree(p)["0/image"].variable._data.array) for p in (pyramid, other)}
    assert len(tokens) == 2
    assert tokenize(array) == tokenize(pickle.loads(pickle.dumps(array)))
    image = tree["0/image"]
    parts = image, image.isel(y=slice(1, 9)), image.isel(y=slice(2, 9)), image.isel(y=slice(1, 9)).isel(x=[3, 1])
    assert len({tokenize(part) for part in parts}) == 4
    assert tokenize(image) == tokenize(to_datatree(pyramid)["0/image"])
    assert pyramid.source.seen == []
    assert tokenize(image.isel(y=slice(1, 9)).load()) != tokenize(parts[2].load())


@pytest.mark.parametrize(
    ("shape", "block", "pixel_bytes", "expected"),
    [
        ((90_000, 80_000), (256, 256), 3, (4096, 4096)),
        ((90_000, 80_000), (240, 240), 3, (4080, 4080)),
        ((90_000, 80_000), (512, 512), 48, (2048, 2048)),  # twelve bands of float32: less than 256 MiB
        ((2700, 5400), (2700, 5400), 3, (2700, 5400)),  # one JPEG is one block
        ((90_000, 80_000), (8, 80_000), 3, (208, 80_000)),  # strips
        ((100, 30), (256, 256), 3, (100, 30)),
    ],
)
def test_chunks_are_whole_blocks_near_a_super_tile(shape, block, pixel_bytes, expected):
    level = Level(index=0, shape=Shape(y=shape[0], x=shape[1]), block=Shape(y=block[0], x=block[1]))
    pyramid = made()
    pyramid = replace(pyramid, source=replace(pyramid.source, info=replace(pyramid.info, levels=(level,))))
    chunk = chunk_of(View(pyramid=pyramid, level=stored_level(pyramid, 0)), pixel_bytes)
    assert chunk.yx == expected
    assert chunk.area * pixel_bytes <= CHUNK_BYTES
    assert (
        image_of(pyramid).encoding["preferred_chunks"]["y"]
        == chunk_of(View(pyramid=pyramid, level=stored_level(pyramid, 0)), 3).y
    )
