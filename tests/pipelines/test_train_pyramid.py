"""`tilestream train codec --codec pyramid` on small images, and `compress --codec pyramid` with what it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tests.codecs.fields.pictures import picture
from tilestream.cli import app
from tilestream.codecs.pyramid import sharednets
from tilestream.errors import DamagedError

pytest.importorskip("torch")
from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec
from tilestream.codecs.pyramid.shared import load_shared, nets_of, nets_text
from tilestream.stream.engine import LARGE_BYTES, pickled_bytes

QUICK = ("--codec", "pyramid", "--tile", 128, "--steps", 2, "--batch", 1, "--where", "all")


@pytest.fixture(autouse=True, scope="module")
def little_is_done():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tilestream.pipelines.train_pyramid.MEASURED", 1)
        patch.setattr("tilestream.pipelines.train_pyramid.REFINED_STEPS", 1)
        patch.setattr("tilestream.codecs.pyramid.sharedtraining.WEIGHED_EDGE", 1)
        yield


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def said(result):
    return " ".join((result.stdout + result.stderr).split())


def forget(monkeypatch):
    """Know no networks, as another process."""
    monkeypatch.setattr(sharednets, "_known", {})
    nets_of.cache_clear()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    place = tmp_path_factory.mktemp("images") / "image.tif"
    tifffile.imwrite(place, picture(128, 256, seed=1).transpose(1, 2, 0), tile=(64, 64), photometric="rgb")
    return place


@pytest.fixture(scope="module")
def trained(image, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    return run("train", "codec", image, "--out", out, *QUICK, "--quality", 40), out


def test_networks_are_trained_and_measured_on_a_place_that_they_never_saw(trained):
    result, out = trained
    assert result.exit_code == 0, result.output
    document = json.loads((out / "metrics.json").read_text())
    assert (document["images"], document["squares"], document["held_out_by"]) == (1, 1, "place")
    [held_out] = document["held_out"]
    assert held_out["bytes"] > 40
    assert np.isfinite([held_out["psnr"], held_out["refined_psnr"]]).all()
    place = out / f"{document['networks']}.tspyramid"
    shared = load_shared(place)
    assert shared.lmbda == document["settings"]["lmbda"]
    assert shared.nets.channels == 3
    assert f"--codec pyramid --weights {place}" in said(result)
    assert "one pass" in said(result)
    assert "that a store has once" in said(result)


def test_a_training_goes_on_from_networks(image, trained, tmp_path):
    [start] = trained[1].glob("*.tspyramid")
    result = run("train", "codec", image, "--out", tmp_path / "out", *QUICK, "--start", start, "--json")
    document = json.loads(result.stdout)
    assert (document["status"], document["start"]) == ("done", start.stem)
    assert document["networks"] != start.stem


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--codec", "pyramid", "--bytes", "100"), "`--bytes`"),
        (("--codec", "pyramid", "--stride", "8"), "`--stride`"),
        (("--quality", "50"), "`--quality`"),
        (("--start", "IMAGE"), "`--start`"),
        (("--codec", "hash"), "shared or pyramid"),
        (("--codec", "pyramid", "--start", "nowhere"), "no file"),
        (("--codec", "pyramid", "--start", "IMAGE"), "begins with"),
        (("--codec", "pyramid", "--tile", "64"), "pictures to train on"),
        (("--codec", "pyramid", "--lr", "0"), "`lr`"),
    ],
)
def test_what_cannot_be_is_said(words, says, image, tmp_path):
    named = [image if word == "IMAGE" else word for word in words]
    result = run("train", "codec", image, "--out", tmp_path / "out", "--where", "all", "--steps", 1, *named)
    assert result.exit_code in (2, 3)
    assert says in said(result)


def test_networks_that_were_cut_are_damage(trained):
    [place] = trained[1].glob("*.tspyramid")
    cut = place.with_suffix(".cut")
    cut.write_bytes(place.read_bytes()[:-7])
    with pytest.raises(DamagedError):
        load_shared(cut)


def test_a_store_of_pyramids_carries_their_networks(image, trained, tmp_path, monkeypatch):
    [weights] = trained[1].glob("*.tspyramid")
    result = run(
        "compress", image, "--out", tmp_path / "out", "--codec", "pyramid", "--weights", weights, "--tile", 64,
        "--steps", 0, "--quality", 40,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    [store] = (tmp_path / "out").glob("*.zarr")
    nbytes = len(nets_text(load_shared(weights).nets))
    assert f"{nbytes:,} of their decoder" in said(run("info", store))
    forget(monkeypatch)
    found = ts.open_pyramid(str(store))
    seen = [np.asarray(found.read(level.box)) for level in found.levels]
    assert seen[0].shape == (3, 128, 256)
    forget(monkeypatch)
    for number, pixels in enumerate(seen[:2]):
        np.testing.assert_array_equal(zarr.open_array(store / str(number) / "image", mode="r")[:], pixels)
    assert weights.stem in json.dumps(json.loads(run("info", store, "--json").stdout))
    forget(monkeypatch)
    assert run("decompress", store, "--out", tmp_path / "back").exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--codec", "pyramid", "--steps", 0), "encode in one pass"),
        (("--codec", "pyramid", "--weights", "nowhere"), "no file"),
        (("--codec", "pyramid", "--weights", "IMAGE"), "begins with"),
        (
            ("--codec", "pyramid", "--weights", "WEIGHTS", "--quality", 70),
            "expected 40, which these networks are trained for",
        ),
        (("--codec", "pyramid", "--weights", "WEIGHTS", "--quality", 50), "got 50 with `--weights`"),
        (("--codec", "hash", "--weights", "WEIGHTS"), "pyramid alone"),
        (("--codec", "pyramid", "--weights", "WEIGHTS", "--steps", 0, "--relevance", "entropy"), "weighs nothing"),
        (("--codec", "pyramid", "--steps", -1), "`steps`"),
    ],
)
def test_what_cannot_be_compressed_is_said(words, says, image, trained, tmp_path):
    [weights] = trained[1].glob("*.tspyramid")
    named = [{"IMAGE": image, "WEIGHTS": weights}.get(word, word) for word in words]
    result = run("compress", image, "--out", tmp_path / "out", *named)
    assert result.exit_code in (2, 3)
    assert says in said(result)


def test_networks_that_encode_travel_once_a_worker(trained):
    (place,) = trained[1].glob("*.tspyramid")
    assert pickled_bytes(PyramidCodec(steps=0, shared=load_shared(place))) > LARGE_BYTES
