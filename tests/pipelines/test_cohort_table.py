"""The cohort table: every input of a run, the same in CSV and Parquet, and no file of a user's overwritten."""

from __future__ import annotations

import csv

import pytest

from tests.pipelines.conftest import Embed
from tilestream.errors import OutputError
from tilestream.pipelines import cohort_table
from tilestream.pipelines.cohort import Entry
from tilestream.pipelines.cohort_table import CSV, PARQUET, record_cohort
from tilestream.pipelines.report_rows import InputRow
from tilestream.sinks.catalogue import INDEX
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

ENTRIES = (
    Entry(key="a.svs", url="/in/a.svs", id="A1", label='so "called", tumour', extra=(("stage", "II"), ("mpp", "x"))),
    Entry(key="b\udce4.svs", url="/in/b", id="b\udce4.svs"),
)
ROWS = (
    InputRow(
        path="a.svs",
        status="done",
        shape_yx=(10, 20),
        mpp=0.25,
        tiles=7,
        tiles_damaged=1,
        outputs=("a.svs.features.zarr",),
    ),
    InputRow(path="b\udce4.svs", status="failed", reason="cut\nTraceback of many lines"),
    InputRow(path="notes.txt", status="ignored", reason="no image"),
)


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_input_is_a_row(tmp_path):
    assert record_cohort(tmp_path, ENTRIES, ROWS) == ()
    rows = read(tmp_path / CSV)
    assert [row["slide"] for row in rows] == ["a.svs", "b\\udce4.svs", "notes.txt"]
    assert [row["status"] for row in rows] == ["done", "failed", "ignored"]
    assert [row["reason"] for row in rows] == ["", "cut", "no image"]
    first = {name: rows[0][name] for name in ("height", "width", "mpp", "tiles", "tiles_damaged", "features")}
    assert list(first.values()) == ["10", "20", "0.25", "7", "1", "a.svs.features.zarr"]
    assert (rows[0]["id"], rows[0]["label"], rows[0]["stage"]) == ("A1", 'so "called", tumour', "II")
    assert (rows[0]["mpp"], rows[0]["manifest_mpp"]) == ("0.25", "x")
    assert (tmp_path / INDEX).exists()


def test_parquet_says_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    record_cohort(tmp_path, ENTRIES, ROWS)
    table = parquet.read_table(tmp_path / PARQUET)
    assert [str(table.schema.field(name).type) for name in ("slide", "height", "mpp")] == ["string", "int64", "double"]
    text = [{name: "" if value is None else str(value) for name, value in row.items()} for row in table.to_pylist()]
    assert text == read(tmp_path / CSV)


def test_without_pyarrow_the_csv_stands_alone_without_a_word(tmp_path, monkeypatch):
    record_cohort(tmp_path, ENTRIES, ROWS)
    (tmp_path / PARQUET).write_bytes(b"of an earlier run")
    monkeypatch.setattr(cohort_table, "find_spec", lambda name: None)
    assert record_cohort(tmp_path, ENTRIES, ROWS) == ()
    assert (tmp_path / CSV).exists()
    assert not (tmp_path / PARQUET).exists()


def test_a_manifest_of_that_name_is_not_written_over(embed: Embed, tmp_path):
    (tmp_path / "out").mkdir()
    write_slide(tmp_path / "out" / "a.svs", Shape(y=300, x=300), mpp=0.5)
    manifest = tmp_path / "out" / CSV
    manifest.write_text("path,label\na.svs,tumour\n")
    run = embed("--manifest", manifest, "--where", "all")
    assert run.exit_code == 0
    assert manifest.read_text() == "path,label\na.svs,tumour\n"
    assert any("left as it is: no cohort table was written" in note for note in run.report["notes"])


@pytest.mark.parametrize("has_pyarrow", [True, False])
def test_a_parquet_table_of_that_name_is_not_written_over(tmp_path, monkeypatch, has_pyarrow):
    if has_pyarrow:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"slide": ["a"]}), tmp_path / PARQUET)
    else:
        (tmp_path / PARQUET).write_bytes(b"what cannot be looked into")
        monkeypatch.setattr(cohort_table, "find_spec", lambda name: None)
    before = (tmp_path / PARQUET).read_bytes()
    (note,) = record_cohort(tmp_path, ENTRIES, ROWS)
    assert f"`{PARQUET}` in `{tmp_path}` is not by tilestream and was left as it is" in note
    assert (tmp_path / PARQUET).read_bytes() == before


def test_a_table_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / PARQUET).mkdir()
    with pytest.raises(OutputError, match="a folder of that name"):
        record_cohort(tmp_path, ENTRIES, ROWS)
