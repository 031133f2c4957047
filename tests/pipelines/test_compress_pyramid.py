"""Stores of fitted pyramid tiles: the same pixels by every way to open them, kept once read, damage as a status."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tests.pipelines.readstore import digest_of, levels_of
from tilestream.cache import forget_blocks
from tilestream.cache.fields import forget_fields
from tilestream.cli import app
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.quality import psnr
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip
from tilestream.metrics import collect
from tilestream.pipelines import compress_size
from tilestream.sources.opening import open_source
from tilestream.types import Box

pytest.importorskip("torch")
TILE, STEPS = 64, 12
READERS = 2


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(autouse=True)
def nothing_is_kept():
    forget_fields()
    forget_blocks()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Texture of 64 x 120 px: two tiles, and one of half the size."""
    y, x = np.mgrid[:64, :120]
    noise = np.random.default_rng(0).normal(0, 6, y.shape)
    pixels = np.clip(120 + 60 * np.sin(y / 9) + 40 * np.cos(x / 7) + noise, 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("in") / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    return pixels[None], path


def free(codec, tile):
    """What a tile costs, without the fits that tell."""
    return compress_size.Cost()


def compress(image, out, *words):
    run("compress", image, "--out", out, "--codec", "pyramid", "--tile", TILE, "--steps", STEPS, *words)
    return out / "a.png.field.zarr"


@pytest.fixture(scope="module")
def plain(image, tmp_path_factory):
    return compress(image[1], tmp_path_factory.mktemp("plain"), "--quality", 90)


@pytest.fixture(scope="module")
def weighed(image, tmp_path_factory):
    """The store where the right half matters."""
    folder = tmp_path_factory.mktemp("weighed")
    corners = [[60, 0], [120, 0], [120, 64], [60, 64], [60, 0]]
    (folder / "right.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    mask = f"mask:{folder / 'right.geojson'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compress_size, "probed_cost", free)
        return compress(image[1], folder / "out", "--quality", 90, "--relevance", mask, "--emphasis", 30)


@pytest.fixture(params=["plain", "weighed"])
def store(request) -> Path:
    return request.getfixturevalue(request.param)


def record_of(store: Path):
    return json.loads((store / "zarr.json").read_bytes())["attributes"]["tilestream"]


def test_zarr_and_xarray_read_what_our_source_reads_and_that_is_near_the_image(image, store):
    levels, record = levels_of(store), record_of(store)
    root = zarr.open(store, mode="r")
    with xr.open_datatree(store, engine="zarr") as tree:
        for number, found in enumerate(levels):
            np.testing.assert_array_equal(root[f"{number}/image"][:], found)
            np.testing.assert_array_equal(tree[f"{number}/image"].values, found)
    quality = record["quality"]
    assert len(levels) == 2
    for stated, found, expected in zip(quality["psnr"], levels, [image[0], *mip(image[0], levels=1)], strict=True):
        assert stated == pytest.approx(psnr(found, expected), abs=1e-3)
        assert stated > 12
    assert record["settings"] == {"codec": "pyramid", "quality": 90.0, "steps": STEPS, "levels": 1}
    stored = sum(path.stat().st_size for path in store.glob("?/image/c/**/*") if path.is_file())
    assert quality["bytes"] == stored


def test_bytes_go_where_it_matters(image, plain, weighed):
    assert record_of(weighed)["relevance"]["emphasis_db"] == 30
    assert record_of(weighed)["quality"]["bytes"] < record_of(plain)["quality"]["bytes"]
    error = (levels_of(weighed)[0].astype(float) - image[0]) ** 2
    assert error[..., 64:].mean() < error[..., :56].mean()
    assert record_of(weighed)["quality"]["psnr_weighed"] > record_of(weighed)["quality"]["psnr"][0]


def test_readers_at_once_get_the_same(store):
    alone = digest_of(str(store))
    forget_fields()
    forget_blocks()
    with ThreadPoolExecutor(READERS) as threads:
        assert set(threads.map(digest_of, [str(store)] * 2 * READERS)) == {alone}


def test_processes_at_once_get_the_same(plain):
    with ProcessPoolExecutor(READERS, mp_context=get_context("spawn")) as processes:
        assert set(processes.map(digest_of, [str(plain)] * READERS)) == {digest_of(str(plain))}


def test_grids_are_decoded_once_and_pixels_too_while_they_are_kept(plain, monkeypatch):
    decoded, grids = [], PyramidFile.grids

    def counted(self, count, **known):
        decoded.append(count)
        return grids(self, count, **known)

    monkeypatch.setattr(PyramidFile, "grids", counted)
    source = open_source(str(plain))
    with collect() as meter:
        first, again = source.read_block(0, 0, 1), source.read_block(0, 0, 1)
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (meter.counts["cache.fields.misses"], meter.counts["cache.fields.hits"], len(decoded)) == (1, 1, 1)
    pyramid = ts.open_pyramid(str(plain))
    with collect() as meter:
        for _ in range(2):
            pyramid.read(Box(y=3, x=70, height=9, width=20))
    assert meter.counts["blocks_decoded"] == 1
    assert (meter.counts["cache.decoded.hits"], len(decoded)) == (1, 1)


def test_a_damaged_chunk_is_a_status_and_the_others_are_read(plain, tmp_path):
    store = Path(shutil.copytree(plain, tmp_path / "a.zarr"))
    whole, chunk = levels_of(store), store / "0/image/c/0/0/1"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 4
    chunk.write_bytes(data)
    forget_fields()
    forget_blocks()
    pyramid = ts.open_pyramid(str(store))
    region = pyramid.read_region(pyramid.levels[0].box)
    assert [reason for reason in region.damage if "c/0/0/1" in reason] == list(region.damage)
    assert len(region.damage) == 1
    np.testing.assert_array_equal(region.valid, np.broadcast_to(np.arange(120) < TILE, (64, 120)))
    np.testing.assert_array_equal(region.pixels[:, region.valid], whole[0][:, region.valid])
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[1].box), whole[1])
    np.testing.assert_array_equal(zarr.open(store, mode="r")["0/image"][:, :, :TILE], whole[0][..., :TILE])


