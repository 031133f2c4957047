"""A run that is told to stop: exit code 130, a last line that says how to go on, and nothing done twice."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from tilestream.cli.stopping import guarded
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

COMMAND = [sys.executable, "-m", "tilestream.cli", "embed"]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 8 × 9 super-tiles of 256 px."""
    return write_slide(tmp_path_factory.mktemp("large") / "large.svs", Shape(y=1900, x=2300))


def command(slide: Path, out: Path) -> list[str]:
    options = ["--where", "all", "--super-tile", "256", "--cluster", "threads:1", "--batch", "1"]
    return [*COMMAND, str(slide), "--out", str(out), *options]


@pytest.fixture(scope="module")
def uninterrupted(large: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole")
    subprocess.run(command(large, out), capture_output=True, check=True)
    return digests(out / "large.svs.features.zarr")


def digests(store: Path) -> dict[str, str]:
    files = sorted(path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_and_go_on(large: Path, tmp_path: Path, uninterrupted: dict[str, str], number: signal.Signals) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(command(large, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    receipts = out / "receipts" / "large.svs"
    limit = time.monotonic() + 60
    while len(list(receipts.glob("L*.json"))) < 5 and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    last = stderr.splitlines()[-1]
    assert last.startswith("interrupted: 0 of 1 input and ")
    assert f"tilestream embed {large} --out {out}" in last
    assert "Traceback" not in stderr
    kept = len(list(receipts.glob("L*.json")))
    assert 5 <= kept < 72
    assert not (out / "large.svs.features.zarr").exists()
    assert not list(receipts.glob("*.lease"))

    again = subprocess.run(command(large, out), capture_output=True, text=True, check=True)
    row = json.loads((out / "report.json").read_text())["inputs"][0]
    assert row["supertiles"] == {"total": 72, "reused": kept, "computed": 72 - kept}
    assert f"72 tiles ({kept} from an earlier run)" in again.stdout
    assert digests(out / "large.svs.features.zarr") == uninterrupted


IMPATIENT = """
import sys
from tilestream.cli import main, stopping
stopping.GRACE_S = float(sys.argv.pop(1))
main()
"""


@pytest.mark.parametrize(
    ("encoder", "cluster", "grace_s"),
    [
        ("slow", "threads:2", "40"),  # ends at its next batch
        ("hangs", "threads:2", "1"),  # is cut off
        ("hangs", "local:1", "40"),  # the worker process is
    ],
)
def test_a_super_tile_that_takes_long_is_not_waited_for(
    large: Path, tmp_path: Path, encoder: str, cluster: str, grace_s: str
) -> None:
    """SLURM kills half a minute after it has asked; other nodes wait for leases that are left."""
    options = ["--where", "all", "--super-tile", "2560", "--tile", "256", "--batch", "1", "--cluster", cluster]
    options += ["--encoder", f"tests.pipelines.faults.faulty:{encoder}"]  # 72 batches of 0.1 s or more
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    program = [sys.executable, "-c", IMPATIENT, grace_s, "embed", str(large), "--out", str(tmp_path), *options]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    receipts = tmp_path / "receipts" / "large.svs"
    limit = time.monotonic() + 60
    while not list(receipts.glob("L*.lease")):
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1].startswith("interrupted: 0 of 1 input and 0 tiles are done and kept. To go on")
    assert not list(tmp_path.rglob("*.lease"))
    assert not list(receipts.glob("L*.json"))


def test_a_signal_that_got_lost_ends_the_run_at_the_next_event() -> None:
    with pytest.raises(typer.Exit) as caught, guarded(as_json=False) as stop:  # noqa: PT012 - it ends in the middle
        heard: list[int] = []
        hear = stop.checked(heard.append)
        hear(1)
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        hear(2)
    assert heard == [1]
    assert caught.value.exit_code == 130


def test_stopped_before_anything_was_done(large: Path, tmp_path: Path) -> None:
    arguments = [*command(large, tmp_path / "out"), "--json"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.6)  # while modules are being imported, or the first tiles read
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGTERM), stderr  # the second before Python could listen
    if process.returncode == 130:
        assert json.loads(stdout)["status"] == "interrupted"


def test_a_library_that_is_not_installed_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Torch is an extra; what is missing of our own stays a bug with its traceback."""
    with pytest.raises(typer.Exit) as caught, guarded(as_json=False):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    assert caught.value.exit_code == 2
    assert "library `torch`: got not installed" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError), guarded(as_json=False):
        raise ModuleNotFoundError("No module named 'tilestream.nothing'", name="tilestream.nothing")
