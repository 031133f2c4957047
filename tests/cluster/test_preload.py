"""Worker processes that are told to end with their starter: quietly, and what they held is free at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.pipelines.faults.runs import UNITS, done, embed, start, stores
from tests.told import told
from tilestream.cluster.client import open_client
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.mark.slow
def test_sigterm_as_slurm_sends_it_to_all_processes_of_a_job(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "made.svs", Shape(y=1200, x=1500), seed=3)
    with open_client("threads:2") as client:
        embed(client, slide, tmp_path / "alone", encoder="tests.pipelines.faults.faulty:together")
    out, gate = tmp_path / "out", tmp_path / "gate"
    gate.mkdir()
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "FAULTY_GATE": f"{gate}:2"}
    options = {"encoder": "together", "start_new_session": True}
    run = start(slide, out, "--cluster", "local:2", **options, env=env)
    stop = time.monotonic() + 60
    while len(set(done(out, slide).values())) < 2:
        assert time.monotonic() < stop
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGTERM)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 130, stderr
    (line,) = told(stderr)
    assert line.startswith("interrupted: 0 of 1 input and ")
    kept = done(out, slide)
    assert 2 <= len(kept) < UNITS
    assert not list(out.rglob("*.lease"))
    again = start(slide, out, "--cluster", "threads:2", encoder="together")
    _, stderr = again.communicate(timeout=60)
    assert again.returncode == 0, stderr
    assert kept.items() <= done(out, slide).items()
    assert stores(out) == stores(tmp_path / "alone")
    assert not list(out.rglob("*.lease"))
