"""Worker processes that die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from PIL import Image

from tests.pipelines.faults.faulty import set_flag
from tests.pipelines.faults.runs import UNITS, embed, stores
from tilestream.stream.engine import Event


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "found"), [("kills_at_seven", "failed"), ("kills_at_seven_twice", "done")])
def test_an_encoder_that_kills_its_process_fails_its_image_only(
    processes: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, found: str
) -> None:
    monkeypatch.setenv("FAULTY_FLAG", str(tmp_path / "flag"))  # of processes that are started again
    processes.run(set_flag, str(tmp_path / "flag"))
    for name, value in (("a.png", 100), ("killer.png", 7), ("z.png", 200)):
        Image.fromarray(np.full((256, 256, 3), value, np.uint8)).save(tmp_path / name)
    outcome = embed(processes, tmp_path, tmp_path / "out", encoder=f"tests.pipelines.faults.faulty:{encoder}")
    status = {row.path: row.status for row in outcome.rows}
    assert status == {"a.png": "done", "killer.png": found, "z.png": "done"}, [row.reason for row in outcome.rows]
    reasons = [row.reason for row in outcome.rows if row.status == "failed"]
    assert all("ends its worker process, twice alone" in reason for reason in reasons)


@pytest.mark.slow
def test_a_killed_worker_is_no_matter(
    processes: Client, slide: Path, client: Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = embed(client, slide, tmp_path / "alone", encoder="tests.pipelines.faults.faulty:slow")
    assert outcome.exit_code() == 0
    capfd.readouterr()
    pids = list(processes.run(os.getpid).values())
    killed: list[int] = []

    def kill(event: Event) -> None:
        if event.kind == "unit" and len(killed) < 2:
            killed.append(pids[len(killed)])
            os.kill(killed[-1], signal.SIGKILL)

    outcome = embed(processes, slide, tmp_path / "out", encoder="tests.pipelines.faults.faulty:slow", on_event=kill)
    assert outcome.exit_code() == 0, outcome.rows[0].reason
    assert outcome.rows[0].supertiles_computed == UNITS
    assert stores(tmp_path / "out") == stores(tmp_path / "alone")
    assert capfd.readouterr() == ("", "")
