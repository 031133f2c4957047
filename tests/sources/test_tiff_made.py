"""TIFF files made by code, for each combination that real files of shared/data do not hold."""

from __future__ import annotations

import io
import itertools
import warnings

import imagecodecs
import numpy as np
import pytest
import rasterio
import tifffile
from PIL import Image

from tests.sources.assembled import whole_level
from tests.sources.madetiff import (
    Page,
    image_tags,
    opened,
    photo,
    split_tables,
    subsampled_jpeg2000,
    tiles_of,
    write_tiff,
)
from tilestream.errors import DamagedError, SourceError

CODECS = ("none", "lzw", "adobe_deflate", "deflate", "zstd", "lzma", "packbits")
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8")
SHAPE = (101, 75)
YCBCR, RGB = 6, 2


def values(dtype: str, samples: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = rng.integers(-3, 4, (*SHAPE, samples)).cumsum(axis=1)
    return (steps / 3 if dtype[0] == "f" else steps).astype(dtype)


@pytest.mark.parametrize(("codec", "dtype", "order"), list(itertools.product(CODECS, DTYPES, "<>")))
def test_lossless_codecs_in_every_layout(tmp_path, codec, dtype, order):
    predictors = [1] if codec in ("none", "packbits") else [1, 3 if dtype[0] == "f" else 2]
    for predictor, planar, tile in itertools.product(predictors, ("contig", "separate"), ((48, 32), None)):
        pixels = values(dtype, 3)
        path = tmp_path / "image.tif"
        tifffile.imwrite(
            path,
            pixels if planar == "contig" else np.moveaxis(pixels, 2, 0),
            byteorder=order,
            bigtiff=order == ">",
            compression=None if codec == "none" else codec,
            predictor=predictor,
            photometric="minisblack",
            planarconfig=planar,
            extrasamples=[0, 0],
            tile=tile,
            rowsperstrip=None if tile else 7,
            metadata=None,
        )
        got, valid, damage = whole_level(opened(path))
        np.testing.assert_array_equal(got, pixels, err_msg=f"{predictor} {planar} {tile}")
        assert got.dtype == pixels.dtype
        assert valid.all()
        assert not damage


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_samples_that_are_not_whole_bytes(tmp_path, bits, fill_order):
    pixels = np.random.default_rng(bits).integers(0, 1 << bits, (21, 37)).astype("u1" if bits <= 8 else "u2")
    rows = [np.unpackbits(row.astype(">u2").view("u1").reshape(-1, 2), axis=1)[:, -bits:].ravel() for row in pixels]
    data = b"".join(np.packbits(row).tobytes() for row in rows)
    if fill_order == 2:
        data = imagecodecs.bitorder_decode(data)
    tags = image_tags(21, 37, bits=bits) | {266: ("H", [fill_order])}
    got, _, damage = whole_level(opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[data], tiled=False))))
    np.testing.assert_array_equal(got[:, :, 0], pixels)
    assert not damage


def jpeg(tile: np.ndarray, *, restart: int = 0, progressive: bool = False) -> bytes:
    out = io.BytesIO()
    Image.fromarray(tile).save(out, "JPEG", quality=80, restart_marker_blocks=restart, progressive=progressive)
    return out.getvalue()


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_ycbcr_jpeg_at_every_subsampling_equals_tifffile(tmp_path, sampling, shared, order):
    pixels = photo(150, 130)
    streams = [imagecodecs.jpeg8_encode(tile, level=85, subsampling=sampling) for tile in tiles_of(pixels, (64, 64))]
    tags = image_tags(150, 130, piece=(64, 64), samples=3, compression=7, photometric=YCBCR)
    if shared:
        tags[347] = ("B", split_tables(streams[0])[0])
        streams = [split_tables(stream)[1] for stream in streams]
    path = write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=streams), order=order)
    got, _, damage = whole_level(opened(path))
    assert not damage
    with tifffile.TiffFile(path) as reference:
        np.testing.assert_array_equal(got, reference.pages[0].asarray())
    assert np.abs(got.astype(int) - pixels).mean() < 12


