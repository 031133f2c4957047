"""Eight processes on one output, with and without kills: each unit done once, or at least once, and the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.pipelines.faults.ingesting import small_units
from tests.pipelines.faults.runs import UNITS, stores
from tests.pipelines.faults.test_ingest import UNITS as INGEST_UNITS
from tests.pipelines.faults.test_ingest import image as image
from tests.sinks.build import tree_bytes
from tilestream.pipelines.ingest import build_pyramid
from tilestream.sinks import layout

RACERS, KILLED = 8, 4
REPO = Path(__file__).resolve().parents[2]


def units(out: Path) -> Counter[str]:
    """How often each unit was committed."""
    log = out.with_suffix(".log")
    return Counter(log.read_text().split()) if log.exists() else Counter()


def kill_some(run: subprocess.Popen[str], pids: str, out: Path) -> None:
    """Kill a process after the first unit, another after the second, and so on."""
    stop = time.monotonic() + 60
    for number, pid in enumerate(pids.split()[:KILLED]):
        while len(units(out)) <= number:
            assert run.poll() is None
            assert time.monotonic() < stop
            time.sleep(0.002)
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.slow
def test_eight_processes_race(
    slide: Path, whole: dict[str, bytes], image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CHUNK_PX", "LAST_PX"):
        monkeypatch.setattr(layout, name, getattr(layout, name))
    small_units()
    build_pyramid(image, tmp_path / "alone" / "x.zarr")
    sources = {"embed": slide, "ingest": image}
    outs = {(job, fate): tmp_path / f"{job}-{fate}" for job in sources for fate in ("calm", "killed")}
    races = [word for (job, _), out in outs.items() for word in (job, str(sources[job]), str(out))]
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.racing", str(RACERS), *races],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    ends = {}
    for (job, fate), out in outs.items():
        pids = run.stdout.readline()
        if fate == "killed":
            kill_some(run, pids, out)
        ends[job, fate] = run.stdout.readline().split()
    _, said = run.communicate(timeout=60)
    for (job, fate), out in outs.items():
        done, most = units(out), UNITS if job == "embed" else INGEST_UNITS
        assert len(done) == most
        if fate == "calm":
            assert ends[job, fate] == ["0"] * RACERS, said
            assert set(done.values()) == {1}
        else:
            assert ends[job, fate][KILLED:] == ["0"] * (RACERS - KILLED), said
            assert done.total() <= most + KILLED  # once more at most what each victim was at
        if job == "embed":
            assert stores(out) == whole
        else:
            assert tree_bytes(out / "x.zarr") == tree_bytes(tmp_path / "alone" / "x.zarr")
