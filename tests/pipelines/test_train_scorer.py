"""`tilestream train scorer` on marked images and on features: what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import tilestream as ts
from tests.madebags import key_instances, write_cohort, write_labels
from tilestream.cli import app
from tilestream.models.scorer import load_scorer
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.relevance import relevance_of
from tilestream.pipelines.scorer_examples import TileChoice
from tilestream.pipelines.train_scorer import ScorerConfig, run_scorer
from tilestream.pipelines.train_scores import auc
from tilestream.torch.train_head import Epoch
from tilestream.torch.train_scorer import ScorerSettings

QUICK = ("--tile", 8, "--reduce", 2, "--width", 4, "--epochs", 3)


def outline(y: int, x: int, edge: int) -> dict:
    corners = [[x, y], [x + edge, y], [x + edge, y + edge], [x, y + edge], [x, y]]
    return {"type": "Polygon", "coordinates": [corners]}


def write_marked(folder: Path, count: int) -> tuple[Path, Path]:
    """Images with a red square in each, and its outline under the image's name."""
    images, marks, rng = folder / "images", folder / "marks", np.random.default_rng(0)
    for place in (images, marks):
        place.mkdir()
    for number in range(count):
        pixels = rng.integers(60, 120, (128, 192, 3), dtype=np.uint8)
        y, x = 16 * rng.integers(0, 6), 16 * rng.integers(0, 10)
        pixels[y : y + 32, x : x + 32, 0] += 90
        tifffile.imwrite(images / f"s{number}.tif", pixels, tile=(64, 64))
        (marks / f"s{number}.geojson").write_text(json.dumps(outline(int(y), int(x), 32)))
    return images, marks


@pytest.fixture(scope="session")
def marked(tmp_path_factory) -> tuple[Path, Path]:
    return write_marked(tmp_path_factory.mktemp("marked"), 6)


@pytest.fixture
def train(tmp_path):
    def run(source, labels, *options, out="out"):
        arguments = ["train", "scorer", source, "--labels", labels, "--out", tmp_path / out, *options]
        return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)

    return run


def error(result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.replace("\n", " ")


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file() and path.name[0] != "."}


def test_marked_images_become_a_scorer_of_pixels(marked, train, tmp_path):
    images, marks = marked
    done = train(images, marks, *QUICK)
    assert done.exit_code == 0, done.output
    said = done.stdout.replace("\n", " ")
    assert "576 tiles (marked 24, not marked 552) of 6 images; 3x8x8 values each" in said
    path = tmp_path / "out" / "scorer.safetensors"
    assert f"--relevance scorer:{path}" in done.stdout.replace("\n", "")
    scorer, metrics = load_scorer(path), json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (scorer.record.px, scorer.record.downsample, scorer.record.dtype) == (8, 2.0, "uint8")
    assert metrics["held_out"]["images"] == 1  # a whole one, since tiles of one image are alike
    assert metrics["held_out"]["auc"] > 0.9
    assert f"AUC {metrics['held_out']['auc']:.3f} on 96 tiles held out" in said
    assert len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 4
    assert str(tmp_path).encode() not in b"".join(files(tmp_path / "out").values())
    found = relevance_of(f"scorer:{path}")(ts.open_pyramid(str(images / "s0.tif")))
    wanted = np.kron(np.ones((1, 1), bool), tifffile.imread(images / "s0.tif")[::16, ::16, 0] > 120)
    assert auc(found.values.ravel().astype(float), wanted.ravel()) > 0.9


def test_vectors_of_an_encoder_are_learned_from_too(tmp_path, train):
    folder = tmp_path / "large"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(60, 120, (1024, 1024, 3), dtype=np.uint8)
    pixels[:256, :512, 0] += 90
    tifffile.imwrite(folder / "s.tif", pixels, tile=(256, 256))
    (tmp_path / "s.geojson").write_text(json.dumps(outline(0, 0, 256)))
    done = train(folder / "s.tif", tmp_path / "s.geojson", "--encoder", "handcrafted", "--reduce", 1, "--epochs", 1)
    assert done.exit_code == 0, done.output
    assert "16 tiles (marked 1, not marked 15) of 1 image; 39 values each" in done.stdout
    record = load_scorer(tmp_path / "out" / "scorer.safetensors").record
    assert (record.takes, record.encoder, record.downsample) == ("vectors", "handcrafted", 1.0)


