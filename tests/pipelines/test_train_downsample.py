"""`tilestream train downsample`: what it learns from, writes, says and refuses; its file is a filter of an ingest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from tilestream.cli import app
from tilestream.codecs.downsample.record import read_downsampler
from tilestream.codecs.downsample.training import DownsampleSettings
from tilestream.errors import ConfigError
from tilestream.pipelines.train_downsample import DownsampleConfig, run_downsample

QUICK = ("--where", "all", "--tile", 32, "--patch", 16, "--steps", 5, "--width", 4, "--window", 4)


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "a.tif"
    y, x = np.mgrid[:64, :160]
    pixels = 128 + 60 * np.sin(1.9 * x[..., None] + np.arange(3)) + 0 * y[..., None]
    tifffile.imwrite(path, pixels.astype(np.uint8), tile=(64, 64), photometric="rgb")
    return path


@pytest.fixture
def run():
    def call(*words):
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)

    return call


def test_a_slide_becomes_a_filter_of_an_ingest(slide, run, tmp_path) -> None:
    out = tmp_path / "out"
    done = run("train", "downsample", slide, "--out", out, "--levels", 2, *QUICK)
    assert done.exit_code == 0, done.output
    said = done.stdout.replace("\n", " ")
    assert "4 tiles of 1 image; 6 held out" in said  # columns of two tiles: those that the border cuts are held out
    assert "1/2: restored at" in said
    assert "1/4: restored at" in said
    file, metrics = read_downsampler(out / "downsampler.safetensors"), json.loads((out / "metrics.json").read_text())
    assert file.record.levels == 2
    assert file.record.training["held_out"] == metrics["mean"]
    assert [score["level"] for score in metrics["held_out"]["a.tif"]] == [1, 2]
    stored = run("ingest", slide, "--out", tmp_path / "stores", "--filter", out / "downsampler.safetensors")
    assert stored.exit_code == 0, stored.output
    root = json.loads((tmp_path / "stores" / "a.tif.zarr" / "zarr.json").read_text())
    assert root["attributes"]["tilestream"]["choices"]["filter"]["digest"] == file.digest
    before = (out / "downsampler.safetensors").stat().st_mtime_ns
    again = run("train", "downsample", slide, "--out", out, "--levels", 2, *QUICK, "--json")
    assert json.loads(again.stdout)["mean"] == metrics["mean"]
    assert (out / "downsampler.safetensors").stat().st_mtime_ns == before  # it was finished
    other = run("train", "downsample", slide, "--out", out, "--levels", 1, *QUICK)
    assert other.exit_code == 2
    assert "levels 2 there, 1 here" in other.stderr.replace("\n", " ")


def test_what_is_held_out_lies_beside_what_is_learned_from(slide, tmp_path) -> None:
    seen = []

    class Stopped(Exception):
        pass

    def hear(event):
        seen.extend(event)
        raise Stopped

    config = DownsampleConfig(
        sources=(str(slide),), out=tmp_path, tile_px=32, where="all", settings=DownsampleSettings(patch_px=16)
    )
    with pytest.raises(Stopped):
        run_downsample(config, on_event=hear)
    pixels = tifffile.imread(slide).transpose(2, 0, 1)
    places = {pixels[:, y : y + 32, x : x + 32].tobytes(): x for y in (0, 32) for x in range(0, 160, 32)}
    (found,) = seen
    learned, held_out = ([places[tile.tobytes()] for tile in part] for part in (found.learned, found.held_out))
    assert max(learned) < min(held_out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile", 48, "--patch", 64), "`tile_px`"),
        (("--tile", 512), r"0 tiles of 512 px"),
        (("--patch", 18, "--levels", 2), "settings of a downsampler"),
        (("--window", 5), "`window_px`"),
    ],
)
def test_what_cannot_be_trained_is_refused(slide, run, tmp_path, options, message) -> None:
    done = run("train", "downsample", slide, "--out", tmp_path / "out", *QUICK, *options)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")


def test_images_that_it_cannot_take_are_named(run, tmp_path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint16))
    done = run("train", "downsample", tmp_path / "a.tif", "--out", tmp_path / "out", *QUICK)
    assert done.exit_code == 2
    assert "`a.tif`: got intensity of uint16, expected intensities of 8 bits" in done.stderr.replace("\n", " ")


def test_shares_that_leave_nothing_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="held_out"):
        DownsampleConfig(sources=("a.tif",), out=tmp_path, held_out=1.0)
