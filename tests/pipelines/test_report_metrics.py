"""The text file for Prometheus, read back by the parser of its client library."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.pipelines.test_course import ended, prepared, unit
from tilestream import __version__
from tilestream.pipelines import report_metrics
from tilestream.pipelines.course import Course
from tilestream.pipelines.report_metrics import METRICS, told


def read(path: Path) -> Mapping[tuple[str, str], float]:
    """Values by name and the one label that is not the same in all."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.documentation
        assert family.type in ("counter", "gauge")
        for sample in family.samples:
            own = {name: value for name, value in sample.labels.items() if name not in ("out", "process")}
            assert len(own) <= 1
            found[sample.name, next(iter(own.values()), "")] = sample.value
    return found


def some() -> Course:
    course = Course(images=5)
    course.hear(prepared("a", 100, pixels=100 * 256**2))
    course.hear(
        unit(
            "a",
            30,
            damaged={"cut": (1, 2)},
            counts={"failed": 3, "empty": 4, "cache.disk.hits": 7, "cache.disk.bytes": 70, "cache.peer.misses": 1},
            bytes_read=123,
            seconds={"decode": 1.5, 'odd "name"\n\\': 0.5},
        )
    )
    course.hear(ended("b", "failed"))
    course.hear(ended("c", "skipped"))
    return course


def test_all_figures_are_there_and_parse(tmp_path: Path) -> None:
    with told(tmp_path, some()):
        pass
    assert read(tmp_path / METRICS) == {
        ("tilestream_tiles_total", "ok"): 21.0,
        ("tilestream_tiles_total", "damaged"): 2.0,
        ("tilestream_tiles_total", "failed"): 3.0,
        ("tilestream_tiles_total", "empty"): 4.0,
        ("tilestream_tiles_total", "reused"): 0.0,
        ("tilestream_supertiles_total", ""): 1.0,
        ("tilestream_pixels_total", ""): 30.0 * 256**2,
        ("tilestream_bytes_read_total", ""): 123.0,
        ("tilestream_step_seconds_total", "decode"): 1.5,
        ("tilestream_step_seconds_total", 'odd "name"\n\\'): 0.5,
        ("tilestream_cache_hits_total", "disk"): 7.0,
        ("tilestream_cache_hits_total", "peer"): 0.0,
        ("tilestream_cache_misses_total", "disk"): 0.0,
        ("tilestream_cache_misses_total", "peer"): 1.0,
        ("tilestream_cache_evictions_total", "disk"): 0.0,
        ("tilestream_cache_evictions_total", "peer"): 0.0,
        ("tilestream_cache_bytes_total", "disk"): 70.0,
        ("tilestream_cache_bytes_total", "peer"): 0.0,
        ("tilestream_images", "done"): 1.0,
        ("tilestream_images", "failed"): 1.0,
        ("tilestream_images", "active"): 1.0,
        ("tilestream_images", "waiting"): 2.0,
        ("tilestream_threads", ""): 2.0,
        ("tilestream_threads_busy", ""): 0.0,
        ("tilestream_run_seconds", ""): pytest.approx(0.0, abs=60.0),
        ("tilestream_info", __version__): 1.0,
    }


def test_the_file_is_replaced_during_the_run_and_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_metrics, "EVERY_S", 0.01)
    course = Course(images=2)
    with told(tmp_path, course):
        assert read(tmp_path / METRICS)["tilestream_images", "done"] == 0
        course.hear(ended("a"))
        stop = time.monotonic() + 60
        while read(tmp_path / METRICS)["tilestream_images", "done"] != 1:
            assert time.monotonic() < stop
        monkeypatch.setattr(report_metrics, "EVERY_S", 3600.0)
        course.hear(ended("b"))
    assert read(tmp_path / METRICS)["tilestream_images", "done"] == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [METRICS]
    assert list((tmp_path / "receipts").iterdir()) == []


def test_two_processes_in_one_folder_write_two_files_with_labels_that_differ(tmp_path: Path) -> None:
    with told(tmp_path, Course(images=1)):
        with told(tmp_path, Course(images=2)):  # a second holder, as another process is one
            pass
        (other,) = tmp_path.glob("metrics-*.prom")
        assert str(os.getpid()) in other.name
        assert 'process="' in other.read_text()
        assert 'process="' not in (tmp_path / METRICS).read_text()
    os.utime(other, (0, 0))
    mine = tmp_path / "metrics-mine.prom"
    mine.write_text("# HELP something of somebody else\n")
    os.utime(mine, (0, 0))
    with told(tmp_path, Course(images=1)):
        pass
    assert not other.exists()
    assert mine.exists()


def test_a_disk_without_room_costs_the_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("prometheus_client.write_to_textfile", full)
    with told(tmp_path, Course(images=1)):
        pass
    assert not (tmp_path / METRICS).exists()
