"""`tilestream export` as a user sees it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from tests.cli.conftest import Call
from tests.madecohort import make_store


def test_what_it_prints(call: Call, slide: Path, tmp_path: Path) -> None:
    arguments = ("export", slide, "--out", tmp_path / "out", "--to", "ome-tiff")
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    first, last = result.stdout.splitlines()[0], result.stdout.splitlines()[-1]
    assert first.startswith(f"done {tmp_path}/out/made.svs.ome.tif: ")
    assert first.endswith(", 3 levels")
    assert last.startswith("1 done, 0 failed, 0 ignored; 0 blocks damaged; ")
    again = call(*arguments)
    assert again.stdout.splitlines()[-1].startswith("0 done, 1 kept from an earlier run, 0 failed")
    with tifffile.TiffFile(tmp_path / "out" / "made.svs.ome.tif") as file:
        assert file.is_ome


def test_json(call: Call, slide: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.svs").write_text("no slide")
    result = call("export", slide, tmp_path / "bad.svs", "--out", tmp_path / "out", "--to", "cog", "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    good, bad = document["inputs"]
    assert (document["status"], document["exit_code"]) == ("some inputs failed", 3)
    assert (good["status"], good["levels"]) == ("done", 3)
    assert good["size_bytes"] == Path(good["output"]).stat().st_size
    assert bad["status"] == "failed"
    assert bad["reason"]


def test_damage_is_counted_and_strict_fails(call: Call, shared_data: Path, tmp_path: Path) -> None:
    arguments = ("export", shared_data / "broken" / "corrupt.tif", "--out", tmp_path / "out", "--to", "cog")
    result = call(*arguments, "--strict")
    assert result.exit_code == 3
    assert "damaged corrupt.tif: block y=1 x=1 of level 0" in result.stdout
    assert "1 block damaged" in result.stdout.splitlines()[-1]
    assert call(*arguments, "--no-resume").exit_code == 0


@pytest.mark.parametrize(
    "options", [["--to", "png"], ["--to", "cog", "--codec", "webp"], ["--to", "cog", "--quality", "0"]]
)
def test_what_cannot_be_met_is_refused_at_once(call: Call, slide: Path, tmp_path: Path, options: list[str]) -> None:
    result = call("export", slide, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: `{options[-2]}`: got ")
    assert not (tmp_path / "out").exists()


def test_features(call: Call, tmp_path: Path) -> None:
    make_store(tmp_path / "in", "a.svs", height=200, width=200, damaged=(1,))
    arguments = ("export", tmp_path / "in", "--out", tmp_path / "out", "--to", "parquet")
    result = call(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.startswith("16 tiles of 1 slide, about ")
    first, last = result.stdout.splitlines()
    assert first.startswith(f"done {tmp_path}/out/a.svs.tiles.parquet: ")
    assert last.startswith("1 done, 0 failed, 0 ignored; ")
    assert "1 kept from an earlier run" in call(*arguments).stdout
    document = json.loads(call(*arguments, "--json").stdout)
    assert [row["status"] for row in document["inputs"]] == ["kept"]


@pytest.mark.parametrize(
    "options",
    [
        ["--to", "trident", "--manifest", "m.csv"],
        ["--to", "parquet", "--value", "entropy"],
        ["--to", "cog", "--value", "entropy"],
        ["--to", "cog", "--encoder", "uni"],
        ["--to", "features", "--value", "entropy"],
    ],
)
def test_options_of_another_kind_are_refused(call: Call, tmp_path: Path, options: list[str]) -> None:
    make_store(tmp_path / "in", "a.svs", height=64, width=64)
    result = call("export", tmp_path / "in", "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: `{options[2]}`: got it together with --to {options[1]}")
    assert not (tmp_path / "out").exists()


def test_images_are_no_features(call: Call, slide: Path, tmp_path: Path) -> None:
    result = call("export", slide, "--out", tmp_path / "out", "--to", "anndata")
    assert result.exit_code == 2
    assert "tilestream embed IMAGES --out FOLDER" in result.stderr


def test_to_must_be_said(call: Call, slide: Path, tmp_path: Path) -> None:
    result = call("export", slide, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "--to" in result.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_a_full_disk(call: Call, slide: Path, small_disk: Path, to: str) -> None:
    result = call("export", slide, "--out", small_disk / "out", "--to", to, "--codec", "none")
    assert result.exit_code == 3
    assert "full disk" in result.stdout
    assert not [path for path in small_disk.rglob("*") if path.is_file()]
