import json

import numpy as np
import pytest
import zarr

from tests.codecs.exactfield import NAME, PATH
from tilestream.codecs.constanttile import ConstantTile
from tilestream.codecs.container import pack
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.neuralchunks import decode_chunk
from tilestream.codecs.quality import psnr
from tilestream.codecs.tilecodec import FieldCodec, tile_codec, unpack_tile
from tilestream.codecs.tilequality import LevelError, add_errors, level_errors
from tilestream.errors import ConfigError, DamagedError, SourceError
from tilestream.kernels.mip import mip
from tilestream.registry import CODECS
from tilestream.types import Box


@pytest.fixture(autouse=True)
def exact_codec(monkeypatch):
    monkeypatch.setitem(CODECS, NAME, PATH)


def pixels(shape=(3, 40, 56), dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def test_a_tile_comes_back_at_each_level_and_box():
    tile = pixels()
    codec = FieldCodec(field=NAME)
    data = codec.encode(tile)
    for level, expected in enumerate([tile, *mip(tile, levels=3)]):
        np.testing.assert_array_equal(codec.decode(data, level=level), expected)
    part = codec.decode(data, level=1, box=Box(level=1, y=3, x=5, height=7, width=2))
    np.testing.assert_array_equal(part, mip(tile, levels=1)[0][:, 3:10, 5:7])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_tile_of_one_value_is_a_few_bytes_and_exact_at_any_level(dtype):
    tile = np.empty((2, 33, 20), dtype)
    tile[0], tile[1] = 7, 100
    valid = np.ones(tile.shape[1:], bool)
    tile[:, 4, 4], valid[4, 4] = 9, False
    codec = FieldCodec(field="module:that-is-never-imported")
    data = codec.encode(tile, valid)
    assert len(data) < 64
    for level, shape in ((0, (2, 33, 20)), (2.5, (2, 6, 4)), (9, (2, 1, 1))):
        found = codec.decode(data, level=level)
        assert (found.shape, found.dtype) == (shape, tile.dtype)
        assert (found[0] == 7).all()
        assert (found[1] == 100).all()


@pytest.mark.parametrize(
    ("tile", "valid"),
    [(pixels(), np.zeros((40, 56), bool)), (np.full((1, 8, 8), np.nan, "float32"), None)],
    ids=["nothing valid", "all NaN"],
)
def test_a_tile_without_anything_valid_is_zero(tile, valid):
    data = FieldCodec().encode(tile, valid)
    assert len(data) < 64
    assert not unpack_tile(data).decode().any()


def test_nearly_constant_is_not_constant():
    tile = np.full((1, 16, 16), 5, "uint8")
    tile[0, 15, 15] = 6
    assert ConstantTile.of(tile) is None
    assert ConstantTile.of(np.where(tile == 6, 5, tile)) is not None


def test_the_nearest_constant_is_the_weighted_mean_of_what_is_valid():
    tile, valid = pixels().astype("uint8"), np.ones((40, 56), bool)
    valid[:10] = False
    weights = np.random.default_rng(0).random((40, 56), np.float32)
    found = ConstantTile.nearest(tile, valid, weights=weights)
    wanted = [np.average(one[valid], weights=weights[valid]) for one in tile]
    np.testing.assert_allclose(found.values, wanted, atol=0.5)
    assert (found.dtype, found.picture.shape.yx) == ("uint8", (40, 56))
    assert ConstantTile.from_bytes(found.to_bytes()) == found
    assert ConstantTile.nearest(tile, np.zeros((40, 56), bool)).values == (0,) * len(tile)
    exact = np.full((2, 8, 8), 7, "uint16")
    assert ConstantTile.nearest(exact) == ConstantTile.of(exact)


def test_settings_make_the_same_codec_again():
    codec = FieldCodec(field=NAME, quality=12.5, steps=30, levels=2)
    assert tile_codec(json.loads(json.dumps(codec.settings))) == codec
    assert tile_codec({}) == FieldCodec()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quality": 0}, "1 to 100"),
        ({"quality": "high"}, "int or float"),
        ({"steps": True}, "`steps`"),
        ({"levels": 0}, "1 to 16"),
        ({"speed": 3}, "one of"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        tile_codec(settings)


@pytest.mark.parametrize("tile", [pixels((40, 56)), pixels((17, 8, 8)), pixels(dtype="float64")])
def test_what_is_no_tile_is_refused(tile):
    with pytest.raises(ConfigError, match="`pixels` of a tile"):
        FieldCodec(field=NAME).encode(tile)


@pytest.mark.parametrize("kind", ["os:system", "os.path", "nothing"])
def test_a_file_does_not_choose_what_is_imported(kind):
    with pytest.raises(SourceError, match="that wrote it"):
        unpack_tile(pack(kind, version=1))


def test_an_unknown_codec_of_a_store_is_named_with_what_there_is():
    with pytest.raises(ConfigError, match=f"one of .*{NAME}"):
        FieldCodec(field="hahs").encode(pixels())


def test_a_constant_of_a_newer_version_is_refused():
    with pytest.raises(SourceError, match="version 2"):
        unpack_tile(pack("constant", version=2, header={"s": [4, 4], "d": "uint8", "v": [3]}))


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"s": [4], "d": "uint8", "v": [3]},
        {"s": [4, 1 << 40], "d": "uint8", "v": [3]},
        {"s": [4, 2.5], "d": "uint8", "v": [3]},
        {"s": [4, 4], "d": "object", "v": [3]},
        {"s": [4, 4], "d": "uint8", "v": [256]},
        {"s": [4, 4], "d": "uint8", "v": []},
        {"s": [4, 4], "d": "float32", "v": [float("nan")]},
    ],
)
def test_a_constant_that_cannot_be_is_damaged(header):
    with pytest.raises(DamagedError):
        unpack_tile(pack("constant", version=1, header=header))


