"""Interrupts, and nobody who reads what is printed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from distributed import Client

from tests.pipelines.faults.runs import UNITS, embed, receipts, start, stores, wait_for
from tests.told import told


@pytest.mark.slow
@pytest.mark.parametrize(("number", "cluster"), [(signal.SIGINT, "threads:2"), (signal.SIGTERM, "local:2")])
def test_an_interrupted_run_says_how_to_go_on_and_does(
    number: int, cluster: str, slide: Path, client: Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = start(slide, out, "--cluster", cluster, encoder="slow")
    wait_for(4, run, out, slide)
    run.send_signal(number)
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 130
    assert stdout == ""
    (line,) = told(stderr)
    assert "run the same command again" in line
    assert str(out) in line
    done = receipts(out, slide)
    assert 4 <= done < UNITS
    (row,) = embed(client, slide, out, encoder="tests.pipelines.faults.faulty:slow").rows
    assert (row.status, row.supertiles_reused) == ("done", done)


@pytest.mark.slow
def test_nobody_reads_what_is_printed(slide: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    run = start(slide, tmp_path)
    assert run.stdout is not None
    assert run.stderr is not None
    run.stdout.close()
    run.stderr.close()
    assert run.wait(timeout=60) in (0, 1)  # 1: not even the last line could be printed
    assert stores(tmp_path) == whole
    assert json.loads((tmp_path / "report.json").read_text())["inputs"][0]["status"] == "done"
