"""A report lists what other runs have left in its folder, and is whole when several end at once."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from tilestream.pipelines.places import Places
from tilestream.pipelines.report import InputRow, RunFacts, reporting, write_report
from tilestream.stream.journal import Journal

SUMMARY = {
    "format": "aperio-svs",
    "shape_yx": [480, 640],
    "mpp": 0.5,
    "tiles": 100,
    "tiles_damaged": 2,
    "damaged": {"cut": [1, 2]},
    "seconds": {"decode": 3.0, "finish": 1.0},
    "supertiles_total": 4,
    "cache": {"decoded blocks": [30, 10]},
    "notes": ["plane 0 of z was taken"],
    "something_of_a_later_version": 1,
}


def finish(out: Path, key: str, **more: Any) -> None:
    """Leave behind what a finished image leaves."""
    journal = Journal(root=Places.of(out, key).journal, recipe=f"recipe of {key}")
    journal.open({"of": key})
    store = out / f"{key}.features.zarr"
    store.mkdir(parents=True)
    journal.close([], {**SUMMARY, "outputs": [f"{key}.features.zarr"], **more})


def write(out: Path, *rows: InputRow, command: str = "") -> dict[str, Any]:
    written = write_report(out, RunFacts(command=command, started="", wall_s=1.0), rows)
    assert all(row.path in written.html.read_text() for row in rows)
    return dict(written.document)


def done(path: str) -> InputRow:
    return InputRow(path=path, status="done", tiles=7)


def failed(path: str) -> InputRow:
    return InputRow(path=path, status="failed", reason=f"`{path}`: cut")


def listed(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(entry["path"], entry["status"], entry["run"]) for entry in document["inputs"]]


def test_finished_images_of_other_runs_are_listed_by_their_receipts(tmp_path: Path) -> None:
    finish(tmp_path, "a/one.svs")
    finish(tmp_path, "two.svs")
    document = write(tmp_path, done("two.svs"), done("b.svs"))
    assert listed(document) == [
        ("two.svs", "done", "this"), ("b.svs", "done", "this"), ("a/one.svs", "done", "earlier"),
    ]  # fmt: skip
    entry = document["inputs"][2]
    assert (entry["tiles"], entry["tiles_ok"], entry["tiles_per_s"]) == (100, 98, None)
    assert entry["damaged"]["listed"] == [{"reason": "cut", "tiles": 2, "rows": [1, 2]}]
    assert entry["cache"] == {"decoded": {"hits": 30, "misses": 10, "bytes": 0, "evictions": 0}}
    assert document["totals"]["earlier"] == 1
    assert document["totals"]["tiles"] == 114
    html = (tmp_path / "report.html").read_text()
    assert "a/one.svs" in html
    assert "1 of these images is of earlier runs" in html


def test_what_is_not_finished_was_removed_or_is_no_image_is_not_listed(tmp_path: Path) -> None:
    finish(tmp_path, "gone.svs")
    (tmp_path / "gone.svs.features.zarr").rmdir()
    Journal(root=Places.of(tmp_path, "half.svs").journal, recipe="r").open({})
    finish(tmp_path, "odd.svs", shape_yx=None)
    journal = Journal(root=tmp_path / "receipts" / "store.zarr", recipe="r")
    journal.open({})
    journal.close([], {"profile": "archive"})
    cut = Places.of(tmp_path, "cut.svs").journal
    finish(tmp_path, "cut.svs")
    (cut / "receipts.json").write_bytes((cut / "receipts.json").read_bytes()[:40])
    assert listed(write(tmp_path, done("b.svs"))) == [("b.svs", "done", "this")]


def test_failures_of_another_command_stay_until_it_is_given_again(tmp_path: Path) -> None:
    write(tmp_path, failed("x.svs"), failed("y.svs"), command="embed first.csv")
    second = write(tmp_path, failed("z.svs"), command="embed second.csv")
    assert listed(second) == [
        ("z.svs", "failed", "this"), ("x.svs", "failed", "earlier"), ("y.svs", "failed", "earlier"),
    ]  # fmt: skip
    assert [entry["command"] for entry in second["inputs"]] == [None, "embed first.csv", "embed first.csv"]
    third = write(tmp_path, done("x.svs"), command="embed first.csv")  # y is not among its inputs any more
    assert listed(third) == [("x.svs", "done", "this"), ("z.svs", "failed", "earlier")]


def test_two_things_made_of_one_image_are_two_rows(tmp_path: Path) -> None:
    finish(tmp_path, "a.svs")
    finish(tmp_path, "a.svs.edges.zarr", outputs=["a.svs.edges.zarr.features.zarr"])
    now = InputRow(path="a.svs", receipts="a.svs.edges.zarr", status="done")
    assert listed(write(tmp_path, now)) == [("a.svs", "done", "this"), ("a.svs", "done", "earlier")]
    document = write(tmp_path, InputRow(path="a.svs", receipts="a.svs", status="failed", reason="cut"))
    assert listed(document) == [("a.svs", "failed", "this"), ("a.svs.edges.zarr", "done", "earlier")]


def test_a_report_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    for text in ("", "[]", '{"inputs": [{"status": "failed"}]}', '{"inputs": 3}'):
        (tmp_path / "report.json").write_text(text)
        assert listed(write(tmp_path, done("a"))) == [("a", "done", "this")]


def test_processes_that_end_at_once_leave_one_whole_report(tmp_path: Path) -> None:
    def end(number: int) -> None:
        with reporting(tmp_path):
            write(tmp_path, failed(f"{number}.svs"), command=f"task {number}")

    threads = [threading.Thread(target=end, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    document = json.loads((tmp_path / "report.json").read_bytes())
    assert {entry["path"] for entry in document["inputs"]} == {f"{number}.svs" for number in range(6)}
    html = (tmp_path / "report.html").read_text()
    assert all(f"{number}.svs" in html for number in range(6))