@pytest.mark.parametrize(("restart", "progressive"), [(1, False), (3, False), (0, True), (7, True)])
@pytest.mark.parametrize("samples", [1, 3])
def test_restart_markers_and_progressive_frames(tmp_path, restart, progressive, samples):
    pixels = photo(150, 130, channels=samples)
    tiles = tiles_of(pixels if samples == 3 else pixels[:, :, 0], (64, 64))
    streams = [jpeg(tile, restart=restart, progressive=progressive) for tile in tiles]
    tags = image_tags(
        150, 130, piece=(64, 64), samples=samples, compression=7, photometric=YCBCR if samples == 3 else 1
    )
    path = write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=streams))
    got, _, damage = whole_level(opened(path))
    assert not damage
    assert np.abs(got.astype(int) - pixels).mean() < 12


def test_rgb_stored_as_rgb_and_rgb_tag_over_jfif(tmp_path):
    """Aperio stores RGB components without a colour marker; Bio-Formats tags JFIF streams (YCbCr) as RGB."""
    pixels = photo(64, 64)
    plain = imagecodecs.jpeg8_encode(pixels, level=95, colorspace="rgb", outcolorspace="rgb", subsampling="444")
    unmarked = plain[:2] + plain[plain.index(b"\xff\xdb") :]  # without the Adobe marker
    jfif = imagecodecs.jpeg8_encode(pixels, level=95, subsampling="444")
    assert jfif[6:10] == b"JFIF"
    for name, stream in (("aperio", unmarked), ("adobe", plain), ("jfif", jfif)):
        tags = image_tags(64, 64, piece=(64, 64), samples=3, compression=7, photometric=RGB)
        got = whole_level(opened(write_tiff(tmp_path / f"{name}.tif", Page(tags=tags, pieces=[stream]))))[0]
        assert np.abs(got.astype(int) - pixels).mean() < 4, name


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_interleaved_jpeg_bands_equal_gdal(tmp_path, bands):
    """Decoders take three components for YCbCr unless they are told; bands of a scene are none."""
    pixels = photo(150, 130, channels=bands)
    profile = {"driver": "GTiff", "height": 150, "width": 130, "count": bands, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 64, "blockysize": 64, "compress": "JPEG", "photometric": "MINISBLACK"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not georeferenced
        with rasterio.open(tmp_path / "a.tif", "w", interleave="pixel", **profile) as written:
            written.write(pixels.transpose(2, 0, 1))
        with rasterio.open(tmp_path / "a.tif") as reference:
            expected = reference.read().transpose(1, 2, 0)
    np.testing.assert_array_equal(whole_level(opened(tmp_path / "a.tif"))[0], expected)


def test_a_restart_interval_in_shared_tables_does_not_count(tmp_path):
    """Decoders forget it at the start of each tile, and would give noise."""
    stream = jpeg(photo(64, 64), restart=1)
    at = stream.index(b"\xff\xdd\x00\x04")
    tags = image_tags(64, 64, piece=(64, 64), samples=3, compression=7, photometric=YCBCR)
    tags[347] = ("B", b"\xff\xd8" + stream[at : at + 6] + b"\xff\xd9")
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[stream[:at] + stream[at + 6 :]])))
    with pytest.raises(DamagedError, match="restart"):
        source.read_block(0, 0, 0)


@pytest.mark.parametrize("samples", [2, 4, 5])
def test_jpeg_samples_that_are_no_colour_stay_as_they_are(tmp_path, samples):
    pixels = photo(64, 64, channels=samples)
    planes = [imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[:, :, index]), level=95) for index in range(samples)]
    tags = image_tags(64, 64, piece=(64, 64), samples=samples, compression=7, photometric=1) | {
        284: ("H", [2]),
        338: ("H", [0] * (samples - 1)),
    }
    got = whole_level(opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=planes))))[0]
    assert np.abs(got.astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("compression", [33003, 33005, 34712])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_jpeg2000(tmp_path, compression, dtype):
    pixels = photo(150, 130).astype(dtype) * (1 if dtype == "u1" else 200)
    tags = image_tags(150, 130, piece=(64, 64), samples=3, compression=compression, bits=8 * np.dtype(dtype).itemsize)
    streams = [
        imagecodecs.jpeg2k_encode(tile, codecformat="j2k", reversible=True, level=0, mct=False)
        for tile in tiles_of(pixels, (64, 64))
    ]
    path = write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=streams))
    if compression == 33003 and dtype == "u2":
        with pytest.raises(SourceError, match="YCbCr"):
            opened(path)
        return
    got = whole_level(opened(path))[0]
    if compression != 33003:
        np.testing.assert_array_equal(got, pixels)
        return
    y, cb, cr = (pixels[..., index].astype(float) for index in range(3))
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    np.testing.assert_allclose(got[..., 0], np.clip(red, 0, 255), atol=0.51)
    np.testing.assert_allclose(got[..., 2], np.clip(blue, 0, 255), atol=0.51)


