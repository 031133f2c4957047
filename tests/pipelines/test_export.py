"""A cohort as files: each input by itself, what is finished kept, what is not ours left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import tilestream as ts
from tests.servers import S3
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, SourceError
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.export import ExportConfig, ExportOutcome, export_config, run_export
from tilestream.pipelines.export_place import OutputFile
from tilestream.stream.leases import claim
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two slides, one in a folder of its own, and a file that is none."""
    place = tmp_path / "in"
    (place / "more").mkdir(parents=True)
    write_slide(place / "a.svs", Shape(y=700, x=900))
    write_slide(place / "more" / "b.svs", Shape(y=300, x=300), seed=1)
    (place / "broken.svs").write_bytes(b"II*\0 and no more")
    return place


def _run(*paths: Path, out: Path | str, to: str = "ome-tiff", **options: object) -> ExportOutcome:
    config = export_config(out=out, to=to, codec=str(options.pop("codec", "zstd")), quality=90, resume=True)
    beside = None if "://" in str(out) else Path(out)
    return run_export(read_cohort([str(path) for path in paths], out=beside), replace(config, **options))


def _names(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_each_input_is_a_file_and_a_bad_one_a_row(folder: Path, tmp_path: Path) -> None:
    outcome = _run(folder, out=tmp_path / "out")
    assert _names(tmp_path / "out") == ["a.svs.ome.tif", "more/b.svs.ome.tif"]
    assert [(row.path, row.status) for row in outcome.rows] == [
        ("a.svs", "done"), ("broken.svs", "failed"), ("more/b.svs", "done"),
    ]  # fmt: skip
    assert "broken.svs" in outcome.rows[1].reason
    assert outcome.rows[0].size_bytes == (tmp_path / "out" / "a.svs.ome.tif").stat().st_size
    assert outcome.exit_code() == 3
    assert _run(folder / "a.svs", out=tmp_path / "other").exit_code() == 0


def test_finished_files_are_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(folder, out=out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tif")}
    (out / "more" / "b.svs.ome.tif").unlink()
    outcome = _run(folder, out=out)
    assert [row.status for row in outcome.rows] == ["kept", "failed", "done"]
    assert (out / "a.svs.ome.tif").stat().st_mtime_ns == before[out / "a.svs.ome.tif"]
    assert outcome.rows[0].size_bytes


def test_other_options_replace_only_when_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _run(folder / "a.svs", out=out)
    before = (out / "a.svs.ome.tif").read_bytes()
    (row,) = _run(folder / "a.svs", out=out, codec="lzw").rows
    assert "--no-resume" in row.reason
    assert (out / "a.svs.ome.tif").read_bytes() == before
    (row,) = _run(folder / "a.svs", out=out, codec="lzw", resume=False).rows
    assert row.status == "done"
    assert (out / "a.svs.ome.tif").read_bytes() != before


@pytest.mark.parametrize("resume", [True, False])
def test_files_of_others_are_never_replaced(folder: Path, tmp_path: Path, resume: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.svs.cog.tif").write_bytes((folder / "a.svs").read_bytes())
    (out / "b.svs.cog.tif").symlink_to(tmp_path / "nowhere")
    rows = _run(folder / "a.svs", folder / "more" / "b.svs", out=out, to="cog", resume=resume).rows
    assert all("has not written" in row.reason for row in rows)
    assert (out / "a.svs.cog.tif").read_bytes() == (folder / "a.svs").read_bytes()
    assert (out / "b.svs.cog.tif").is_symlink()


def test_two_processes_do_not_write_one_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = _run(folder / "a.svs", out=out)
    assert not list(out.glob(".*"))  # leases are gone
    (out / "a.svs.ome.tif").unlink()
    lease = claim(OutputFile(place=Place.of(out), name="a.svs.ome.tif").lease)
    assert lease is not None
    with lease:
        (row,) = _run(folder / "a.svs", out=out).rows
    assert "another process" in row.reason
    assert outcome.exit_code() == 0


@pytest.mark.parametrize("to", ["cog", "ome-tiff"])
def test_object_storage(folder: Path, tmp_path: Path, s3_environment: S3, to: str) -> None:
    ending = "cog" if to == "cog" else "ome"
    out = f"{s3_environment.url}/out"
    (row,) = _run(folder / "a.svs", out=out, to=to).rows
    assert (row.status, row.output) == ("done", f"{out}/a.svs.{ending}.tif"), row.reason
    _run(folder / "a.svs", out=tmp_path / "local", to=to)
    system = s3_environment.fs
    assert system.cat_file(row.output) == (tmp_path / "local" / f"a.svs.{ending}.tif").read_bytes()
    assert [Path(path).name for path in system.find(out)] == [f"a.svs.{ending}.tif"]
    (again,) = _run(folder / "a.svs", out=out, to=to).rows
    assert (again.status, again.size_bytes) == ("kept", row.size_bytes)
    (other,) = _run(folder / "a.svs", out=out, to=to, codec="lzw").rows
    assert "--no-resume" in other.reason
    system.pipe_file(row.output, b"somebody's")
    (foreign,) = _run(folder / "a.svs", out=out, to=to, resume=False).rows
    assert "has not written" in foreign.reason
    assert system.cat_file(row.output) == b"somebody's"


def test_outputs_beside_the_inputs_are_no_inputs(folder: Path) -> None:
    first = _run(folder, out=folder)
    again = _run(folder, out=folder)
    assert [row.path for row in again.rows] == [row.path for row in first.rows]
    assert {Path(path).name for path, _ in again.ignored} == {"a.svs.ome.tif", "b.svs.ome.tif"}


def test_a_manifest_chooses_bands_and_resolution(shared_data: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path,mpp,bands\n{shared_data}/zarr/exemplar-001.crop.image.ome.zarr,0.7,CD357;DNA\n")
    config = export_config(out=tmp_path / "out", to="ome-tiff", codec="zstd", quality=90, resume=True)
    outcome = run_export(read_cohort([], manifest=str(manifest), out=tmp_path / "out"), config)
    (row,) = outcome.rows
    made = ts.open_pyramid(row.output)
    assert [channel.name for channel in made.channels] == ["CD357", "DNA"]
    assert made.mpp == 0.7


def test_a_name_that_becomes_too_long(folder: Path, tmp_path: Path) -> None:
    (folder / "a.svs").rename(folder / f"{'n' * 248}.svs")
    (row,) = _run(folder / f"{'n' * 248}.svs", out=tmp_path / "out").rows
    assert "too long" in row.reason
    assert "Shorten" in row.reason
    assert not _names(tmp_path / "out")


def test_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(ConfigError, match="empty folder"):
        _run(tmp_path / "in", out=tmp_path / "out")
    with pytest.raises(SourceError, match="nothing there"):
        _run(tmp_path / "x.svs", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"to": "png"}, "one of cog, ome-tiff"), ({"codec": "webp"}, "one of deflate"), ({"quality": 101}, "1 to 100")],
)
def test_wrong_options(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        export_config(**{"out": tmp_path, "to": "cog", "codec": "zstd", "quality": 90, "resume": True, **options})


def test_config_is_what_was_said(tmp_path: Path) -> None:
    config = export_config(out=tmp_path, to="cog", codec="jpeg", quality=70, resume=False)
    assert isinstance(config, ExportConfig)
    assert (config.options.to, config.options.codec, config.options.quality) == ("cog", "jpeg", 70)
    assert not config.resume
