"""The codec gives what is asked of it, by settings that say so, and names what it cannot do."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import tilestream as ts
from tests.codecs.pyramid.plainfit import plain_file
from tilestream.codecs.container import unpack
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.fronts import outline_of
from tilestream.codecs.pyramid.encoding import TileEncoding
from tilestream.codecs.pyramid.price import lmbda_of_quality, quality_of_lmbda
from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec
from tilestream.codecs.quality import psnr
from tilestream.codecs.tilecodec import FieldCodec, tile_codec, unpack_tile, with_steps
from tilestream.errors import ConfigError, DamagedError
from tilestream.types import Array


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs that round instead of fitting."""
    monkeypatch.setattr(TileEncoding, "file", plain_file)


def tile(shape: tuple[int, int] = (48, 40), dtype: str = "uint8") -> Array:
    y, x = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(0).normal(0, 6, shape)
    return np.clip(120 + 60 * np.sin(y / 9) + 40 * np.cos(x / 7) + noise, 0, 255).astype(dtype)[None]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("target", [25.0, 36.0, 44.0])
def test_a_tile_has_at_least_the_decibels_that_were_asked_for(target: float) -> None:
    pixels = tile()
    codec = PyramidCodec(target_psnr=target)
    found = psnr(pixels, codec.decode(codec.encode(pixels)))
    assert target <= found < target + 0.6


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("target", [500, 900, 1500])
def test_a_tile_has_at_most_the_bytes_that_were_asked_for(target: int) -> None:
    found = len(PyramidCodec(target_bytes=target).encode(tile()))
    assert 0.88 * target < found <= target


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("asked", [{"target_psnr": 99.0}, {"target_bytes": 60}])
def test_what_is_out_of_reach_is_named(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(asked))):
        PyramidCodec(**asked).encode(tile())


@pytest.mark.usefixtures("plain")
def test_a_higher_quality_is_more_bytes_and_decibels() -> None:
    pixels, found = tile(), []
    for quality in (10, 50, 90):
        codec = PyramidCodec(quality=quality)
        data = codec.encode(pixels)
        found.append((len(data), psnr(pixels, codec.decode(data))))
    assert found == sorted(found)
    assert PyramidCodec(lmbda=lmbda_of_quality(50)).encode(pixels) == PyramidCodec().encode(pixels)
    assert quality_of_lmbda(lmbda_of_quality(37)) == pytest.approx(37)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("most", [0, 1, 4])
def test_no_sample_is_off_by_more_than_allowed(most: int, dtype: str) -> None:
    pixels, valid = tile(dtype=dtype), np.ones((48, 40), bool)
    valid[5:9, 7:20] = False
    codec = PyramidCodec(max_error=most)
    data = codec.encode(pixels, valid)
    found = codec.decode(data)
    assert np.abs(found.astype(int) - pixels)[:, valid].max() == most
    finer, coarse = codec.decode(data, level=1), ts.codecs.Levels.of(found, levels=2).pixels[1]
    np.testing.assert_array_equal(finer, coarse)
    between = codec.decode(data, level=0.5)
    assert between.shape == (1, 34, 29)
    box = ts.Box(level=0, y=3, x=5, height=9, width=4)
    np.testing.assert_array_equal(codec.decode(data, box=box), found[:, 3:12, 5:9])
    base = codec.decode(data, stages=1)
    assert psnr(pixels.astype("u1"), base.astype("u1")) < psnr(pixels.astype("u1"), found.astype("u1"))


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
@pytest.mark.parametrize("most", [0, 2])
def test_an_error_is_bounded_without_a_fit(most: int, dtype: str) -> None:
    pixels, valid = np.repeat(tile(dtype=dtype), 2, axis=0), np.ones((48, 40), bool)
    valid[:7] = False
    codec = PyramidCodec(max_error=most, steps=0)
    data = codec.encode(pixels, valid)
    found = codec.decode(data)
    assert np.abs(found.astype(int) - pixels)[:, valid].max() == most
    assert len(np.unique(codec.decode(data, stages=1)[0])) == 1
    assert len(data) < pixels.nbytes
    np.testing.assert_array_equal(tile_codec(codec.settings).decode(data), found)


