"""The time of a unit of a store by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tilestream.codecs.place import Place
from tilestream.metrics import Meter
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.ingest import IngestConfig, run_ingest
from tilestream.pipelines.ingest_work import unit_seconds
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


def test_nothing_is_counted_twice() -> None:
    seconds = {"supply": 5.0, "read": 1.0, "decode": 3.0, "levels": 0.5, "store": 4.0, "encode": 3.0, "paste": 0.25}
    assert unit_seconds(Meter(seconds=seconds)) == {
        "read": 1.0, "decode": 3.0, "gather": 1.25, "levels": 0.5, "encode": 3.0, "write": 1.0,
    }  # fmt: skip
    assert unit_seconds(Meter(seconds={"read": 2.0})) == {"read": 2.0, "gather": 0.0, "write": 0.0}


@pytest.mark.parametrize(
    ("profile", "steps"),
    [
        ("archive", {"read", "gather", "write", "finish"}),
        ("portable", {"read", "decode", "gather", "levels", "encode", "write", "finish"}),
    ],
)
def test_a_store_says_what_its_time_went_into(tmp_path: Path, profile: str, steps: set[str]) -> None:
    slide = write_slide(tmp_path / "a.svs", Shape(y=700, x=900), seed=1)
    config = IngestConfig(out=Place.of(tmp_path / "out"), profile=profile, cluster="threads:1")
    (row,) = run_ingest(read_cohort([str(slide)]), config)
    assert row.summary is not None
    seconds = row.summary["seconds"]
    assert steps <= seconds.keys()
    assert all(seconds[step] > 0 for step in steps)
    metrics = (tmp_path / "out" / "metrics.prom").read_text()
    assert f'tilestream_images{{out={json.dumps(str(tmp_path / "out"))},state="done"}} 1.0' in metrics
