"""Killed at any moment, a run goes on from its receipts and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.bench.gigapixel import write_gigapixel
from tilestream.cli import app
from tilestream.types import Shape

KILLS = {"slide": (1, 30, 110), "world": (30,)}
"""Receipts on disk when the run is killed, one after the other in one output folder."""


def words(source: Path, out: Path, *options: str) -> list[str]:
    return ["embed", str(source), "--out", str(out), "--where", "all", *options]


def receipts(out: Path, source: Path) -> int:
    return len(list((out / "receipts" / source.name).glob("L*.json")))


def killed_after(count: int, source: Path, out: Path, *options: str) -> int:
    """Run until `count` receipts are on disk, kill -9, and return how many there are then."""
    program = [sys.executable, "-c", "from tilestream.cli import main; main()", *words(source, out, *options)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    stop = time.monotonic() + 120
    while receipts(out, source) < count:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < stop
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return receipts(out, source)


def finished(source: Path, out: Path, *options: str) -> dict[str, int]:
    """Run to the end, in this process, and return the counts of super-tiles in the report."""
    done = CliRunner().invoke(app, words(source, out, *options), catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads((out / "report.json").read_text())["inputs"]
    assert row["status"] == "done"
    return row["supertiles"]


def stores(out: Path) -> dict[str, bytes]:
    """All outputs but the report and the receipts, which hold times."""
    files = [path for path in out.rglob("*") if path.is_file()]
    skipped = ("receipts", "report.html", "report.json", "cohort.npz", "metrics.prom")
    kept = [path for path in files if path.relative_to(out).parts[0] not in skipped]
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 225 super-tiles of 1024 px."""
    folder = tmp_path_factory.mktemp("slide")
    return write_gigapixel(folder / "large.svs", Shape(y=15_000, x=15_000))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["slide", "world"])
def test_kill_and_go_on(which: str, slide: Path, shared_data: Path, tmp_path: Path) -> None:
    source, edge = (slide, "1024") if which == "slide" else (shared_data / "satellite" / "cog_world.tif", "2048")
    options = ("--super-tile", edge)
    whole = finished(source, tmp_path / "whole", *options)
    assert whole["total"] >= 160
    assert whole == {"total": whole["total"], "reused": 0, "computed": whole["total"]}
    out = tmp_path / "killed"
    for count in KILLS[which]:
        done = killed_after(count, source, out, *options)
        assert done < whole["total"]
    # another number of threads, and another size of batch, must not change a bit
    last = finished(source, out, *options, "--cluster", "threads:1", "--batch", "7")
    assert last == {"total": whole["total"], "reused": done, "computed": whole["total"] - done}
    assert stores(out) == stores(tmp_path / "whole")
    # a finished image is not opened again
    assert finished(source, out, *options)["computed"] == 0
