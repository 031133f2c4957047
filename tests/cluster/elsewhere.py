"""A scheduler and workers that somebody else has started."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


class Elsewhere:
    """A scheduler and workers as a user starts them, in another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.spawn("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        stop = time.monotonic() + 30
        while not (folder / "scheduler.json").exists() or not self.address:
            assert time.monotonic() < stop
            time.sleep(0.05)

    @property
    def address(self) -> str:
        """Address of the scheduler, nothing while its file is being written."""
        with contextlib.suppress(ValueError):
            return str(json.loads((self.folder / "scheduler.json").read_text())["address"])
        return ""

    def spawn(self, module: str, *options: str, first: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a process of dask's, which finds modules in a folder first."""
        program = [sys.executable, "-m", module, "--scheduler-file", "scheduler.json", "--no-dashboard", *options]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(path) for path in (first, REPO) if path)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(program, cwd=self.folder, env=env, **quiet)
        self.processes.append(process)
        return process

    def add_worker(self, first: Path | None = None, *, nanny: bool = False) -> subprocess.Popen[bytes]:
        """Start a worker of two threads, which by default nobody restarts."""
        options = ("--nthreads", "2", "--host", "127.0.0.1", "--death-timeout", "20")
        return self.spawn("distributed.cli.dask_worker", *options, *([] if nanny else ["--no-nanny"]), first=first)

    def end(self) -> None:
        """Kill what is left."""
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    made = Elsewhere(tmp_path_factory.mktemp("elsewhere"))
    yield made
    made.end()
