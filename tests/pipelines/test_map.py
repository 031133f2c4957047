"""`tilestream map`: maps of slides and scenes in stores that have their place, resumed to the bit, as files too."""

import json
import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import tilestream as ts
from tests.pipelines import maps
from tilestream.cli import app
from tilestream.cli.words import size
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, StageError
from tilestream.pipelines.map import map_tiles

HERE = "tests.pipelines.maps"
SLIDE = "slides/CMU-1-Small-Region.svs"
SCENE = "satellite/RGB.byte.tif"


def run(*words):
    return CliRunner().invoke(app, ["map", *map(str, words)], catch_exceptions=False)


def stored(place):
    pyramid = ts.open_pyramid(str(place))
    return pyramid, pyramid.read_region(pyramid.levels[0].box)


def files(folder: Path):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:700, :900]
    base = 120 + 60 * np.sin(y / 37) + 50 * np.cos(x / 21)
    pixels = np.clip(base + rng.normal(0, 8, base.shape), 0, 255).astype("u1")
    path = tmp_path_factory.mktemp("in") / "picture.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    return pixels, path


def test_a_slide_and_what_is_in_the_report(shared_data, tmp_path):
    out = tmp_path / "out"
    words = ["--stage", f"{HERE}:blur", "--where", "all", "--tile", "256", "--super-tile", "1024"]
    result = run(shared_data / SLIDE, "--out", out, *words)
    assert result.exit_code == 0, result.stderr
    assert "1 done, 0 failed" in result.stdout
    source = ts.open_pyramid(str(shared_data / SLIDE))
    pyramid, region = stored(out / "CMU-1-Small-Region.svs.blur.zarr")
    expected = maps.blur(source.read(source.levels[0].box)[None])[0]
    np.testing.assert_array_equal(region.pixels, expected)
    assert region.valid.all()
    assert pyramid.mpp == source.mpp
    assert [channel.name for channel in pyramid.channels] == ["blur"]
    (row,) = json.loads((out / "report.json").read_text())["inputs"]
    assert row["status"] == "done"
    assert row["tiles"] == 12 * 9
    assert row["outputs"] == ["CMU-1-Small-Region.svs.blur.zarr"]
    assert row["seconds"]["blur"] > 0
    levels = ts.kernels.mip(np.ascontiguousarray(expected))
    for level, made in zip(pyramid.levels[1:], levels, strict=False):
        np.testing.assert_array_equal(pyramid.read(level.box), made)
    again = run(shared_data / SLIDE, "--out", out, *words)
    assert "already done" in again.stderr