def test_subsampled_aperio_jpeg2000_is_converted_once(tmp_path):
    y = np.tile(np.arange(60, 124, dtype="u1"), (64, 1))
    cb, cr = np.full((64, 32), 110, "u1"), np.full((64, 32), 150, "u1")
    tags = image_tags(64, 64, piece=(64, 64), samples=3, compression=33003)
    got, _, damage = whole_level(
        opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[subsampled_jpeg2000([y, cb, cr])])))
    )
    assert not damage
    luma = y.astype(float)
    expected = [luma + 1.402 * 22, luma + 0.344136 * 18 - 0.714136 * 22, luma - 1.772 * 18]
    np.testing.assert_allclose(got, np.stack(expected, -1), atol=1.1)


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("compression", [50001, 34927])
def test_webp(tmp_path, samples, compression):
    pixels = photo(150, 130, channels=samples)
    pixels[..., 3:] = 255  # libwebp leaves an opaque alpha channel out
    tags = image_tags(150, 130, piece=(64, 64), samples=samples, compression=compression)
    if samples == 4:
        tags[338] = ("H", [2])
    streams = [imagecodecs.webp_encode(tile, lossless=True) for tile in tiles_of(pixels, (64, 64))]
    got, valid, damage = whole_level(opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=streams))))
    np.testing.assert_array_equal(got, pixels[..., :3])
    assert valid.all()
    assert not damage


@pytest.mark.parametrize(("dtype", "compression"), list(itertools.product(["u1", "u2", "f4"], [50002, 52546])))
def test_jpegxl(tmp_path, dtype, compression):
    pixels = photo(150, 130).astype(dtype)
    size = np.dtype(dtype).itemsize * 8
    tags = image_tags(150, 130, piece=(64, 64), samples=3, compression=compression, bits=size)
    tags[339] = ("H", [3 if dtype == "f4" else 1])
    streams = [imagecodecs.jpegxl_encode(tile, lossless=True) for tile in tiles_of(pixels, (64, 64))]
    got, _, damage = whole_level(opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=streams))))
    np.testing.assert_array_equal(got, pixels)
    assert not damage


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_fax(tmp_path, compression):
    pixels = photo(40, 64, channels=1)[:, :, 0] > 150
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    source = opened(tmp_path / "a.tif")
    got, _, damage = whole_level(source)
    assert not damage
    np.testing.assert_array_equal(got[:, :, 0], pixels)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_horizontal_differences_as_gdal_writes_them(tmp_path, dtype, interleave):
    pixels = values(dtype, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        profile = {"width": 75, "height": 101, "count": 3, "dtype": dtype, "interleave": interleave}
        options = {"compress": "deflate", "predictor": 2, "tiled": True, "blockxsize": 32, "blockysize": 48}
        with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **profile, **options) as file:
            file.write(np.moveaxis(pixels, 2, 0))
    np.testing.assert_array_equal(whole_level(opened(tmp_path / "a.tif"))[0], pixels)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_white_stored_as_zero_is_inverted_with_a_note(tmp_path, dtype):
    pixels = photo(40, 50, channels=1)[:, :, 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite")
    source = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(whole_level(source)[0][:, :, 0], np.iinfo(dtype).max - pixels)
    assert any("inverted" in note for note in source.info.notes)


@pytest.mark.parametrize("georeferenced", [True, False])
def test_palette_is_colour_or_classes(tmp_path, georeferenced):
    rng = np.random.default_rng(0)
    pixels, colours = rng.integers(0, 256, (40, 50), "u1"), rng.integers(0, 65536, (3, 256), "u2")
    extra = [(33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5.0, 6.0, 0.0), True)]
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="palette", colormap=colours, extratags=extra if georeferenced else []
    )
    source = opened(tmp_path / "a.tif")
    got = whole_level(source)[0]
    if georeferenced:
        assert source.info.kind == "labels"
        np.testing.assert_array_equal(got[:, :, 0], pixels)
    else:
        assert source.info.kind == "intensity"
        np.testing.assert_array_equal(got, np.moveaxis(colours >> 8, 0, 1)[pixels])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"compression": 6}, "old-style JPEG"),
        ({"compression": 34887}, "LERC"),
        ({"compression": 12345}, "12345"),
        ({"photometric": 5}, "CMYK"),
        ({"photometric": 6}, "YCbCr outside JPEG"),
        ({"photometric": 8}, "Lab"),
        ({"bits": 24}, "24 bits"),
        ({"bits": 12, "compression": 7}, "JPEG of 3 samples of 12 bits"),
        ({"bits": 0}, "0 bits"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, more, reason):
    page = Page(tags=image_tags(8, 8, samples=3, **more), pieces=[bytes(1000)], tiled=False)
    with pytest.raises(SourceError, match=reason):
        opened(write_tiff(tmp_path / "a.tif", page))


