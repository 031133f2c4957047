"""Where the time of a run went, in both forms of the report, from a made course."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.pipelines.test_course import Clock, ended, prepared, unit
from tilestream.pipelines.course import Course
from tilestream.pipelines.report import InputRow, RunFacts, write_report
from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_html_time import chart, energy_lines
from tilestream.pipelines.report_where import time_document

PX = 100 * 256**2


def course(*, ahead: bool = False) -> Course:
    """Two threads, ten seconds: one second of planning, eight units of two seconds, one second of finishing."""
    clock = Clock()
    made = Course(images=1, clock=clock)
    clock.now = 1.0
    made.hear(prepared("a.svs", 100, pixels=PX, plan_s=1.0))
    seconds = {"read": 0.25, "decode": 1.25, "vit": 0.25, "write": 0.25}
    if ahead:
        seconds = {"read": 0.25, "decode": 1.5, "gather": 0.25, "wait": 1.5, "transfer": 0.1, "vit": 0.3, "write": 0.1}
    for number in range(8):
        clock.now = 3.0 + 2.0 * (number // 2)
        counts = {"cache.decoded.hits": 3, "cache.decoded.misses": 1, "cache.disk.evictions": 2}
        made.hear(unit("a.svs", 12, seconds=seconds, counts=counts, bytes_read=1000, worker=f"host:{number % 2}"))
    clock.now = 10.0
    made.hear(ended("a.svs", seconds={"finish": 1.0}))
    made.stop()
    made.energy = {"cpu_j": 360.0}
    return made


def written(out: Path, *rows: InputRow, **facts: Any) -> tuple[dict[str, Any], str]:
    report = write_report(out, RunFacts.of(seconds=10.0, **facts), rows)
    html = report.html.read_text(encoding="utf-8")
    return json.loads(report.json.read_bytes()), " ".join(re.sub(r"<[^>]*>", " ", html).replace("\xa0", " ").split())


def test_the_time_of_a_run_adds_up() -> None:
    found = time_document(RunFacts.of(seconds=10.0, course=course()))
    assert found is not None
    assert (found["wall_s"], found["threads"], found["workers"]) == (10.0, 2, 2)
    assert (found["task_s"], found["work_s"], found["wait_s"], found["idle_s"]) == (18.0, 18.0, 0.0, 2.0)
    assert found["threads_s"] == 20.0
    assert sum(found["seconds"].values()) == found["work_s"]
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert found["tiles_per_s"] == 9.6
    assert found["mpx_per_s"] == pytest.approx(0.96 * PX / 1e7, abs=1e-3)
    assert found["mpx_per_core_s"] == pytest.approx(0.96 * PX / 1e6 / 18, abs=1e-3)
    assert found["bytes_read_per_s"] == 800
    assert found["bottleneck"] == found["findings"][0]
    assert found["bottleneck"]["name"] == "decode"
    assert found["bottleneck"]["text"] == "decoding takes 56 % of the time on 2 threads"
    slots, slot_s = found["timeline"]["threads"], found["timeline"]["slot_s"]
    assert sum(slot.get("task", 0.0) for slot in slots) * slot_s == pytest.approx(18, rel=0.01)


def test_decoding_ahead_adds_up_too() -> None:
    found = time_document(RunFacts.of(seconds=10.0, course=course(ahead=True), setting=Setting(remote="s3")))
    assert found is not None
    assert (found["task_s"], found["work_s"], found["wait_s"], found["idle_s"]) == (18.0, 22.0, 12.0, 2.0)
    assert found["bottleneck"]["name"] == "wait"
    assert found["bottleneck"]["text"] == (
        "the device waits for tiles 67 % of the time, and 75 % of what makes them is decoding"
    )


def test_both_reports_say_it(tmp_path: Path) -> None:
    failed = {"`vit`: values that are not finite": (3, 4)}
    rows = [
        InputRow(path="a.svs", status="done", tiles=96, tiles_failed=2, failed=failed, seconds={"vit": 4.0}),
        InputRow(path="b.svs", status="done", tiles=9, tiles_damaged=9, damaged={"cut": tuple(range(9))}),
    ]
    document, words = written(tmp_path, *rows, course=course())
    assert document["time"]["bottleneck"]["do"] == "more cores, or --cluster with more workers"
    assert document["energy"] == {"cpu_j": 360.0}
    assert (document["totals"]["lost"], document["totals"]["tiles_ok"]) == (1, 94)
    assert document["inputs"][0]["failed"]["listed"][0]["tiles"] == 2
    assert document["inputs"][0]["advice"].startswith("computing (`vit`) takes 100 % of the time: ")
    for phrase in (
        "Where the time went Decoding takes 56 % of the time on 2 threads : more cores, or --cluster with",
        "Threads 2 in 2 processes", "At work 90 % of their time", "Without a task 2.0 s", "Read 800 B/s",
        "decoded 24 8 75 %", "Energy, processors and memory 360 J (0.1 Wh)", "Energy, a gigapixel",
        "1 image is done without one tile that has values", "done, no tile is good",
        "`vit`: values that are not finite 2", "Not one tile of this image has values",
        "2 of 96 tiles have no result of the encoder", "done, not every tile has a result",
    ):  # fmt: skip
        assert phrase in words, phrase


def test_a_run_that_did_nothing_has_no_time_to_tell(tmp_path: Path) -> None:
    document, words = written(tmp_path, course=Course(images=0))
    assert document["time"]["bottleneck"] is None
    assert document["time"]["tiles_per_s"] is None
    assert "Where the time went" not in words
    document, words = written(tmp_path)
    assert document["time"] is None
    assert "Where the time went" not in words


def test_the_chart_stacks_kinds_and_stays_inside() -> None:
    document = time_document(RunFacts.of(seconds=10.0, course=course(ahead=True)))
    assert document is not None
    drawn = chart(document)
    assert drawn is not None
    assert [part["kind"] for part in drawn["paths"]] == [
        "read", "decode", "gather", "transfer", "compute", "write", "plan", "finish",
    ]  # fmt: skip
    for part in drawn["paths"]:
        for x, y in re.findall(r"M([\d.]+) (-?[\d.]+)h", part["path"]):
            assert 0 <= float(x) <= drawn["width"]
            assert -0.1 <= float(y) <= drawn["height"]
    assert chart({**document, "timeline": None}) is None


def test_energy_without_a_meter_is_not_told() -> None:
    assert energy_lines({}, 1e9) == []
    assert energy_lines({"cpu_j": 3600.0, "gpu_j": 7200.0}, 2e9)[-1] == ("a gigapixel", "5,400 J")