def test_a_scene_keeps_its_place_and_what_was_not_measured(shared_data, tmp_path):
    name = shared_data / SCENE
    source = ts.open_pyramid(str(name))
    whole = source.read_region(source.levels[0].box)
    assert not whole.valid.all()
    result = run(name, "--out", tmp_path, "--stage", f"{HERE}:classes", "--where", "all", "--to", "cog")
    assert result.exit_code == 0, result.stderr
    pyramid, region = stored(tmp_path / "RGB.byte.tif.classes.zarr")
    assert pyramid.kind == "labels"
    assert pyramid.crs == source.crs
    a, b, c, d, e, f = source.affine
    np.testing.assert_allclose(pyramid.affine, (4 * a, 4 * b, c, 4 * d, 4 * e, f), rtol=1e-12)
    pad = ((0, 0), (0, -whole.pixels.shape[1] % 4), (0, -whole.pixels.shape[2] % 4))
    scores = maps.classes(np.pad(whole.pixels, pad)[None])[0]
    valid = np.pad(whole.valid, pad[1:])
    valid = valid.reshape(valid.shape[0] // 4, 4, -1, 4).any(axis=(1, 3))
    np.testing.assert_array_equal(region.valid, valid)
    np.testing.assert_array_equal(region.pixels[0][valid], scores.argmax(axis=0)[valid])
    root = json.loads((tmp_path / "RGB.byte.tif.classes.zarr" / "zarr.json").read_text())["attributes"]
    assert root["flag_meanings"] == "dark light"
    assert root["multiscales"]["resampling_method"] == "mode"
    assert pyramid.info.nodata == 255
    cog = ts.open_pyramid(str(tmp_path / "RGB.byte.tif.classes.cog.tif"))
    np.testing.assert_array_equal(cog.read(cog.levels[0].box)[0][valid], region.pixels[0][valid])
    assert cog.crs == source.crs
    np.testing.assert_allclose(cog.affine, pyramid.affine)
    tree = xr.open_datatree(tmp_path / "RGB.byte.tif.classes.zarr", engine="zarr", consolidated=False)
    assert tree["0/image"].attrs["flag_meanings"] == "dark light"


def test_a_coarse_map_lies_half_a_pixel_off_as_ome_wants_it(shared_data, tmp_path):
    run(shared_data / SLIDE, "--out", tmp_path, "--stage", "local_entropy", "--where", "all")
    root = json.loads((tmp_path / "CMU-1-Small-Region.svs.local_entropy.zarr" / "zarr.json").read_text())["attributes"]
    scale, translation = root["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    np.testing.assert_allclose(scale["scale"][1:], [16 * 0.499] * 2)
    np.testing.assert_allclose(translation["translation"][1:], [7.5 * 0.499] * 2)
    assert root["tilestream"]["map"]["stride"] == 16


def test_tissue_another_resolution_and_a_range_in_bytes(shared_data, tmp_path):
    options = ["--stage", f"{HERE}:scaled", "--mpp", "2", "--where", "tissue"]
    assert run(shared_data / SLIDE, "--out", tmp_path, *options).exit_code == 0
    pyramid, region = stored(tmp_path / "CMU-1-Small-Region.svs.scaled.zarr")
    assert pyramid.mpp == pytest.approx(2.0, rel=0.01)
    assert pyramid.dtype == np.uint8
    assert pyramid.levels[0].shape.yx == (739, 553)
    assert 0.1 < region.valid.mean() < 0.9
    source = ts.open_pyramid(str(shared_data / SLIDE))
    plan = ts.plan_tiles(source, tile_px=64, mpp=2, where="tissue")
    for batch in ts.stream_tiles(source, plan):
        for (y, x), pixels in zip(batch.tile_yx, batch.pixels, strict=True):
            found = region.pixels[0, y : y + 64, x : x + 64]
            own = pixels[0, : found.shape[0], : found.shape[1]].astype("f4") / 255
            np.testing.assert_allclose(found / 254, own, atol=0.51 / 254)
    with xr.open_datatree(tmp_path / "CMU-1-Small-Region.svs.scaled.zarr", engine="zarr") as tree:
        image = tree["0/image"]
        assert np.nanmax(image.values) <= 1
        assert np.isnan(image.values).mean() == pytest.approx(1 - region.valid.mean())


def test_bytes_that_use_all_values_have_a_mask_of_what_was_mapped(shared_data, tmp_path):
    words = ["--stage", f"{HERE}:blur", "--tile", "128", "--where", "tissue", "--super-tile", "512"]
    assert run(shared_data / SLIDE, "--out", tmp_path, *words).exit_code == 0
    pyramid, region = stored(tmp_path / "CMU-1-Small-Region.svs.blur.zarr")
    source = ts.open_pyramid(str(shared_data / SLIDE))
    plan = ts.plan_tiles(source, tile_px=128, halo_px=1, where="tissue")
    wanted = np.kron(plan.wanted, np.ones((128, 128), np.bool_))[: region.valid.shape[0], : region.valid.shape[1]]
    np.testing.assert_array_equal(region.valid, wanted)
    expected = maps.blur(source.read(source.levels[0].box)[None])[0]
    np.testing.assert_array_equal(region.pixels[:, wanted], expected[:, wanted])
    assert pyramid.info.validity == "mask"
    coarse = pyramid.read_region(pyramid.levels[3].box)
    assert coarse.valid.mean() == pytest.approx(wanted.mean(), abs=0.02)


def test_damage_is_named_and_void(shared_data, tmp_path):
    result = run(shared_data / "broken/corrupt.tif", "--out", tmp_path, "--stage", "gradient", "--where", "all")
    assert result.exit_code == 0
    _, region = stored(tmp_path / "corrupt.tif.gradient.zarr")
    assert not region.valid[512:, 512:].any()
    assert region.valid[:256, :256].all()
    (row,) = json.loads((tmp_path / "report.json").read_text())["inputs"]
    assert row["tiles_damaged"] == 9  # those beside it see it in their halo
    assert "block y=1 x=1 of level 0" in row["damaged"]["listed"][0]["reason"]
    strict = run(
        shared_data / "broken/corrupt.tif", "--out", tmp_path, "--stage", "gradient", "--where", "all", "--strict"
    )
    assert strict.exit_code == 3


def test_killed_at_any_moment_it_goes_on_with_others_to_the_same_bits(picture, tmp_path):
    pixels, path = picture
    words = ["--stage", f"{HERE}:dying", "--where", "all", "--super-tile", "256", "--batch", "3"]
    assert run(path, "--out", tmp_path / "whole", *words).exit_code == 0
    command = [sys.executable, "-m", "tilestream.cli", "map", str(path), "--out", str(tmp_path / "cut"), *words]
    killed = subprocess.run(command, env={**os.environ, "DIE_AT": "30"}, check=False, timeout=120)
    assert killed.returncode == 9
    receipts = sorted((tmp_path / "cut/receipts/picture.png.blur.zarr").glob("L0-make0*.json"))
    assert receipts
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as racer:
        assert run(path, "--out", tmp_path / "cut", *words).exit_code == 0
        assert racer.wait(timeout=120) == 0
    (row,) = json.loads((tmp_path / "cut/report.json").read_text())["inputs"]
    assert row["supertiles"]["reused"] >= len(receipts)
    name = "picture.png.blur.zarr"
    assert files(tmp_path / "cut" / name) == files(tmp_path / "whole" / name)
    _, region = stored(tmp_path / "cut" / name)
    np.testing.assert_array_equal(region.pixels, maps.blur(pixels[None, None])[0])


def test_tiles_with_some_values_are_not_said_to_have_none(picture, tmp_path):
    pixels, path = picture
    result = run(path, "--out", tmp_path, "--stage", f"{HERE}:holed", "--where", "all", "--json")
    assert result.exit_code == 0
    assert "NOT ONE" not in result.stderr
    document = json.loads(result.stdout)
    (row,) = document["inputs"]
    assert document["totals"]["lost"] == row["tiles_failed"] == 0
    cells = np.pad(pixels, ((0, -700 % 64), (0, -900 % 64)), constant_values=255).reshape(11, 64, 15, 64)
    holed = int((cells < 100).any(axis=(1, 3)).sum())
    assert row["tiles_ok"] == row["tiles"] == 165
    assert row["failed"]["listed"][0]["tiles"] == holed > 100
    assert f"{holed} tiles have pixels without a finite value, which are nodata" in row["notes"]
    _, region = stored(tmp_path / "picture.png.holed.zarr")
    np.testing.assert_array_equal(region.valid, pixels >= 100)


def test_what_is_said_of_a_map_is_said_of_maps(picture, tmp_path):
    words = [picture[1], "--out", tmp_path, "--stage", f"{HERE}:encode", "--where", "all"]
    result = run(*words)
    document = json.loads((tmp_path / "report.json").read_text())
    (row,) = document["inputs"]
    unfit = row["tiles_failed"]
    assert 0 < unfit < row["tiles"]
    assert f" tiles, 0 damaged, {unfit} without a result; " in result.stdout.splitlines()[-1]
    assert row["seconds"]["stage encode"] > 0
    page = (tmp_path / "report.html").read_text()
    names = [channel.name for channel in ts.open_pyramid(str(tmp_path / "picture.png.encode.zarr")).channels]
    assert f"<figcaption>Map of {names[0]}, the first of 2 channels. Empty where it has no value.</figcaption>" in page
    assert "The map has no data where these tiles are." in page
    assert "tiles have no result of the stage" in page
    assert "no data in the map</small>" in page
    for other in ("of each tile", "of the encoder", "slide vectors", "left out of vectors"):
        assert other not in page


def test_a_file_made_of_a_finished_map_is_named(picture, tmp_path):
    words = [picture[1], "--out", tmp_path, "--stage", f"{HERE}:blur", "--where", "all"]
    run(*words)
    file = tmp_path / "picture.png.blur.cog.tif"
    for state in ("done", "kept"):
        result = run(*words, "--to", "cog")
        (line,) = (line for line in result.stderr.splitlines() if str(file) in line)
        assert line.startswith(f"{state} {file}: {size(file.stat().st_size)}")
        assert "already done picture.png" in result.stderr


def test_in_python_into_a_store_of_any_name(picture, tmp_path):
    pixels, path = picture
    pyramid = ts.open_pyramid(str(path))
    plan = ts.plan_tiles(pyramid, tile_px=100, halo_px=21, where="all", super_tile_px=400)
    report = map_tiles(pyramid, plan, f"{HERE}:blur", tmp_path / "x.zarr", blend=True)
    assert report.tiles == len(plan) == 63
    assert report.reused == 0
    _, region = stored(tmp_path / "x.zarr")
    np.testing.assert_array_equal(region.pixels, maps.blur(pixels[None, None])[0])
    assert map_tiles(pyramid, plan, f"{HERE}:blur", tmp_path / "x.zarr", blend=True).reused == len(report.receipts)


@pytest.mark.parametrize(
    ("stage", "sink", "options", "words"),
    [
        ("entropy", "x.zarr", {}, "a sink and a folder of receipts"),
        (f"{HERE}:blur", object(), {"receipts": "r"}, "a store's name for a stage of maps"),
        (f"{HERE}:blur", "x", {}, "a name that ends in .zarr"),
    ],
)
def test_sinks_that_do_not_fit_the_stage_are_refused(picture, stage, sink, options, words):
    pyramid = ts.open_pyramid(str(picture[1]))
    plan = ts.plan_tiles(pyramid, tile_px=64, halo_px=1, where="all")
    with pytest.raises(ConfigError, match=words):
        map_tiles(pyramid, plan, stage, sink, **options)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stage", f"{HERE}:vector"], "Run it with `tilestream embed --encoder`"),
        (["--stage", "nothing"], "an unknown name"),
        (
            ["--stage", "stein"],
            "one of ['gradient', 'local_entropy', 'stain', 'structure'] or `module:callable`. Did you mean `stain`?",
        ),
        (["--stage", f"{HERE}:vector"], 'add `"output": "dense"` to its contract'),
        (["--stage", f"{HERE}:stack_of"], 'a stage of maps adds `"output": "dense"`'),
        (["--stage", f"{HERE}:named"], "and not `features` or `entropy`"),
        (["--stage", f"{HERE}:blur", "--halo", "33"], "leaves something of the tile"),
        (["--stage", f"{HERE}:blur", "--to", "png"], "`--to`"),
        (["--stage", f"{HERE}:blur", "--where", "none"], "`--where`"),
        (["--stage", f"{HERE}:blur", "--super-tile", "100"], "a multiple of 64 px"),
    ],
)
def test_what_cannot_be_met_ends_with_2(picture, tmp_path, words, said):
    result = run(picture[1], "--out", tmp_path, *words)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stage", f"{HERE}:bad_shape"], "real numbers of shape (1, k, 64, 64)"),
        (["--stage", f"{HERE}:no_dtype"], "uint8 for values of float32"),
        (["--stage", f"{HERE}:one_of_all"], "shape (1, 1, 64, 64), expected real numbers of shape (2, k, 64, 64)"),
        (["--stage", f"{HERE}:raising"], "ValueError: no weights"),
        (["--stage", f"{HERE}:nothing"], "`nothing`: values that are not finite (165 tiles)"),
        (["--stage", f"{HERE}:blur", "--tile", "64", "--halo", "0"], "at least the 1 px"),
        (["--stage", f"{HERE}:classes", "--tile", "62"], "multiples of the stage's stride, 4 px"),
        (["--stage", f"{HERE}:blur", "--memory", "1KB"], "memory for"),
        (["--stage", "stain"], "red, green and blue of brightfield"),
    ],
)
def test_what_an_image_or_a_stage_does_not_allow_fails_that_input_by_name(picture, tmp_path, words, said):
    result = run(picture[1], "--out", tmp_path, "--where", "all", "--json", *words)
    assert result.exit_code == 3
    (row,) = json.loads(result.stdout)["inputs"]
    assert said in row["reason"]
    assert not list(tmp_path.glob("*.zarr"))