def test_one_colour_within_the_bound_is_enough() -> None:
    pixels = np.full((3, 64, 64), 240, np.uint8)
    pixels[1, ::3] += 2
    data = PyramidCodec(max_error=2, steps=0).encode(pixels)
    assert unpack(data).kind == "constant"
    assert unpack(PyramidCodec(max_error=0, steps=0).encode(pixels)).kind == "pyramid"


def test_a_base_is_cheap_where_the_error_is_bounded() -> None:
    assert PyramidCodec(max_error=0).price == PyramidCodec(quality=1).price
    assert PyramidCodec(max_error=0, lmbda=1e-3).price == 1e-3


@pytest.mark.usefixtures("plain")
def test_a_front_is_decoded_by_stages_alone() -> None:
    codec = PyramidCodec()
    data = codec.encode(tile())
    np.testing.assert_array_equal(codec.decode(data[:-1], stages=1), codec.decode(data))
    with pytest.raises(DamagedError):
        codec.decode(data[:-1])


@pytest.mark.usefixtures("plain")
def test_a_constant_is_taken_where_nothing_is_gained_by_more() -> None:
    """What is nearly one colour, or hardly matters, costs some thirty bytes."""
    glass = np.full((1, 64, 64), 240, np.uint8)
    assert unpack(PyramidCodec().encode(glass)).kind == "constant"
    glass[0, 5, 5] = 235
    assert unpack(PyramidCodec().encode(glass)).kind == "constant"
    assert unpack(PyramidCodec(target_psnr=30).encode(glass)).kind == "constant"
    pixels = tile()
    assert unpack(PyramidCodec().encode(pixels)).kind == "pyramid"
    assert unpack(PyramidCodec().encode(pixels, roi=np.full((48, 40), 1e-4, np.float32))).kind == "constant"


@pytest.mark.usefixtures("plain")
def test_what_is_not_valid_counts_for_nothing() -> None:
    pixels = tile(dtype="float32")
    pixels[:, :9] = np.nan
    codec = PyramidCodec(quality=80)
    found = codec.decode(codec.encode(pixels))
    assert found.dtype == np.float32
    assert np.abs(found - pixels)[:, 9:].max() < 12


def test_a_fit_gives_a_picture_back_and_equal_bytes_again() -> None:
    pytest.importorskip("torch")
    codec, pixels = PyramidCodec(steps=40, scales=4, hidden=4, context=4, levels=1, lmbda=1e-4), tile((32, 32))
    data = codec.encode(pixels)
    assert unpack(data).kind == "pyramid"
    assert codec.encode(pixels) == data
    flat = np.full_like(pixels, round(float(pixels.mean())))
    assert psnr(pixels, codec.decode(data)) > psnr(pixels, flat) + 3


def test_without_torch_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigError, match="no module `torch`"):
        PyramidCodec().encode(tile())


def test_shared_networks_encode_without_a_fit() -> None:
    pytest.importorskip("torch")
    from tests.codecs.pyramid.madeshared import made_shared

    shared, pixels = made_shared(), np.repeat(tile((16, 12)), 3, axis=0)
    codec = PyramidCodec(shared=shared, steps=0, lmbda=1e-4, max_error=3)
    data = codec.encode(pixels)
    assert unpack(data).header["n"] == shared.nets.digest
    assert codec.price == 1e-4
    assert PyramidCodec(shared=shared).price == shared.lmbda
    sent = pickle.loads(pickle.dumps(codec))
    assert sent.encode(pixels) == data
    settings = json.loads(json.dumps(codec.settings))
    assert settings["levels"] == len(shared.nets.synth)
    assert PyramidCodec(shared=shared, scales=3).settings["lmbda"] == shared.lmbda
    assert not {"quality", "scales"} & PyramidCodec(shared=shared, scales=3).settings.keys()
    with pytest.raises(ConfigError, match="they are trained for about"):
        PyramidCodec(shared=shared, quality=50)
    reader = tile_codec(settings)
    assert reader.settings == settings
    np.testing.assert_array_equal(reader.decode(data), codec.decode(data))
    with pytest.raises(ConfigError, match="shared networks that only decode"):
        reader.encode(pixels)
    assert with_steps(codec, 3).encode(pixels) != data


