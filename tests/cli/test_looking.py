"""`tilestream relevance` and `tilestream plan` as a user sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Call
from tests.cli.test_bad_input import refused


def test_relevance_prints_a_line_an_image_and_one_that_counts(call: Call, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.svs").write_text("no slide")
    result = call("relevance", slide, tmp_path / "bad.svs", "--out", tmp_path / "out", "--relevance", "gradient")
    assert result.exit_code == 3
    first, second, last = result.stdout.splitlines()
    assert first.startswith(f"done {tmp_path}/out/made.svs.relevance.png: ")
    assert first.endswith(" µm")
    assert second.startswith("failed bad.svs: got ")
    assert last.startswith("1 done, 1 failed, 0 ignored; 0 blocks damaged; ")


def test_relevance_as_json(call: Call, slide: Path, tmp_path: Path) -> None:
    result = call("relevance", slide, "--out", tmp_path / "out", "--each", "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["inputs"]
    assert len(row["outputs"]) == 4
    assert all(Path(path).exists() for path in row["outputs"])
    assert row["facts"]["terms"] == {"entropy": 1.0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--relevance", "entrpy"], "unknown name"),
        (["--relevance", "entropy:0"], "in sum"),
        (["--relevance", 'query:"nuclei"'], "query"),
        (["--db", "loudness"], "loudness"),
    ],
)
def test_relevance_refuses_what_it_cannot_do(
    call: Call, slide: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    assert said in refused(call, "relevance", slide, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_an_out_that_is_a_file_is_refused(call: Call, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "a file of that name" in refused(call, "relevance", slide, "--out", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("budget", "tile", "left"),
    [(2, 64, "1 of 2 tokens are left over"), (1, 64, None), (10**4, 64, None), (2, 2048, None)],
)
def test_plan_says_what_of_a_small_budget_is_left(
    call: Call, slide: Path, tmp_path: Path, budget: int, tile: int, left: str | None
) -> None:
    told = call("plan", slide, "--out", tmp_path / "out", "--budget", budget, "--tile", tile).stdout
    assert " px; sees " in told
    assert left in told if left else "left over" not in told


def test_an_empty_name_of_a_folder_is_refused(
    call: Call, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("relevance", slide, "--out", "")
    assert result.exit_code == 2
    assert "an empty name" in result.stderr
    assert not list(tmp_path.iterdir())


def test_plan_says_what_a_budget_reads(call: Call, slide: Path, tmp_path: Path) -> None:
    arguments = ("plan", slide, "--out", tmp_path / "out", "--budget", 20, "--tile", 64, "--fovea", "600,400")
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    first = result.stdout.splitlines()[0]
    assert first.startswith(f"done {tmp_path}/out/made.svs.plan.png: 20 tokens of 64 px; sees 0.0819 of ")
    assert " % of the full pass at 0.5 µm/px; decodes " in first
    assert " % of the image, where a full pass decodes " in first
    (row,) = json.loads(call(*arguments, "--json").stdout)["inputs"]
    assert row["facts"]["tokens"] == 20
    assert [Path(path).exists() for path in row["outputs"]] == [True] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Give --budget"),
        (["--relevance", "entropy"], "no --budget"),
        (["--budget", "0"], "at least one tile"),
        (["--budget", "9", "--fovea", "1"], "`Y,X`"),
        (["--budget", "9", "--levels", "fine"], "whole numbers"),
        (["--budget", "9", "--levels=0,0"], "different levels"),
        (["--budget", "9", "--levels=-1"], "different levels"),
        (["--budget", "9", "--fovea", "9,9,0"], "a finite number above 0"),
        (["--budget", "9", "--fovea", "9,nan"], "finite numbers of pixels"),
        (["--budget", "9", "--relevance", "entrpy"], "unknown name"),
        (["--budget", "9", "--relevance", 'query:"nuclei"'], "query"),
        (["--budget", "9", "--where", "nowhere"], "no file"),
        (["--budget", "9", "--encoder", "nobody"], "nobody"),
    ],
)
def test_plan_refuses_what_it_cannot_do(call: Call, slide: Path, tmp_path: Path, options: list[str], said: str) -> None:
    assert said in refused(call, "plan", slide, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
