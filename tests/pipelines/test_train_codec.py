"""`tilestream train codec` on small images, and `compress --codec shared` with what it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tests.codecs.fields.madedecoder import made_decoder
from tests.codecs.fields.pictures import picture
from tilestream.cli import app
from tilestream.codecs.fields import decoders
from tilestream.codecs.fields.decoders import decoder_text, load_decoder, save_decoder
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.tilecodec import FieldCodec, tile_codec
from tilestream.errors import ConfigError, DamagedError

pytest.importorskip("torch")
QUICK = ("--tile", 64, "--steps", 2, "--batch", 1, "--where", "all", "--bytes", 200)


@pytest.fixture(autouse=True)
def little_is_done(monkeypatch):
    monkeypatch.setattr("tilestream.pipelines.train_codec.MEASURED", 1)
    monkeypatch.setattr("tilestream.pipelines.train_codec.FIT_STEPS", 10)
    for name, value in (("COUNTED", 2), ("SETTLING_ROUNDS", 1), ("SETTLING_STEPS", 2)):
        monkeypatch.setattr(f"tilestream.codecs.fields.sharedtraining.{name}", value)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def said(result):
    return " ".join((result.stdout + result.stderr).split())


def forget(monkeypatch):
    """Know no decoder, as another process."""
    monkeypatch.setattr(decoders, "_known", {})
    decoders.decoder_of.cache_clear()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        pixels = picture(128, 192, seed=number).transpose(1, 2, 0)
        tifffile.imwrite(folder / f"{number}.tif", pixels, tile=(64, 64), photometric="rgb")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_decoder(made_decoder(seed=5), tmp_path_factory.mktemp("weights"))


def test_a_decoder_is_trained_and_measured_on_an_image_that_it_never_saw(images, tmp_path):
    result = run("train", "codec", images, "--out", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (document["images"], document["squares"], document["held_out_by"]) == (3, 12, "image")
    assert len(document["held_out"]) == 1
    assert all(one["bytes"] > 52 and np.isfinite(one["psnr"]) for one in document["held_out"])
    place = tmp_path / "out" / f"{document['decoder']}.tsdecoder"
    assert len(place.read_bytes()) == document["decoder_bytes"]
    assert f"--codec shared --weights {place}".replace("\n", "") in said(result)


def test_one_image_is_held_out_by_places(images, tmp_path):
    result = run("train", "codec", images / "0.tif", "--out", tmp_path / "out", *QUICK, "--json")
    document = json.loads(result.stdout)
    assert (document["status"], document["squares"], document["held_out_by"]) == ("done", 5, "place")


def test_a_store_of_shared_fields_carries_its_decoder(images, weights, tmp_path, monkeypatch):
    result = run(
        "compress", images / "0.tif", "--out", tmp_path / "out", "--codec", "shared", "--weights", weights,
        "--tile", 64, "--steps", 2,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    [store] = (tmp_path / "out").glob("*.zarr")
    nbytes = len(decoder_text(load_decoder(weights)))
    assert "of their decoder (" in said(result)
    assert f"{nbytes:,} of their decoder" in said(run("info", store))
    forget(monkeypatch)
    found = ts.open_pyramid(str(store))
    assert found.levels[0].shape.yx == (128, 192)
    seen = np.asarray(found.read(found.levels[0].box))
    forget(monkeypatch)
    np.testing.assert_array_equal(np.asarray(zarr.open_array(store / "0" / "image", mode="r")[:]), seen)
    shown = json.loads(run("info", store, "--json").stdout)
    assert weights.stem in json.dumps(shown)
    assert decoder_text(made_decoder(seed=5)) not in json.dumps(shown)
    forget(monkeypatch)
    assert run("decompress", store, "--out", tmp_path / "back").exit_code == 0


def test_a_tile_is_fitted_at_the_price_of_its_quality():
    text = decoder_text(made_decoder(seed=5))
    low, high = (FieldCodec(field="shared", steps=5, quality=quality, decoder=text) for quality in (1, 100))
    assert tile_codec(high.settings) == high
    about = Picture.of(picture(16, 16))
    assert low.begin(about).price > 1 > high.begin(about).price
    assert FieldCodec(field="shared", decoder=text).begin(about).price == 1
    data = high.encode(picture(16, 16))
    assert data == high.encode(picture(16, 16))
    assert high.decode(data, level=1).shape == (3, 8, 8)


@pytest.mark.parametrize("text", ["no base64!", "aGFsbG8="])
def test_a_decoder_that_is_none_is_damage(text):
    with pytest.raises(DamagedError):
        FieldCodec(field="shared", decoder=text)


def test_without_a_decoder_nothing_is_encoded():
    with pytest.raises(ConfigError, match="train codec"):
        FieldCodec(field="shared").encode(picture(16, 16))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compress", "IMAGE", "--codec", "shared"), "--weights"),
        (("compress", "IMAGE", "--codec", "hash", "--weights", "WEIGHTS"), "--weights"),
        (("compress", "IMAGE", "--codec", "shared", "--weights", "nowhere"), "no file"),
        (("compress", "IMAGE", "--codec", "shared", "--weights", "IMAGE"), "begins with"),
        (("train", "codec", "nowhere"), "no image"),
        (("train", "codec", "IMAGE", "--tile", "60", "--stride", "7", "--where", "all"), "even"),
        (("train", "codec", "IMAGE", "--tile", "4096", "--where", "all"), "pictures to train on"),
    ],
)
def test_what_cannot_be_is_said(words, says, images, weights, tmp_path):
    named = {"IMAGE": images / "0.tif", "WEIGHTS": weights}
    result = run(*[named.get(word, word) for word in words], "--out", tmp_path / "out")
    assert result.exit_code in (2, 3)
    assert says in said(result)
