"""Whatever a user gives: one clear line, the right exit code, nothing that looks finished."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Call


def refused(call: Call, *arguments: object) -> str:
    """Run a command that must be refused; return its one line."""
    result = call(*arguments)
    assert result.exit_code == 2, result.stdout + result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in ("got", "expected")), line
    return line


def test_empty_directory(call: Call, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    line = refused(call, "embed", tmp_path / "slides", "--out", tmp_path / "out")
    assert "got an empty folder" in line
    assert not (tmp_path / "out").exists()
    assert "empty folder" in refused(call, "check", tmp_path / "slides")


def test_only_other_files(call: Call, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    assert "no image among 1 file" in refused(call, "embed", tmp_path, "--out", tmp_path / "out")


@pytest.mark.parametrize("command", ["check", "embed", "info"])
def test_a_path_that_is_not_there(call: Call, tmp_path: Path, command: str) -> None:
    out = [] if command == "info" else ["--out", tmp_path / "out"]
    assert "nothing there" in refused(call, command, tmp_path / "a.svs", *out)


def test_no_path_at_all(call: Call, tmp_path: Path) -> None:
    assert "--manifest" in refused(call, "embed", "--out", tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("text.svs", b"These are letters, not a slide.\n" * 20, "text"),
        ("empty.svs", b"", "0 bytes"),
        ("noise.tif", bytes(range(1, 256)) * 8, "begin with"),
    ],
)
def test_files_that_are_no_image(call: Call, slide: Path, tmp_path: Path, name: str, data: bytes, words: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(data)
    (folder / "good.svs").write_bytes(slide.read_bytes())
    result = call("embed", folder, "--out", tmp_path / "out")
    assert result.exit_code == 3
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("failed")]
    assert line.startswith(f"failed {name}: got")
    assert words in line
    assert result.stdout.startswith("1 done, 1 failed")
    assert (tmp_path / "out" / "good.svs.features.zarr").is_dir()
    assert not list((tmp_path / "out").rglob(f"{name}*.zarr"))
    assert words in refused(call, "info", folder / name)
    checked = call("check", folder)
    assert checked.exit_code == 3
    assert f"fails: {name}; got" in checked.stdout


def test_a_file_that_cannot_be_read(call: Call, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, other = tmp_path / "locked.svs", tmp_path / "copy.svs"
    for path in (locked, other):
        path.write_bytes(slide.read_bytes())
    real = os.open

    def denied(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path) == str(locked):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr("tilestream.sources.files.os.open", denied)  # root may read anything
    result = call("embed", locked, other, "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "failed locked.svs: got permission denied" in result.stderr
    assert "1 done, 1 failed" in result.stdout


def test_truncated_slide(call: Call, slide: Path, tmp_path: Path) -> None:
    for share in (0.1, 0.4, 0.7):
        path = tmp_path / f"cut{share}.svs"
        path.write_bytes(slide.read_bytes()[: int(slide.stat().st_size * share)])
    result = call("embed", tmp_path, "--out", tmp_path / "out", "--where", "all")
    assert result.exit_code == 3
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed")]
    assert len(failed) == 3
    assert not list((tmp_path / "out").rglob("*.features.zarr"))


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_out_that_is_a_file(call: Call, slide: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("precious")
    line = refused(call, "embed", slide, "--out", tmp_path / place)
    assert "expected a folder" in line
    assert (tmp_path / "file").read_text() == "precious"
    assert call("check", slide, "--out", tmp_path / place).exit_code == 3


def test_out_that_cannot_be_written(call: Call, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere
    assert "permission" in refused(call, "embed", slide, "--out", tmp_path)
    assert not list(tmp_path.iterdir())
    checked = call("check", slide, "--out", tmp_path)
    assert checked.exit_code == 3
    assert "no permission" in checked.stdout


def test_out_that_is_full(call: Call, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tilestream.codecs.durable.os.fsync", full)
        line = refused_or_failed(call, slide, tmp_path)
    assert "full disk" in line
    assert not list(tmp_path.glob("*.features.zarr"))
    assert call("embed", slide, "--out", tmp_path).exit_code == 0


def refused_or_failed(call: Call, slide: Path, out: Path) -> str:
    result = call("embed", slide, "--out", out)
    assert result.exit_code in (2, 3)
    return str(result.stderr)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "missing.geojson"], "`--where`"),
        (["--mpp", "0"], "`--mpp`"),
        (["--encoder", "nosuch"], "an unknown name"),
        (["--encoder", "nosuch_module:function"], "No module named"),
        (["--cluster", "moon"], "`threads`"),
        (["--super-tile", "100"], "256"),
        (["--manifest", "missing.csv"], "no such file"),
    ],
)
def test_options_that_cannot_be_met(call: Call, slide: Path, tmp_path: Path, options: list[str], words: str) -> None:
    assert words in refused(call, "embed", slide, "--out", tmp_path / "out", *options)


@pytest.mark.parametrize(
    "options", [["--tile", "0"], ["--memory", "much"], ["--value-range", "5,1"], ["--nosuch"], ["--batch", "x"]]
)
def test_options_that_are_no_options(call: Call, slide: Path, tmp_path: Path, options: list[str]) -> None:
    result = call("embed", slide, "--out", tmp_path, *options)
    assert result.exit_code == 2
    assert options[0] in result.stderr


def test_too_little_memory_is_said_before_anything_is_read(call: Call, slide: Path, tmp_path: Path) -> None:
    result = call("embed", slide, "--out", tmp_path, "--memory", "1MiB")
    assert result.exit_code == 3
    assert "1 MiB" in result.stderr
    assert "--memory" in result.stderr
    assert call("check", slide, "--memory", "1MiB").exit_code == 3


def test_a_mistake_of_ours_shows_its_traceback(
    call: Call, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("tilestream.pipelines.embed.run_embed", broken)
    with pytest.raises(ZeroDivisionError):
        call("embed", slide, "--out", tmp_path)


def test_errors_as_json(call: Call, tmp_path: Path) -> None:
    import json

    result = call("info", tmp_path / "missing.svs", "--json")
    assert result.exit_code == 2
    assert "nothing there" in json.loads(result.stdout)["message"]


def test_strict_counts_damaged_tiles(call: Call, slide: Path, tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "hurt.svs"
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as tiff:
        start, length = tiff.pages[0].dataoffsets[7], tiff.pages[0].databytecounts[7]
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    plain = call("embed", path, "--out", tmp_path / "out", "--where", "all")
    assert plain.exit_code == 0
    assert ", 0 damaged" not in plain.stdout
    assert " damaged" in plain.stdout
    assert call("embed", path, "--out", tmp_path / "out", "--where", "all", "--strict").exit_code == 3
