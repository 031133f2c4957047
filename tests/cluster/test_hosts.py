"""Several hosts on one disk: killed, cut off, hung and come back; the bytes stay those of one process."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import Hosts, named, require_names, spawn
from tests.pipelines.faults.runs import UNITS, command, done, embed, stores
from tilestream.cluster.client import open_client
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

pytestmark = pytest.mark.slow

ENCODER = "tests.pipelines.faults.faulty:together"
IMPATIENT = "from tilestream.stream import leases; leases.LEASE_S, leases.HEARTBEAT_S = 3.0, 0.3"
DASK = (sys.executable, "-m")
QUICK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
"""How soon a connection without answers is given up, half a minute otherwise."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("in") / "made.svs", Shape(y=1200, x=1500), seed=3)


@pytest.fixture(scope="module")
def whole(slide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("whole")
    with open_client("threads:8") as client:
        assert embed(client, slide, out, encoder=ENCODER).exit_code() == 0
    return stores(out)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    made.begin()
    yield made
    made.end()


def until(holds: Callable[[], object], limit_s: float = 60.0) -> None:
    stop = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < stop
        time.sleep(0.02)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Where processes wait for each other, so that all of them have a part in the work."""
    folder = tmp_path / "gate"
    folder.mkdir()
    return folder


def test_a_worker_that_is_killed_and_a_cable_that_is_pulled(
    hosts: Hosts, slide: Path, whole: dict[str, bytes], tmp_path: Path, gate: Path
) -> None:
    env = {**QUICK, "FAULTY_GATE": f"{gate}:3"}
    place = tmp_path / "scheduler.json"
    options = ["--host", hosts.address(0), "--port", "0", "--no-dashboard", "--scheduler-file", str(place)]
    hosts.run(0, *DASK, "distributed.cli.dask_scheduler", *options, env=env)
    until(lambda: place.exists() and place.read_text().endswith("}"))
    address = json.loads(place.read_text())["address"]
    made = []
    for number in (0, 1, 1):
        options = ["--host", hosts.address(number), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        options += ["--preload", IMPATIENT]
        made.append(hosts.run(number, *DASK, "distributed.cli.dask_worker", address, *options, env=env))
    out = tmp_path / "out"
    run = hosts.run(0, *command(slide, out, "--encoder", ENCODER, "--cluster", address), env=env)
    until(lambda: len(set(done(out, slide).values())) == 3 or run.poll() is not None)
    made[1].kill()
    before = len(done(out, slide))
    until(lambda: len(done(out, slide)) > before or run.poll() is not None)
    hosts.cut()
    _, stderr = run.communicate(timeout=90)
    assert run.returncode == 0, stderr
    assert stores(out) == whole
    found = done(out, slide)
    assert len(found) == UNITS
    assert {worker.partition(":")[0] for worker in found.values()} == {*hosts.names}


def test_members_on_other_hosts_that_are_killed_and_that_hang(
    slide: Path, whole: dict[str, bytes], tmp_path: Path, gate: Path
) -> None:
    require_names()
    out, env = tmp_path / "out", {"FAULTY_GATE": f"{gate}:3"}
    program = [sys.executable, "-c", f"{IMPATIENT}; from tilestream.cli import main; main()"]
    program += command(slide, out, "--encoder", ENCODER, "--cluster", "threads:1")[3:]
    killed, hung = (spawn(named(name, *program), env=env) for name in ("killed", "hung"))
    here = spawn(program, env=env)
    until(lambda: len(set(done(out, slide).values())) == 3)
    killed.kill()
    hung.send_signal(signal.SIGSTOP)
    _, stderr = here.communicate(timeout=90)
    assert here.returncode == 0, stderr
    assert stores(out) == whole
    found = done(out, slide)
    assert len(found) == UNITS
    hung.send_signal(signal.SIGCONT)  # in the middle of a super-tile that is done, of an image that is whole
    _, stderr = hung.communicate(timeout=60)
    killed.communicate(timeout=60)
    assert hung.returncode == 0, stderr
    assert stores(out) == whole
    assert not list(out.rglob("*.lease"))
