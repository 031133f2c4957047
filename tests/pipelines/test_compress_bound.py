"""`compress --codec pyramid --max-error N`: no valid sample of any stored level is off by more, and 0 loses nothing."""

from __future__ import annotations

import json

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tilestream.cli import app
from tilestream.codecs.tilecodec import unpack_tile
from tilestream.kernels.mip import mip
from tilestream.pipelines import compress_size

NODATA = 7


def run(command, *words):
    return CliRunner().invoke(app, [command, *map(str, words)], catch_exceptions=False)


def bounded(*words):
    return run("compress", *words, "--codec", "pyramid", "--tile", 32)


def said(result):
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def pixels():
    """Texture of 40 x 75 px, a corner of which was not measured."""
    y, x = np.mgrid[:40, :75]
    noise = np.random.default_rng(0).normal(0, 9, y.shape)
    found = np.clip(120 + 60 * np.sin(y / 9) + 40 * np.cos(x / 7) + noise, NODATA + 1, 255).astype(np.uint8)
    found[25:, :11] = NODATA
    return found


@pytest.fixture(scope="module")
def image(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("in") / "a.tif"
    tifffile.imwrite(path, pixels, extratags=[(42113, "s", 0, str(NODATA), True)])  # GDAL's nodata
    return path


def settings_of(store):
    return json.loads((store / "zarr.json").read_bytes())["attributes"]["tilestream"]["settings"]


@pytest.mark.parametrize(("most", "words"), [(0, []), (3, []), (3, ["--single-level"])])
def test_no_valid_sample_is_off_by_more(most, words, pixels, image, tmp_path):
    result = bounded(image, "--out", tmp_path, "--max-error", most, *words)
    assert result.exit_code == 0, said(result)
    store = tmp_path / "a.tif.field.zarr"
    pyramid, root, valid = ts.open_pyramid(str(store)), zarr.open(store, mode="r"), pixels != NODATA
    region = pyramid.read_region(pyramid.levels[0].box)
    np.testing.assert_array_equal(region.valid, valid)
    error = np.abs(region.pixels[0].astype(int) - pixels)[valid]
    assert error.max() == most
    np.testing.assert_array_equal(root["0/image"][0][valid], region.pixels[0][valid])
    inner = pyramid.read(pyramid.levels[1].box)[0, :12]  # of level 1, where all is valid that it is made of
    assert np.abs(inner.astype(int) - mip(pixels[None], levels=1)[0][0, :12]).max() <= most
    assert ("1" in root) == ("--single-level" not in words)
    assert settings_of(store) == {"codec": "pyramid", "max_error": most, "steps": 0, "levels": 1}
    assert ("no sample off by more than 3" if most else "by level exact") in result.stdout


def test_steps_fit_a_picture_to_look_at_first(pixels, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(compress_size, "probed_cost", lambda codec, tile: compress_size.Cost())
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels[:24, :30]))
    assert bounded(tmp_path / "a.png", "--out", tmp_path, "--max-error", 1, "--steps", 3).exit_code == 0
    store = tmp_path / "a.png.field.zarr"
    assert settings_of(store) == {"codec": "pyramid", "max_error": 1, "steps": 3, "levels": 1}
    assert np.abs(zarr.open(store, mode="r")["0/image"][0].astype(int) - pixels[:24, :30]).max() == 1
    tile = unpack_tile((store / "0/image/c/0/0/0").read_bytes())
    assert len(np.unique(tile.decode(stages=tile.stages))) > 1  # where nothing is fitted it is of one colour


def test_lossless_samples_of_16_bits_come_back_as_files(pixels, tmp_path):
    wide = pixels.astype(np.uint16) * 251
    tifffile.imwrite(tmp_path / "a.tif", wide)
    assert bounded(tmp_path / "a.tif", "--out", tmp_path / "out", "--max-error", 0).exit_code == 0
    made = run("decompress", tmp_path / "out", "--out", tmp_path / "back")
    assert made.exit_code == 0, said(made)
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "back/a.tif.field.png").read_bytes()), wide)


def test_another_bound_is_another_recipe(image, tmp_path):
    assert bounded(image, "--out", tmp_path, "--max-error", 3).exit_code == 0
    again = bounded(image, "--out", tmp_path, "--max-error", 3)
    assert "already done" in again.stderr
    other = bounded(image, "--out", tmp_path, "--max-error", 2)
    assert other.exit_code == 3
    assert "store.codec.max_error 3 there, 2 now" in said(other)


def test_under_shared_networks_a_pass_and_the_bound_are_enough(pixels, tmp_path):
    pytest.importorskip("torch")
    from tests.codecs.pyramid.madeshared import made_shared
    from tilestream.codecs.pyramid.shared import save_shared

    weights = save_shared(made_shared(channels=1), tmp_path)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    result = bounded(tmp_path / "a.png", "--out", tmp_path / "out", "--max-error", 2, "--weights", weights)
    assert result.exit_code == 0, said(result)
    store = tmp_path / "out/a.png.field.zarr"
    assert np.abs(zarr.open(store, mode="r")["0/image"][0].astype(int) - pixels).max() == 2
    settings = settings_of(store)
    assert (settings["steps"], settings["lmbda"], "quality" in settings) == (0, 1e-3, False)
    both = bounded(
        tmp_path / "a.png", "--out", tmp_path / "out", "--max-error", 2, "--weights", weights, "--quality", 50
    )
    assert "Leave --quality out" in said(both)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--codec", "hash", "--max-error", "1"], "which alone bounds errors. Choose --codec pyramid"),
        (["--codec", "pyramid", "--max-error", "1", "--quality", "50"], "Leave --quality out"),
        (["--codec", "pyramid", "--max-error", "1", "--relevance", "entropy"], "a bound holds everywhere alike"),
        (["--codec", "pyramid", "--max-error", "-1"], "a whole number of 0 to 32,767"),
        (["--codec", "pyramid", "--max-error", "1", "--steps", "-1"], "`steps` of a codec"),
        (["--codec", "pyramid", "--max-error", "1.5"], "--max-error"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(words, expected, tmp_path):
    result = run("compress", tmp_path / "none.png", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert expected in said(result)
    assert not (tmp_path / "out").exists()


def test_floats_have_no_bound(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 8), np.float32))
    result = bounded(tmp_path / "a.tif", "--out", tmp_path / "out", "--max-error", 1)
    assert result.exit_code == 3
    assert "`--max-error`: got an image of float32" in said(result)


def test_an_ingest_keeps_it_too(pixels, image, tmp_path):
    result = run("ingest", image, "--out", tmp_path, "--profile", "neural", "--max-error", 0)
    assert result.exit_code == 0, said(result)
    valid = pixels != NODATA
    np.testing.assert_array_equal(zarr.open(tmp_path / "a.tif.zarr", mode="r")["0/image"][0][valid], pixels[valid])
    wrong = run("ingest", image, "--out", tmp_path / "b", "--max-error", 0)
    assert (wrong.exit_code, "Give --profile neural" in said(wrong)) == (2, True)