def test_a_chunk_is_of_its_array():
    tile = pixels()
    data = FieldCodec(field=NAME).encode(tile)
    whole = decode_chunk(data, shape=(3, 48, 64), dtype=tile.dtype, fill=9)
    np.testing.assert_array_equal(whole[:, :40, :56], tile)
    assert (whole[:, 40:] == 9).all()
    assert (whole[:, :, 56:] == 9).all()
    for shape, dtype in (((3, 32, 64), "uint8"), ((1, 48, 64), "uint8"), ((3, 48, 64), "uint16"), ((48, 64), "uint8")):
        with pytest.raises(DamagedError, match="a chunk is"):
            decode_chunk(data, shape=shape, dtype=np.dtype(dtype))


def test_zarr_reads_and_writes_tiles_as_chunks(tmp_path):
    image = pixels((3, 70, 90))
    settings = {"codec": NAME, "levels": 2}
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=image.shape,
        chunks=(3, 32, 32),
        dtype="uint8",
        serializer={"name": "tilestream.neural", "configuration": settings},
        compressors=None,
        filters=None,
    )
    array[...] = image
    document = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())
    assert document["codecs"] == [{"name": "tilestream.neural", "configuration": settings}]
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a.zarr", mode="r")[...], image)
    stored = (tmp_path / "a.zarr/c/0/1/2").read_bytes()
    assert unpack_tile(stored).kind == NAME
    (tmp_path / "a.zarr/c/0/1/2").write_bytes(stored[:-9])
    with pytest.raises(DamagedError, match="checksum"):
        zarr.open_array(tmp_path / "a.zarr", mode="r")[...]


def test_a_plane_without_channels_is_a_chunk_too(tmp_path):
    image = pixels((48, 40), "uint16")
    serializer = {"name": "tilestream.neural", "configuration": {"codec": NAME}}
    array = zarr.create_array(
        tmp_path / "a.zarr",
        data=image,
        chunks=(32, 32),
        serializer=serializer,
        compressors=None,
        filters=None,
    )
    np.testing.assert_array_equal(array[...], image)


def test_errors_of_tiles_add_up_to_the_psnr_of_the_image():
    image = pixels((2, 48, 64), "int16")
    noisy = image + np.random.default_rng(1).integers(-9, 10, image.shape).astype("int16")
    valid = np.random.default_rng(2).random(image.shape[1:]) < 0.7
    total = {}
    for part in (np.s_[:, :, :24], np.s_[:, :, 24:]):
        tile = unpack_tile(FieldCodec(field=NAME).encode(noisy[part]))
        errors = level_errors(tile, Levels.of(image[part], valid[part[1:]], levels=3))
        again = tuple(LevelError.from_json(json.loads(json.dumps(one.to_json()))) for one in errors)
        assert again == errors
        total = add_errors(total, 4, errors)
    assert list(total) == [4, 5, 6]
    seen = image[:, valid]
    expected = psnr(image, noisy, high=float(seen.max()) - float(seen.min()), valid=valid)
    assert total[4].psnr(image.dtype) == pytest.approx(expected, abs=1e-9)


def test_the_psnr_of_nothing_is_none_and_of_no_difference_infinite():
    tile = np.full((1, 8, 8), 7, "uint8")
    known = unpack_tile(FieldCodec().encode(tile))
    (exact,) = level_errors(known, Levels.of(tile, levels=1))
    assert exact.psnr(tile.dtype) == np.inf
    assert LevelError.from_json(LevelError().to_json()).psnr(tile.dtype) is None
