"""`tilestream compress` and `decompress`: stores of fields, resumed to the bit, and pictures made of them again."""

import json
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tests.codecs.exactfield import NAME, PATH
from tilestream.cli import app
from tilestream.kernels.mip import mip
from tilestream.registry import CODECS

TILE = 64
SCENE = "satellite/RGB.byte.tif"


def run(command, *words):
    return CliRunner().invoke(app, [command, *map(str, words)], catch_exceptions=False)


def compress(*words):
    return run("compress", *words, "--tile", TILE)


def files(folder: Path):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def planes(pixels):
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@pytest.fixture(autouse=True)
def exact_codec(monkeypatch):
    monkeypatch.setitem(CODECS, NAME, PATH)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Colours of 180 x 1100 px, one corner of a single colour; arrays 0 and 4 of tiles of 64 px."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:180, :1100]
    base = np.clip(120 + 60 * np.sin(y / 37) + 50 * np.cos(x / 21) + rng.normal(0, 8, y.shape), 0, 255).astype("u1")
    pixels = np.stack([base, 255 - base, base // 2], axis=-1)
    pixels[:128, :128] = 200
    path = tmp_path_factory.mktemp("in") / "picture.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    return pixels, path


@pytest.fixture(scope="module")
def stored(picture, tmp_path_factory):
    """The picture as a store, with what the command said."""
    out = tmp_path_factory.mktemp("out")
    CODECS[NAME] = PATH
    try:
        result = compress(picture[1], "--out", out, "--codec", NAME)
    finally:
        del CODECS[NAME]
    assert result.exit_code == 0, result.stderr
    return out, result


def test_every_level_comes_back_and_the_report_tells_what_it_costs(picture, stored):
    out, result = stored
    pixels = planes(picture[0])
    group = zarr.open_group(out / "picture.png.field.zarr", mode="r")
    np.testing.assert_array_equal(group["0/image"][:], pixels)
    np.testing.assert_array_equal(group["4/image"][:], mip(pixels, levels=4)[3])
    pyramid = ts.open_pyramid(str(out / "picture.png.field.zarr"))
    for level, expected in zip(pyramid.levels, [pixels, *mip(pixels, levels=5)], strict=False):
        np.testing.assert_array_equal(pyramid.read(level.box), expected)
    assert "begin picture.png: 56 tiles" in result.stderr
    assert "1 done, 0 failed, 0 ignored; 56 tiles, 0 damaged" in result.stdout
    (row,) = json.loads((out / "report.json").read_text())["inputs"]
    coded = row["coded"]
    assert (coded["codec"], coded["fitted"] + coded["constant"], row["tiles"]) == (NAME, 56, 56)
    assert coded["constant"] == 4
    chunks = {name: data for name, data in files(out / "picture.png.field.zarr").items() if "/image/c/" in name}
    assert coded["bytes"] == sum(map(len, chunks.values()))
    assert coded["bpp"] == round(8 * coded["bytes"] / pixels[0].size, 4)
    assert coded["psnr"] == [None] * len(pyramid.levels)
    assert coded["exact"] == list(range(len(pyramid.levels)))
    assert "in tiles (" in result.stdout
    assert f"PSNR in dB by level {', '.join(['exact'] * len(pyramid.levels))}\n" in result.stdout
    record = dict(group.attrs)["tilestream"]
    assert {name: record["quality"][name] for name in ("bytes", "bpp", "psnr")} == {
        name: coded[name] for name in ("bytes", "bpp", "psnr")
    }
    page = (out / "report.html").read_text()
    assert "Stored as fields" in page
    assert "Bits per pixel" in page


def test_a_second_run_finds_it_done_and_other_options_are_refused(picture, stored):
    out, _ = stored
    again = compress(picture[1], "--out", out, "--codec", NAME)
    assert (again.exit_code, "already done" in again.stderr) == (0, True), again.stderr
    other = compress(picture[1], "--out", out, "--codec", NAME, "--quality", 70)
    assert other.exit_code == 3
    assert "store.codec.quality 50.0 there, 70.0 now" in " ".join(other.stderr.split())


def test_tiles_that_are_lost_are_made_again_to_the_same_bits(picture, stored, tmp_path):
    whole = files(stored[0] / "picture.png.field.zarr")
    out = tmp_path / "out"
    first = compress(picture[1], "--out", out, "--codec", NAME, "--cluster", "threads:1")
    assert first.exit_code == 0, first.stderr
    assert files(out / "picture.png.field.zarr") == whole
    (out / "picture.png.field.zarr").rename(out / ".picture.png.field.zarr.partial")  # as if it had never been finished
    lost = out / ".picture.png.field.zarr.partial"
    (lost / "zarr.json").unlink()
    (lost / "0/image/c/0/1/7").unlink()
    again = compress(picture[1], "--out", out, "--codec", NAME)
    assert again.exit_code == 0, again.stderr
    assert files(out / "picture.png.field.zarr") == whole


def test_what_was_not_measured_is_a_mask_on_every_level(shared_data, tmp_path):
    source = ts.open_pyramid(str(shared_data / SCENE))
    whole = source.read_region(source.levels[0].box)
    assert not whole.valid.all()
    result = run("compress", shared_data / SCENE, "--out", tmp_path, "--codec", NAME, "--tile", 256)
    assert result.exit_code == 0, result.stderr
    pyramid = ts.open_pyramid(str(tmp_path / "RGB.byte.tif.field.zarr"))
    assert pyramid.crs == source.crs
    np.testing.assert_allclose(pyramid.affine, source.affine)
    region = pyramid.read_region(pyramid.levels[0].box)
    np.testing.assert_array_equal(region.valid, whole.valid)
    np.testing.assert_array_equal(region.pixels[:, whole.valid], whole.pixels[:, whole.valid])
    valid = whole.valid
    for level in pyramid.levels[1:]:
        padded = np.pad(valid, [(0, size % 2) for size in valid.shape])
        valid = padded.reshape(padded.shape[0] // 2, 2, -1, 2).any(axis=(1, 3))
        np.testing.assert_array_equal(pyramid.read_region(level.box).valid, valid)
    made = run("decompress", tmp_path / "RGB.byte.tif.field.zarr", "--out", tmp_path / "tiff")
    assert made.exit_code == 0, made.stderr
    cog = ts.open_pyramid(str(tmp_path / "tiff/RGB.byte.tif.field.cog.tif"))
    assert cog.crs == source.crs
    np.testing.assert_array_equal(cog.read_region(cog.levels[0].box).pixels, np.where(whole.valid, whole.pixels, 0))


def test_pictures_of_any_level_are_kept_and_nothing_else_is_overwritten(picture, stored, tmp_path):
    store, pixels = stored[0] / "picture.png.field.zarr", planes(picture[0])
    result = run("decompress", store, "--out", tmp_path)
    assert result.exit_code == 0, result.stderr
    path = tmp_path / "picture.png.field.png"
    np.testing.assert_array_equal(planes(imagecodecs.png_decode(path.read_bytes())), pixels)
    assert "1 kept from an earlier run" in run("decompress", store, "--out", tmp_path).stdout
    run("decompress", store, "--out", tmp_path, "--level", 2)
    coarse = imagecodecs.png_decode((tmp_path / "picture.png.field.L2.png").read_bytes())
    np.testing.assert_array_equal(planes(coarse), mip(pixels, levels=2)[1])
    path.write_bytes(imagecodecs.png_encode(picture[0]))
    refused = run("decompress", store, "--out", tmp_path)
    assert refused.exit_code == 3
    assert "has not written" in refused.stdout


def test_a_level_between_two_is_their_mean_by_areas(picture, stored, tmp_path):
    store, pixels = stored[0] / "picture.png.field.zarr", planes(picture[0])
    result = run("decompress", store, "--out", tmp_path, "--level", 0.5, "--to", "tiff")
    assert result.exit_code == 0, result.stderr
    made = tifffile.imread(tmp_path / "picture.png.field.L0.5.ome.tif")
    made = made if made.shape[0] == 3 else planes(made)
    assert made.shape == (3, 128, 778)
    means = pixels.mean(axis=(1, 2))
    np.testing.assert_allclose(made.mean(axis=(1, 2)), means, atol=0.5)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--codec", "jpeg"], "`--codec`: got 'jpeg', expected one of exact, fourier, hash, "),
        (["--quality", "0"], "`quality` of a codec: got 0.0, expected a number of 1 to 100"),
        (["--tile", "100"], "`tile`: got 100 px, expected a multiple of 8"),
        (["--steps", "0"], "`steps` of a codec: got 0"),
        (["--hours", "0"], "`--hours`: got 0.0, expected hours above 0"),
    ],
)
def test_options_are_refused_before_anything_is_looked_for(words, expected, tmp_path):
    result = run("compress", tmp_path / "nothing.png", "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("compress", ["--codec", NAME, "--hours", "1e-9"], "Lower --steps or --quality"),
        ("compress", ["--codec", NAME, "--memory", "1MiB"], "give a smaller --tile"),
        ("decompress", [], "expected a store that `tilestream compress` wrote"),
    ],
)
def test_what_cannot_be_done_fails_its_input_before_a_byte_is_written(command, words, expected, picture, tmp_path):
    result = run(command, picture[1], "--out", tmp_path / "out", *words)
    assert result.exit_code == 3
    assert expected in " ".join((result.stderr + result.stdout).split())
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_folders_are_looked_through_for_what_each_command_takes(picture, stored, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(stored[0] / "picture.png.field.zarr", both / "picture.png.field.zarr")
    shutil.copy(picture[1], both / "other.png")
    found = run("decompress", both, "--out", tmp_path / "out")
    assert (found.exit_code, "1 done, 0 failed, 1 ignored" in found.stdout) == (0, True), found.stdout
    (row,) = json.loads(compress(both, "--out", tmp_path / "out", "--codec", NAME, "--json").stdout)["inputs"][:1]
    assert (row["path"], row["status"]) == ("other.png", "done")


def test_one_array_answers_all_levels_of_its_picture(picture, tmp_path):
    result = compress(picture[1], "--out", tmp_path, "--codec", NAME, "--single-level")
    assert result.exit_code == 0, result.stderr
    store, pixels = tmp_path / "picture.png.field.zarr", planes(picture[0])
    assert list(zarr.open_group(store, mode="r")) == ["0"]
    pyramid = ts.open_pyramid(str(store))
    assert len(pyramid.levels) == 6
    for level, expected in zip(pyramid.levels, [pixels, *mip(pixels, levels=5, restart=5)], strict=True):
        assert np.abs(pyramid.read(level.box).astype(int) - expected).max() <= 1
    (row,) = json.loads((tmp_path / "report.json").read_text())["inputs"]
    assert row["coded"]["exact"] == list(range(6))
    other = compress(picture[1], "--out", tmp_path, "--codec", NAME)
    assert "store.level_step null there, 4 now" in " ".join(other.stderr.split())


@pytest.mark.parametrize(
    ("level", "code", "expected"),
    [
        ("-1", 2, "0 or more"),
        ("inf", 2, "0 or more"),
        ("nan", 2, "0 or more"),
        ("6", 3, "0 to 5, the coarsest there is"),
        ("99", 3, "0 to 5, the coarsest there is"),
    ],
)
def test_levels_that_are_not_there_are_named(level, code, expected, stored, tmp_path):
    result = run("decompress", stored[0], "--out", tmp_path, f"--level={level}")
    assert result.exit_code == code
    told = " ".join((result.stdout + result.stderr).split())
    assert f"`--level`: got {level}" in told
    assert expected in told


def test_another_recipe_is_refused_before_anything_is_fitted_for_its_forecast(picture, stored, monkeypatch):
    monkeypatch.setattr("tilestream.pipelines.compress_image.forecast_store", None)  # a call would raise TypeError
    result = compress(picture[1], "--out", stored[0], "--codec", NAME, "--quality", 70)
    assert result.exit_code == 3
    said = " ".join((result.stdout + result.stderr).split())
    assert "results of another recipe" in said
    assert "quality 50.0 there, 70.0 now" in said
