"""Stages that never return: their process is ended and the others go on; what is slow is left alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import dask
import psutil
import pytest
from distributed import Client

from tests.pipelines.faults.faulty import let_go, set_flag
from tests.pipelines.faults.runs import UNITS, embed, stores
from tilestream.cluster.client import open_client
from tilestream.stream import engine, watch
from tilestream.stream.engine import Event


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take seconds for half an hour."""
    monkeypatch.setattr(watch, "SILENT_S", 8.0)
    monkeypatch.setattr(watch, "TIMES", 0.0)
    monkeypatch.setattr(engine, "WATCH_S", 0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_process_that_hangs_is_ended_and_its_unit_done_by_another(
    processes: Client, client: Client, slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(processes, slide, tmp_path / "first")  # what has to be imported
    before = set(processes.run(os.getpid).values())
    monkeypatch.setenv("FAULTY_FLAG", str(tmp_path / "flag"))  # for the process that is started
    processes.run(set_flag, str(tmp_path / "flag"))
    (row,) = embed(processes, slide, tmp_path / "out", encoder="tests.pipelines.faults.faulty:hangs_once").rows
    assert (row.status, row.supertiles_computed) == ("done", UNITS), row.reason
    assert len(before & set(processes.run(os.getpid).values())) == 1
    embed(client, slide, tmp_path / "alone", encoder="tests.pipelines.faults.faulty:hangs_once")  # nobody is first now
    assert stores(tmp_path / "out") == stores(tmp_path / "alone")


@pytest.mark.slow
def test_a_stopped_process_is_replaced_and_its_unit_done_by_another(
    slide: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    stopped: list[int] = []
    with dask.config.set({"distributed.scheduler.worker-ttl": "5s"}), open_client("local:2") as client:

        def stop(event: Event) -> None:
            if event.receipt is not None and not stopped:
                stopped.append(int(event.receipt.worker.rpartition(":")[2]))
                os.kill(stopped[0], signal.SIGSTOP)

        (row,) = embed(client, slide, tmp_path, on_event=stop).rows
        client.wait_for_workers(2, timeout=60)
        assert stopped[0] not in client.run(os.getpid).values()
    assert row.status == "done", row.reason
    assert 0 < row.supertiles_computed <= UNITS  # what it had finished and could not tell any more is found
    assert stores(tmp_path) == whole
    assert not psutil.pid_exists(stopped[0])


def test_what_hangs_in_the_process_of_the_run_ends_it_in_words(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENT_S", 2.0)
    monkeypatch.setattr(watch, "TIMES", 0.0)
    monkeypatch.setattr(engine, "WATCH_S", 0.2)
    monkeypatch.setattr(engine, "LOOK_S", 0.2)
    with open_client("threads:2") as client:
        start = time.monotonic()
        (row,) = embed(client, slide, tmp_path / "out", encoder="tests.pipelines.faults.faulty:hangs").rows
        assert time.monotonic() - start < 60
        let_go.set()  # else closing waits half a minute for its threads
    assert row.status == "failed"
    assert "taken to hang" in row.reason
    assert "--cluster local:N" in row.reason