def test_a_palette_without_colours_and_mixed_samples_are_refused(tmp_path):
    page = Page(tags=image_tags(8, 8, photometric=3), pieces=[bytes(64)], tiled=False)
    with pytest.raises(SourceError, match="palette of 0 values"):
        opened(write_tiff(tmp_path / "a.tif", page))
    tags = image_tags(8, 8, samples=3) | {258: ("H", [5, 6, 5])}
    with pytest.raises(SourceError, match="one type for all samples"):
        opened(write_tiff(tmp_path / "b.tif", Page(tags=tags, pieces=[bytes(200)], tiled=False)))


@pytest.mark.parametrize("planar", [1, 2])
def test_sparse_pieces_are_not_valid(tmp_path, planar):
    pixels = photo(100, 100)
    tags = image_tags(100, 100, piece=(64, 64), samples=3) | {284: ("H", [planar])}
    if planar == 1:
        pieces = [tile.tobytes() for tile in tiles_of(pixels, (64, 64))]
    else:
        pieces = [tile.tobytes() for index in range(3) for tile in tiles_of(pixels[:, :, index], (64, 64))]
    for hole in range(1, len(pieces), 4):
        pieces[hole] = None
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=pieces)))
    assert source.read_block(0, 0, 1) is None
    got, valid, damage = whole_level(source)
    assert not damage
    assert not valid[:64, 64:].any()
    assert valid[64:].all()
    assert valid[:64, :64].all()
    np.testing.assert_array_equal(got[valid], pixels[valid])


@pytest.mark.parametrize("missing", ["offset", "count"])
def test_a_strip_without_offset_or_size_is_absent_not_damaged(tmp_path, missing):
    pixels = photo(60, 20, channels=1)
    strips = [pixels[at : at + 10].tobytes() for at in range(0, 60, 10)]
    page = Page(tags=image_tags(60, 20, rows=10), pieces=strips, tiled=False)
    path = write_tiff(tmp_path / "a.tif", page)
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags[273 if missing == "offset" else 279]
        tag.overwrite([0 if index == 2 else value for index, value in enumerate(tag.value)])
    got, valid, damage = whole_level(opened(path))
    assert not damage
    assert not valid[20:30].any()
    assert valid.sum() == 50 * 20
    np.testing.assert_array_equal(got[valid], pixels[valid])


def test_one_uncompressed_strip_is_read_in_parts(tmp_path):
    pixels = photo(1000, 30)
    page = Page(tags=image_tags(1000, 30, samples=3), pieces=[pixels.tobytes()], tiled=False)
    source = opened(write_tiff(tmp_path / "a.tif", page))
    assert source.info.levels[0].block.y == 256
    np.testing.assert_array_equal(whole_level(source)[0], pixels)
