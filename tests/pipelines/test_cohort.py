"""Cohorts: what is found, what a manifest selects and overrides, and the names of the outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.errors import ConfigError, SourceError
from tilestream.pipelines.cohort import output_key, read_cohort

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """Two patients with a slide of the same name each, one picture, one text."""
    folder = tmp_path / "slides"
    for name in ("p1/a.png", "p2/a.png", "b.png", "b.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(PNG)
    (folder / "notes.txt").write_text("nothing to see")
    return folder


def manifest(folder: Path, text: str) -> str:
    path = folder / "cohort.csv"
    path.write_text(text)
    return str(path)


def test_lists_a_folder(slides: Path) -> None:
    cohort = read_cohort([str(slides)])
    assert [entry.key for entry in cohort.entries] == ["b.png", "b.tif", "p1/a.png", "p2/a.png"]
    assert [Path(path).name for path, _ in cohort.ignored] == ["notes.txt"]
    assert not any(entry.is_explicit for entry in cohort.entries)
    assert all(entry.id == entry.key and Path(entry.url).is_file() for entry in cohort.entries)


def test_what_is_named_is_an_input_whatever_it_is(slides: Path) -> None:
    (entry,) = read_cohort([str(slides / "notes.txt")]).entries
    assert entry.is_explicit


def test_same_name_in_two_folders_makes_two_outputs(slides: Path) -> None:
    paths = [str(slides / "p1" / "a.png"), str(slides / "p2" / "a.png"), str(slides)]
    cohort = read_cohort(paths)
    keys = [entry.key for entry in cohort.entries]
    assert len(set(keys)) == len(keys) == 4
    assert [entry.url for entry in cohort.entries][:2] == paths[:2]


def test_names_that_differ_in_case_only_make_two_outputs(tmp_path: Path) -> None:
    for folder, name in (("one", "a.png"), ("two", "A.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(PNG)
    cohort = read_cohort([str(tmp_path / "one"), str(tmp_path / "two")])
    assert len({entry.key.casefold() for entry in cohort.entries}) == 2


def test_own_outputs_are_no_inputs(slides: Path) -> None:
    out = slides / "out"
    (out / "sample").mkdir(parents=True)
    (out / "sample" / "thumbnail.png").write_bytes(PNG)
    (slides / "b.png.features.zarr").mkdir()
    assert len(read_cohort([str(slides)], out=out).entries) == 4
    assert len(read_cohort([str(slides)]).entries) == 5
    assert len(read_cohort([str(slides)], out=slides).entries) == 5  # outputs beside the images
    assert len(read_cohort([str(out)], out=out).entries) == 1


def test_nothing_named_and_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--manifest"):
        read_cohort([])
    with pytest.raises(SourceError, match="nothing there"):
        read_cohort([str(tmp_path / "missing.svs")])


@pytest.mark.parametrize("where", ["beside", "root", "absolute"])
def test_manifest_selects_and_overrides(slides: Path, tmp_path: Path, where: str) -> None:
    path = {"beside": "slides/p1/a.png", "root": "p1/a.png", "absolute": str(slides / "p1" / "a.png")}[where]
    (slides / "m.geojson").write_text("{}")
    table = manifest(tmp_path, f"path,id,mpp,mask,label,bands\n{path},case 1,0.0274,m.geojson,tumour,R G\n")
    cohort = read_cohort([str(slides)], manifest=table)
    (entry,) = cohort.entries
    assert (entry.key, entry.id, entry.mpp, entry.label) == ("p1/a.png", "case 1", 0.0274, "tumour")
    assert entry.bands == ("R", "G")
    assert entry.mask == str(slides / "m.geojson")
    assert entry.is_explicit
    reasons = {Path(path).name: reason for path, reason in cohort.ignored}
    assert "cohort.csv" in reasons["b.png"]
    assert "cohort.csv" not in reasons["notes.txt"]


def test_manifest_alone_is_the_list(slides: Path, tmp_path: Path) -> None:
    text = f"path,mask\nslides/p1/a.png,m.png\n{slides / 'b.png'},\nhttps://host:80/x/c.tif?key=1,\n"
    cohort = read_cohort([], manifest=manifest(tmp_path, text))
    assert [entry.key for entry in cohort.entries] == ["slides/p1/a.png", "slides/b.png", "host_80/x/c.tif"]
    assert [entry.url for entry in cohort.entries] == [
        str(slides / "p1" / "a.png"),
        str(slides / "b.png"),
        "https://host:80/x/c.tif?key=1",
    ]
    assert cohort.entries[0].mask == str(tmp_path / "m.png")
    assert not cohort.unmatched


@pytest.mark.parametrize("with_paths", [True, False])
def test_a_row_that_matches_nothing_is_named_with_its_line(slides: Path, tmp_path: Path, with_paths: bool) -> None:
    table = manifest(tmp_path, "path\nslides/b.png\nslides/missing.svs\n")
    cohort = read_cohort([str(slides)] if with_paths else [], manifest=table)
    assert len(cohort.entries) == 1
    (sentence,) = cohort.unmatched
    assert all(word in sentence for word in ("cohort.csv", "line 3", "slides/missing.svs"))


@pytest.mark.parametrize("with_paths", [True, False])
def test_two_spellings_of_one_image_are_refused(slides: Path, tmp_path: Path, with_paths: bool) -> None:
    table = manifest(tmp_path, "path\nslides/b.png\n./slides/p1/../b.png\n")
    with pytest.raises(ConfigError, match=r"line 3.*same image as line 2"):
        read_cohort([str(slides)] if with_paths else [], manifest=table)


def test_two_selections_of_one_image_are_two_inputs(slides: Path, tmp_path: Path) -> None:
    table = manifest(tmp_path, "path\nslides/b.png#t=0\nslides/b.png#t=1\n")
    for paths in ([], [str(slides)]):
        cohort = read_cohort(paths, manifest=table)
        assert [entry.url[-4:] for entry in cohort.entries] == ["#t=0", "#t=1"]
        assert [entry.key[-4:] for entry in cohort.entries] == ["@t=0", "@t=1"]


def test_a_row_that_fits_two_inputs_is_refused(slides: Path, tmp_path: Path) -> None:
    table = manifest(tmp_path, "path\na.png\n")
    cohort = read_cohort([str(slides / "p1")], manifest=table)
    assert [entry.url for entry in cohort.entries] == [str(slides / "p1" / "a.png")]


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b.svs", "C:"]), min_size=1, max_size=6), st.booleans())
def test_keys_stay_inside_the_output_folder(parts: list[str], is_absolute: bool) -> None:
    key = output_key(("/" if is_absolute else "") + "/".join(parts))
    assert not Path(key).is_absolute()
    assert ".." not in key.split("/")
    assert output_key(key) == key


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("image.zarr#t=3&z=1", "image.zarr@t=3,z=1"),
        ("cells.zarr#kind=labels", "cells.zarr@kind=labels"),
        ("s3://bucket/a/b.svs", "bucket/a/b.svs"),
        ("../up/a.svs", "up/a.svs"),
        ("/data/a.svs", "data/a.svs"),
    ],
)
def test_keys(url: str, key: str) -> None:
    assert output_key(url) == key