def test_the_light_of_a_picture_may_be_said(tmp_path):
    """A picture of glass does not say that it is one; with the word of a manifest its stains are told apart."""
    pixels = np.random.default_rng(0).integers(60, 250, (130, 150, 3), np.uint8)
    (tmp_path / "glass.png").write_bytes(imagecodecs.png_encode(pixels))
    words = ["--out", tmp_path / "out", "--stage", "stain", "--where", "all"]
    refused = run(tmp_path / "glass.png", *words)
    assert refused.exit_code == 3
    assert "in unknown light" in refused.stderr
    assert "a column `light` with `brightfield` in the manifest" in " ".join(refused.stderr.split())
    (tmp_path / "cohort.csv").write_text("path,light\nglass.png,brightfield\n")
    done = run("--manifest", tmp_path / "cohort.csv", *words)
    assert done.exit_code == 0, done.stderr
    pyramid, region = stored(tmp_path / "out" / "glass.png.stain.zarr")
    assert [channel.name for channel in pyramid.channels] == ["hematoxylin", "eosin", "dab"]
    expected = ts.kernels.stain_separation(pixels.transpose(2, 0, 1)[None])[0]
    np.testing.assert_array_equal(region.pixels, expected)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "brightfield as given by the user; the file states unknown" in report["inputs"][0]["notes"]
    with pytest.raises(ConfigError, match="one of brightfield, fluorescence"):
        ts.open_pyramid(tmp_path / "glass.png").choose(light="candle")


