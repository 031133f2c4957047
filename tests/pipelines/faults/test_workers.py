"""Worker processes that die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from PIL import Image

from tests.pipelines.faults.runs import UNITS, embed, stores
from tilestream.stream.engine import Event


@pytest.mark.slow
def test_an_encoder_that_kills_its_process_fails_its_image_only(processes: Client, tmp_path: Path) -> None:
    for name, value in (("a.png", 100), ("killer.png", 7), ("z.png", 200)):
        Image.fromarray(np.full((512, 512, 3), value, np.uint8)).save(tmp_path / name)
    outcome = embed(processes, tmp_path, tmp_path / "out", encoder="tests.pipelines.faults.faulty:kills_at_seven")
    status = {row.path: row.status for row in outcome.rows}
    assert status == {"a.png": "done", "killer.png": "failed", "z.png": "done"}
    assert "ends its worker process" in next(row.reason for row in outcome.rows if row.status == "failed")


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