@pytest.mark.parametrize(("levels", "fronts"), [(1, 0), (2, 1), (9, 1)])
def test_a_tile_pays_for_fronts_of_the_levels_that_it_is_to_answer(levels: int, fronts: int) -> None:
    pytest.importorskip("torch")
    from tests.codecs.pyramid.madeshared import made_shared

    pixels = np.repeat(tile((32, 48)), 3, axis=0)
    codec = PyramidCodec(shared=made_shared(levels=2, lmbda=1e-5), steps=0, levels=levels)
    outline = outline_of(codec.encode(pixels))
    assert outline is not None
    assert outline.kind == "pyramid"
    assert len(outline.fronts) == fronts


@pytest.mark.parametrize("given", [{}, {"lmbda": 1e-3, "levels": 1}, {"target_bytes": 900, "steps": 9}, {"scales": 5}])
def test_settings_make_the_same_codec_again(given: dict[str, Any]) -> None:
    codec = PyramidCodec(**given)
    assert tile_codec(json.loads(json.dumps(codec.settings))).settings == codec.settings
    assert set(given) <= set(codec.settings)
    assert ("quality" in codec.settings) == (not {"lmbda", "target_bytes"} & given.keys())
    assert codec.name == codec.settings["codec"] == "pyramid"
    assert codec.weighs
    assert with_steps(codec, 7) == replace(codec, steps=7)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"quality": 0}, "1 to 100"),
        ({"lmbda": 0}, "above 0"),
        ({"lmbda": "low"}, "int or float"),
        ({"target_psnr": -3.0}, "decibels"),
        ({"target_bytes": 0}, "at least 1"),
        ({"max_error": -1}, "a whole number of 0"),
        ({"steps": True}, "`steps`"),
        ({"scales": 9}, "1 to 8"),
        ({"hidden": 0}, "1 to 64"),
        ({"context": 65}, "1 to 64"),
        ({"levels": 17}, "1 to 16"),
        ({"speed": 3}, "one of"),
        ({"lmbda": 1e-3, "target_bytes": 100}, "`lmbda` and `target_bytes`"),
        ({"max_error": 1, "target_psnr": 30}, "`target_psnr` and `max_error`"),
        ({"target_psnr": 30, "steps": 0}, "`target_psnr` of a codec: got it with `steps` of 0"),
        ({"quality": 50, "lmbda": 1e-3}, "`quality` and `lmbda`"),
        ({"quality": 50, "max_error": 1}, "`quality` and `max_error`"),
        ({"quality": 50, "target_bytes": 900}, "`quality` and `target_bytes`"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tile_codec({"codec": "pyramid", **settings})


@pytest.mark.parametrize(("given", "levels"), [({"levels": 10}, 4), ({"levels": 3, "scales": 2}, 2), ({}, 4)])
def test_settings_say_how_many_levels_have_networks(given: dict[str, int], levels: int) -> None:
    assert PyramidCodec(**given).settings["levels"] == levels


def with_roi(roi: Array) -> Callable[[], bytes]:
    return lambda: PyramidCodec().encode(tile(), roi=roi)


@pytest.mark.parametrize(
    ("encode", "named"),
    [
        (lambda: PyramidCodec(steps=0).encode(tile()), "`steps` of 0"),
        (lambda: PyramidCodec(max_error=1).encode(tile(dtype="float32")), "`max_error`"),
        (lambda: PyramidCodec().encode(tile()[0]), "`pixels`"),
        (with_roi(np.ones((3, 3), np.float32)), "`roi`"),
        (with_roi(np.full((48, 40), -1, np.float32)), "`roi`"),
        (with_roi(np.full((48, 40), np.nan, np.float32)), "`roi`"),
        (lambda: FieldCodec(field="pyramid").encode(tile()), "tile_codec"),
    ],
)
def test_what_cannot_be_encoded_is_named(encode: Callable[[], bytes], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        encode()


@pytest.mark.usefixtures("plain")
def test_zarr_reads_what_the_codec_has_made() -> None:
    from tilestream.codecs.neuralchunks import decode_chunk

    pixels = tile()
    data = PyramidCodec(max_error=0).encode(pixels)
    np.testing.assert_array_equal(decode_chunk(data, shape=pixels.shape, dtype=pixels.dtype), pixels)
    assert Levels.of(pixels).psnr(0, unpack_tile(data).decode()) == np.inf