def test_a_stage_of_maps_is_no_encoder(picture, tmp_path):
    words = ["embed", str(picture[1]), "--out", str(tmp_path), "--encoder", f"{HERE}:blur"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 2
    assert "tilestream map --stage" in " ".join(result.stderr.split())


@pytest.mark.slow
def test_on_object_storage_it_is_what_it_is_on_a_disk(s3_environment, picture, tmp_path):
    pyramid = ts.open_pyramid(str(picture[1]))
    plan = ts.plan_tiles(pyramid, tile_px=64, halo_px=1, where="all", super_tile_px=256)
    map_tiles(pyramid, plan, f"{HERE}:blur", tmp_path / "x.zarr")
    url = f"{s3_environment.url}/maps/x.zarr"
    report = map_tiles(pyramid, plan, f"{HERE}:blur", url)
    assert report.tiles == len(plan)
    place = Place.of(url)
    there = {name: data for name, data in place.get_many(place.sizes()).items() if not name.startswith("receipts")}
    assert there == files(tmp_path / "x.zarr")
    assert map_tiles(pyramid, plan, f"{HERE}:blur", url).reused == len(report.receipts)


def test_maps_of_an_earlier_run_are_no_inputs(picture, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture[1].read_bytes())
    for _ in range(2):
        result = run(folder, "--out", folder, "--stage", f"{HERE}:blur", "--where", "all", "--to", "cog")
        assert result.exit_code == 0, result.stderr
        assert "1 done, 0 failed" in result.stdout
    other = run(folder, "--out", tmp_path / "other", "--stage", "gradient", "--where", "all")
    assert "1 done, 0 failed" in other.stdout


def test_a_stage_that_fails_in_the_middle_is_an_error_of_the_call(picture, tmp_path, monkeypatch):
    pyramid = ts.open_pyramid(str(picture[1]))
    plan = ts.plan_tiles(pyramid, tile_px=64, halo_px=1, where="all")
    calls = []

    def later(x):
        calls.append(len(x))
        if len(calls) > 6:
            raise ValueError("out of luck")
        return maps.blur(x)

    later.contract = {**maps.blur.contract, "name": "later"}
    monkeypatch.setattr(maps, "later", later, raising=False)
    with pytest.raises(StageError, match="out of luck"):
        map_tiles(pyramid, plan, f"{HERE}:later", tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()