def test_build_pyramid_fits_tiles_by_the_profile_neural(image, tmp_path, monkeypatch):
    monkeypatch.setattr("tilestream.pipelines.compress_codec.STEPS", STEPS)
    monkeypatch.setattr(compress_size, "probed_cost", free)
    pyramid = ts.build_pyramid(image[1], tmp_path / "a.zarr", profile="neural", quality=80)
    found = pyramid.read(pyramid.levels[0].box)
    assert psnr(found, image[0]) > 12
    settings = record_of(tmp_path / "a.zarr")["settings"]
    assert settings == {"codec": "pyramid", "quality": 80, "steps": STEPS, "levels": 1}
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.zarr", mode="r")["0/image"][:], found)
    again = ts.build_pyramid(image[1], tmp_path / "a.zarr", profile="neural", quality=80)
    assert again.identity == pyramid.identity


def test_build_pyramid_takes_what_ingest_takes(image, tmp_path):
    pyramid = ts.build_pyramid(image[1], tmp_path / "a.zarr", profile="neural", max_error=0, single_level=True)
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[0].box), image[0])
    with pytest.raises(ConfigError, match="`--max-error`: got it with `--quality`"):
        ts.build_pyramid(image[1], tmp_path / "b.zarr", profile="neural", max_error=0, quality=50)
    with pytest.raises(ConfigError, match="Give --profile neural"):
        ts.build_pyramid(image[1], tmp_path / "b.zarr", steps=50)
    with pytest.raises(ConfigError, match="no file"):
        ts.build_pyramid(image[1], tmp_path / "b.zarr", profile="neural", weights="nowhere")