def test_a_scorer_of_classes_takes_features(train, tmp_path):
    stores = write_cohort(tmp_path / "features", key_instances(16, tiles=12, dim=4, key=20))
    labels = write_labels(tmp_path / "l.csv", [["normal", "tumour"][n % 2] for n in range(16)])
    for method in ("attention", "topk"):
        done = train(stores, labels, "--method", method, "--epochs", 20, "--k", 4, "--lr", 0.01, out=method)
        assert done.exit_code == 0, done.output
        assert "16 slides (normal 8, tumour 8); `uni`" in done.stdout.replace("\n", " ")
        scorer = load_scorer(tmp_path / method / "scorer.safetensors")
        assert (scorer.record.encoder, scorer.record.mpp) == ("uni", 0.5)
        bags = key_instances(8, tiles=12, dim=4, key=20, seed=1)
        ranks = [
            (scorer(b.astype(np.float32)) > scorer(b.astype(np.float32))[b[:, 1].argmax()]).sum() for b in bags[1::2]
        ]
        assert np.mean(ranks) < 2
    read_anew = train(stores, labels, "--epochs", 2, "--memory", "1B", out="a")
    held = train(stores, labels, "--epochs", 2, out="b")
    assert read_anew.exit_code == held.exit_code == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_features_of_a_run_to_a_term_of_the_next(tmp_path, train):
    images, _ = write_marked(tmp_path, 4)
    runner, features = CliRunner(), tmp_path / "features"
    run = ("embed", images, "--out", features, "--encoder", "handcrafted", "--tile", 16, "--where", "all")
    assert runner.invoke(app, [str(one) for one in run]).exit_code == 0
    labels = write_labels(tmp_path / "l.csv", {f"s{n}.tif": "ab"[n % 2] for n in range(4)})
    assert train(features, labels, "--epochs", 1, "--k", 2).exit_code == 0
    scorer = tmp_path / "out" / "scorer.safetensors"
    image = ts.open_pyramid(str(images / "s0.tif"))
    found = relevance_of(f"scorer:{scorer}")(image)  # handcrafted needs no name
    assert found.cell_yx == (256, 256)
    named = relevance_of(f"scorer:{scorer}", encoders=(EncoderChoice(name="handcrafted"),))(image)
    assert named.values.tobytes() == found.values.tobytes()


@pytest.mark.parametrize("kind", ["tiles", "bags"])
def test_stopped_after_an_epoch_it_goes_on_and_ends_with_the_same_bytes(marked, tmp_path, kind):
    source, labels = marked
    if kind == "bags":
        source = write_cohort(tmp_path / "features", key_instances(6, tiles=4, dim=3))
        labels = write_labels(tmp_path / "l.csv", ["a", "b"] * 3)

    def run(out: str, hear=lambda _: None) -> dict[str, bytes]:
        tiles = TileChoice() if kind == "bags" else TileChoice(px=8, reduce=2.0)
        settings = ScorerSettings(epochs=3, width=4)
        config = ScorerConfig(source=source, labels=labels, out=tmp_path / out, tiles=tiles, settings=settings)
        run_scorer(config, on_event=hear)
        return files(tmp_path / out)

    def stop(event):
        if isinstance(event, Epoch) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("out", stop)
    assert not files(tmp_path / "out")  # nothing that looks like a result
    heard: list = []
    assert run("out", heard.append) == run("whole")
    assert [one.epoch for one in heard[1:]] == [1, 2, 3]


def test_another_training_in_the_folder_is_refused(marked, train):
    images, marks = marked
    assert train(images, marks, *QUICK).exit_code == 0
    told = error(train(images, marks, *QUICK, "--lr", 0.5))
    assert "another training: lr 0.003 there, 0.5 here," in told
    assert train(images, marks, *QUICK, "--lr", 0.5, "--no-resume").exit_code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "best"), "`attention` or `topk`"),
        (("--memory", "1KiB"), "--memory"),
        (("--lr", 0), "more than 0"),
        (("--encoder", "gradient"), "a vector a tile"),
        (("--encoder", "nobody"), "nobody"),
        (("--where", "nowhere"), "nowhere"),
        (("--reduce", 100), "smaller tiles"),
    ],
)
def test_options_that_do_not_fit_say_what_to_do(marked, train, options, told):
    assert told in error(train(*marked, *QUICK, *options))


def test_marks_that_do_not_belong_to_images_are_refused(marked, train, tmp_path):
    images, marks = marked
    (tmp_path / "empty").mkdir()
    assert "s0.geojson" in error(train(images, tmp_path / "empty"))
    assert "one file for 6 images" in error(train(images, marks / "s0.geojson"))
    assert "nothing there" in error(train(images, tmp_path / "nowhere"))
    assert "nothing there" in error(train(tmp_path / "nowhere", marks))
    table = write_labels(tmp_path / "l.csv", ["a", "b"])
    assert error(train(images, table))
    stores = write_cohort(tmp_path / "features", key_instances(4, tiles=3, dim=2))
    assert "Leave --tile" in error(train(stores, table, "--tile", 64))


def test_a_resolution_is_needed_where_it_is_asked_for(marked, train):
    assert "resolution" in error(train(*marked, "--tile", 8, "--mpp", 1))


def test_json_is_all_that_stands_on_standard_output(marked, train):
    done = train(*marked, *QUICK, "--json")
    document = json.loads(done.stdout)
    assert (document["status"], document["examples"]["marked"]) == ("done", 24)
