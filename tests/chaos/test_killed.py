"""kill -9 of the client, and of everything: what was in flight is done again, nothing else, and to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client

from tests.pipelines.faults.runs import UNITS, embed, receipts, start, stores, wait_for

SLOW = "tests.pipelines.faults.faulty:slow"
WORKERS = 2


def members(session: int) -> list[psutil.Process]:
    """The living processes of a session."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("who", ["client", "everything"])
def test_what_was_in_flight_is_done_again_and_nothing_else(
    who: str, slide: Path, client: Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = start(slide, out, "--cluster", f"local:{WORKERS}", encoder="slow", start_new_session=True, **quiet)
    wait_for(4, run, out, slide)
    assert len(members(run.pid)) > WORKERS
    if who == "client":
        run.kill()
    else:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    stop = time.monotonic() + 60
    while members(run.pid):  # workers that have lost their client end by themselves, a unit in flight first
        assert time.monotonic() < stop
        time.sleep(0.05)
    done = receipts(out, slide)
    assert 4 <= done < UNITS
    left = {path.stem for path in (out / "receipts" / slide.name).glob("L*.lease")}
    assert len(left) <= WORKERS
    (row,) = embed(client, slide, out, encoder=SLOW).rows
    assert (row.status, row.supertiles_reused, row.supertiles_computed) == ("done", done, UNITS - done), row.reason
    assert embed(client, slide, tmp_path / "alone", encoder=SLOW).exit_code() == 0
    assert stores(out) == stores(tmp_path / "alone")
