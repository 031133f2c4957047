"""`tilestream train head` on stores: what it writes, says and refuses."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import tilestream as ts
from tests.madebags import key_instances, write_bag, write_cohort, write_labels
from tests.madecohort import stage_recipe
from tilestream.cli import app
from tilestream.models.head import load_head
from tilestream.pipelines.train_bags import region_bags

CLASSES = ["normal", "tumour"]
LABELS = [CLASSES[number % 2] for number in range(12)]
QUICK = ("--folds", 2, "--epochs", 3, "--aggregator", "simlp")


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Path:
    """Twelve slides of some tiles; the features of every second one hold a vector that stands out."""
    return write_cohort(tmp_path_factory.mktemp("features"), key_instances(12, tiles=6, dim=4, key=20))


@pytest.fixture
def folder(stores, tmp_path) -> Path:
    return shutil.copytree(stores, tmp_path / "features", copy_function=shutil.copyfile)


@pytest.fixture
def train(tmp_path):
    def run(features, labels, *options, out="out"):
        where = ("--labels", labels, "--out", tmp_path / out)
        arguments = [str(one) for one in ("train", "head", features, *where, *QUICK, *options)]
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def error(result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr.replace("\n", " ")


def files(out: Path) -> dict[str, bytes]:
    return {
        p.relative_to(out).as_posix(): p.read_bytes()
        for p in sorted(out.rglob("*"))
        if p.suffix != ".pt" and p.is_file()
    }


def test_what_it_writes_and_says(stores, train, tmp_path):
    labels = write_labels(
        tmp_path / "l.csv", [*LABELS, "tumour"], patient=[f"secret-{n // 2 * 2 + n % 2}" for n in range(13)]
    )
    done = train(stores, labels)
    assert done.exit_code == 0, done.output
    said = done.stdout.replace("\n", " ")
    assert "12 slides of 12 patients (normal 6, tumour 6); `uni`, 4 values a tile" in said
    assert "left out 1 with no features: `s012.svs`" in said
    assert "fold 1: AUC " in said
    assert "all: " in said
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["classes"] == {"normal": 6, "tumour": 6}
    assert metrics["left_out"] == {"no features": ["s012.svs"]}
    assert [fold["fold"] for fold in metrics["folds"]] == ["1", "2", "all"]
    assert (
        metrics["folds"][0]["auc"]["low"] <= metrics["folds"][0]["auc"]["value"] <= metrics["folds"][0]["auc"]["high"]
    )
    assert f"AUC {metrics['summary']['auc']:.3f} ± {metrics['summary']['auc_sd']:.3f}" in said
    predictions = rows(out / "predictions.csv")
    assert [row["slide"] for row in predictions if row["fold"] == "1"] == sorted(
        row["slide"] for row in predictions if row["fold"] == "1"
    )
    assert sorted(row["slide"] for row in predictions) == [f"s{n:03}.svs" for n in range(12)]
    assert all(float(row["p_normal"]) + float(row["p_tumour"]) == pytest.approx(1) for row in predictions)
    assert len(rows(out / "metrics.csv")) == 9
    assert (out / "metrics.png").read_bytes().startswith(b"\x89PNG")
    everything = b"".join(files(out).values())
    assert b"secret" not in everything  # names of patients are nobody's business
    assert str(tmp_path).encode() not in everything
    head, record = load_head(out / "model.safetensors")
    assert record == load_head(out / "model.safetensors")[1]
    assert json.loads((out / "model.json").read_text())["labels"] == CLASSES == list(record.labels)
    assert record.features["recipe"]["tile_px"] == 64
    assert record.training["cross_validation"] == metrics["summary"]
    assert head(torch.zeros(1, 3, 4)).shape == (1, 2)
    assert {path.name for path in (out / "folds").iterdir()} == {"1.safetensors", "2.safetensors"}


def test_a_fold_is_predicted_by_its_own_head_from_all_tiles(stores, train, tmp_path):
    """Also where the training saw only the mean of a slide."""
    train(stores, write_labels(tmp_path / "l.csv", LABELS))
    bags = key_instances(12, tiles=6, dim=4, key=20)
    for row in rows(tmp_path / "out" / "predictions.csv"):
        head, _ = load_head(tmp_path / "out" / "folds" / f"{row['fold']}.safetensors")
        bag = torch.from_numpy(bags[int(row["slide"][1:4])].astype(np.float32))
        found = torch.softmax(head(bag[None])[0].detach(), 0)
        assert float(found[1]) == pytest.approx(float(row["p_tumour"]), abs=1e-5)


def test_again_and_elsewhere_it_is_the_same_to_the_bit(stores, train, tmp_path):
    labels = write_labels(tmp_path / "l.csv", LABELS)
    options = ("--aggregator", "abmil", "--tiles-per-bag", 4)
    train(stores, labels, *options)
    first = files(tmp_path / "out")
    train(stores, labels, *options)
    assert files(tmp_path / "out") == first
    train(stores, labels, *options, "--memory", 1, out="other")
    assert files(tmp_path / "other") == first
    assert "1 with" not in train(stores, labels, *options, "--no-resume").stdout
    assert files(tmp_path / "out") == first


def test_another_training_in_the_folder_is_refused(stores, train, tmp_path):
    labels = write_labels(tmp_path / "l.csv", LABELS)
    train(stores, labels)
    said = error(train(stores, labels, "--epochs", 4))
    assert "got another training: epochs 3 there, 4 here" in said
    assert train(stores, labels, "--epochs", 4, "--no-resume").exit_code == 0
    write_labels(labels, [*LABELS[:-1], "normal"])
    assert "another training: examples" in error(train(stores, labels, "--epochs", 4))


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on(stores, train, tmp_path):
    labels = write_labels(tmp_path / "l.csv", LABELS)
    options = ("--aggregator", "abmil", "--epochs", 40, "--patience", 0)
    train(stores, labels, *options, out="whole")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tilestream.cli", "train", "head", stores, "--labels", labels, "--out", out]
    for fold in ("1", "2"):  # a state is there when a fold is done; the next is at work then
        process = subprocess.Popen([*map(str, (*command, *QUICK, *options))], stdout=subprocess.DEVNULL)
        stop = time.monotonic() + 120
        while not (out / "state" / f"{fold}.pt").exists() and process.poll() is None and time.monotonic() < stop:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert train(stores, labels, *options).exit_code == 0
    assert files(out) == files(tmp_path / "whole")


def test_regions_are_bags_too(folder, train, tmp_path):
    # of its four regions of 16 tiles the first has none that is good
    write_bag(folder, "r.svs", np.ones((64, 4)), bad=np.arange(16))
    names = {"r.svs": "tumour"} | {f"s{number:03}.svs": LABELS[number] for number in range(11)}
    done = train(folder, write_labels(tmp_path / "l.csv", names), "--level", "region", "--aggregator", "transformer")
    assert done.exit_code == 0, done.output
    assert "left out 1 with no label: `s011.svs`" in done.stdout.replace("\n", " ")
    assert "4 values a region" in done.stdout.replace("\n", " ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bags = region_bags(folder, ts.open_cohort(folder), "uni")
    assert [bags.size(number) for number in range(bags.count)] == [3] + [1] * 12
    np.testing.assert_allclose(
        bags.read(1)[0], key_instances(12, tiles=6, dim=4, key=20)[0].mean(0), rtol=1e-5, atol=1e-6
    )
    assert np.isfinite(bags.read(0)).all()


def test_slides_without_a_good_tile_are_left_out(folder, train, tmp_path):
    write_bag(folder, "empty.svs", np.zeros((5, 4)), bad=np.arange(5))
    names = {f"s{number:03}.svs": LABELS[number] for number in range(12)} | {"empty.svs": "tumour"}
    done = train(folder, write_labels(tmp_path / "l.csv", names))
    assert "left out 1 with no tile with a vector: `empty.svs`" in done.stdout.replace("\n", " ")


def test_a_split_of_the_table_goes_before_folds(stores, train, tmp_path):
    split = ["train"] * 8 + ["test"] * 4
    done = train(stores, write_labels(tmp_path / "l.csv", LABELS, split=split))
    assert done.exit_code == 0, done.output
    (fold,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["folds"]
    assert (fold["fold"], fold["train"] + fold["val"], fold["test"]) == ("split", 8, 4)
    assert [row["slide"] for row in rows(tmp_path / "out" / "predictions.csv")] == [
        f"s{n:03}.svs" for n in range(8, 12)
    ]


def test_slides_on_no_side_of_a_split_are_told_and_not_counted(stores, train, tmp_path):
    split = ["train"] * 7 + [""] + ["test"] * 4
    done = train(stores, write_labels(tmp_path / "l.csv", LABELS, split=split))
    assert "left out 1 with no side in column `split`: `s007.svs`" in " ".join(done.stdout.split())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["classes"] == {"normal": 6, "tumour": 5}
    assert sum(metrics["folds"][0][side] for side in ("train", "val", "test")) == 11


def test_several_classes(stores, train, tmp_path):
    labels = write_labels(tmp_path / "l.csv", [str(number % 3 * 5) for number in range(12)])
    assert train(stores, labels).exit_code == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(metrics["classes"]) == ["0", "5", "10"]  # numbers in their order
    assert metrics["folds"][0]["auc"]["method"] in ("bootstrap", "newcombe")


@pytest.mark.parametrize(
    ("labels", "columns", "options", "words"),
    [
        (["a"] * 12, {}, (), "got one class, `a`, for all 12 slides, expected two or more classes"),
        (
            ["a"] * 10 + ["b"] * 2,
            {},
            ("--folds", 5),
            "class `b`: got 2 slides; all: a 10, b 2 slides",
        ),
        (["a", "b"] * 6, {}, ("--folds", 9), "Take `--folds 6` or fewer"),
        (["a"] * 6 + ["b"] * 6, {"patient": ["p"] * 6 + ["q"] * 6}, (), "class `a`: got 1 patients"),
        ([f"{n}.5" for n in range(12)], {}, (), "got 12 different labels for 12 slides"),
        (["a", "b"] * 6, {"patient": [0, 0] * 6, "split": ["train", "test"] * 6}, (), "1 patients on two sides"),
        (
            ["a", "b"] * 6,
            {"split": ["train"] * 11 + ["test"]},
            (),
            "got 1 slides, none of `a`",
        ),
        (["a", "b"] * 6, {}, ("--aggregator", "clam"), "aggregator `clam`: got an unknown name"),
        (["a", "b"] * 6, {}, ("--lr", 0), "`--lr`: got 0.0, expected a step above 0"),
        (["a", "b"] * 6, {}, ("--level", "slide"), "`--level`: got `slide`, expected `tile` or `region`"),
        (["a", "b"] * 6, {}, ("--encoder", "conch"), "encoder `conch`"),
    ],
)
def test_what_cannot_be_trained_is_told(stores, train, tmp_path, labels, columns, options, words):
    assert words in error(train(stores, write_labels(tmp_path / "l.csv", labels, **columns), *options))


def test_labels_of_other_slides_are_told(stores, train, tmp_path):
    said = error(train(stores, write_labels(tmp_path / "l.csv", {"x.svs": "a", "y.svs": "b"})))
    assert "got 2 rows, such as `x.svs`, none with a label for a slide that has features" in said
    assert "expected slides such as `s000.svs`" in said
    some = {"s000.svs": "a", "s001.svs": "a", "x.svs": "b"}
    said = error(train(stores, write_labels(tmp_path / "l.csv", some)))
    assert "one class, `a`, for all 2 slides (left out: no features: `x.svs`; no label: `s002.svs`, " in said
    assert "and 5 more" in said


def test_features_of_two_kinds_are_not_mixed(folder, train, tmp_path):
    write_bag(folder, "odd.svs", np.zeros((5, 4)), recipe=stage_recipe("uni", mpp=1.0))
    assert "expected one set" in error(train(folder, write_labels(tmp_path / "l.csv", LABELS)))


def test_a_folder_without_features_is_told(train, tmp_path):
    (tmp_path / "none").mkdir()
    assert "no feature store" in error(train(tmp_path / "none", write_labels(tmp_path / "l.csv", LABELS)))


def test_json_is_one_document(stores, train, tmp_path):
    done = train(stores, write_labels(tmp_path / "l.csv", LABELS), "--json")
    assert json.loads(done.stdout)["summary"]["folds"] == 2
