"""Two runs at once on the same outputs."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from tests.pipelines.faults.runs import UNITS, embed, receipts, start, stopped_after, stores
from tilestream.pipelines.embed import RunOutcome
from tilestream.stream.engine import Event


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(slide: Path, client: Client, tmp_path: Path) -> None:
    outcome = embed(client, slide, tmp_path / "alone", encoder="tests.pipelines.faults.faulty:slow")
    assert outcome.exit_code() == 0
    runs = [start(slide, tmp_path / "out", "--json", encoder="slow") for _ in range(2)]
    reports = []
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        said = [line for line in err.splitlines() if not line.startswith("0/1 images, ")]  # where that takes long
        assert {line.split()[0] for line in said} <= {"done", "time"}, err  # the second where there is advice to give
        reports.append(json.loads(out)["inputs"][0]["supertiles"])
    assert sum(report["computed"] for report in reports) == UNITS
    assert all(report["computed"] > 0 for report in reports), reports
    assert stores(tmp_path / "out") == stores(tmp_path / "alone")


def test_two_finishers_at_once(slide: Path, client: Client, whole: dict[str, bytes], tmp_path: Path) -> None:
    finishes: list[Any] = []

    def catch(event: Event) -> None:
        if event.kind == "prepared" and event.prepared is not None:
            finishes.append(event.prepared.finish)

    embed(client, slide, tmp_path, on_event=catch)
    finish = finishes[0]
    with finish.journal.claim("finish"):
        assert type(finish()).__name__ == "Busy"
    # all receipts there, nobody finished: whoever comes first finishes, the others find it finished
    shutil.rmtree(tmp_path)
    stopped_after(UNITS, client, slide, tmp_path)
    results = client.gather([client.submit(finish, pure=False) for _ in range(8)])
    done = [result for result in results if not hasattr(result, "key")]
    assert done
    assert all(result == done[0] for result in done)
    assert stores(tmp_path) == whole


def test_a_run_waits_for_the_one_that_finishes(
    slide: Path, client: Client, whole: dict[str, bytes], tmp_path: Path
) -> None:
    held: list[Any] = []

    def hold(event: Event) -> None:
        if event.kind == "prepared" and event.prepared is not None:
            held.append(event.prepared.finish)
            held.append(event.prepared.finish.journal.claim("finish"))
            held[1].__enter__()
        if event.kind == "unit" and event.receipt is not None and len(held) == 2:
            held.append(time.monotonic())
        if len(held) == 3 and receipts(tmp_path, slide) == UNITS:
            held[1].__exit__()
            held.append(held[0]())  # as the other run would, while this one has yet to ask

    (row,) = embed(client, slide, tmp_path, on_event=hold).rows
    assert row.status == "done"
    assert stores(tmp_path) == whole


def test_another_recipe_meanwhile_is_refused_and_harms_nothing(
    slide: Path, client: Client, whole: dict[str, bytes], tmp_path: Path
) -> None:
    other: list[RunOutcome] = []

    def meddle(event: Event) -> None:
        if event.kind == "unit" and not other:
            other.append(embed(client, slide, tmp_path, halo_px=8))

    (row,) = embed(client, slide, tmp_path, on_event=meddle).rows
    assert other[0].exit_code() == 3
    assert "plan.halo_px 0 there, 8 now" in other[0].rows[0].reason
    assert row.status == "done"
    assert stores(tmp_path) == whole
