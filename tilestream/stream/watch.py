"""Finds processes of a cluster in which everything hangs, and ends them.

A process that does not even answer (stopped, or a stage that holds the interpreter's lock for ever) is the cluster's
own to find: a scheduler of Dask restarts a worker without heartbeat after its `worker-ttl`, five minutes. What it
cannot see is a stage that never returns while the process goes on answering. So each worker says with its heartbeat
how long no step of any task has ended there, and how long the longest silence was that did end.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from distributed import Client, get_worker

from tilestream.life import LIFE

SILENT_S = 1800.0
"""No process is thought to hang before it was silent for so long: models are loaded and compiled in silence too."""
TIMES = 20.0
"""Nor before it was silent for so many times the longest silence that came to an end anywhere in the run."""
RESTART_S = 60.0
"""How long the end of a process and the start of the next may take."""
METRIC = "tilestream"
"""Name of the report in a worker's heartbeat."""


@dataclass(frozen=True, kw_only=True)
class Hung:
    """A process in which everything hangs."""

    address: str
    """Of its worker."""
    silent_s: float
    """How long no step has ended there."""
    is_here: bool
    """Whether it is this process, which cannot be ended without ending the run."""
    has_nanny: bool
    """Whether another one is started in its place."""


def report_life() -> None:
    """Let the worker that this task runs on say with each heartbeat how it stands with its tasks."""
    worker = get_worker()
    if METRIC not in worker.metrics:  # which the event loop goes through, so that it has to be the one that adds to it
        worker.loop.add_callback(worker.metrics.setdefault, METRIC, _life)


def _life(_worker: Any) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "silent_s": LIFE.silent_s,
        "longest_s": LIFE.longest_s,
    }


class Watch:
    """Looks after the processes of a cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected to it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._longest_s = 0.0
        self.ended: dict[str, float] = {}
        """Silence of each process that was ended, by the address of its worker."""

    def hung(self) -> list[Hung]:
        """Return the processes that hang by now."""
        reports = [
            (address, worker, worker["metrics"][METRIC])
            for address, worker in self._client.scheduler_info(n_workers=-1)[
                "workers"
            ].items()  # some releases tell of five
            if METRIC in worker.get("metrics", {}) and address not in self.ended
        ]
        self._longest_s = max([self._longest_s, *(life["longest_s"] for _, _, life in reports)])
        limit_s = max(SILENT_S, TIMES * self._longest_s)
        return [
            Hung(
                address=address,
                silent_s=life["silent_s"],
                is_here=(life["host"], life["pid"]) == (socket.gethostname(), os.getpid()),
                has_nanny=bool(worker.get("nanny")),
            )
            for address, worker, life in reports
            if life["silent_s"] > limit_s
        ]

    def end(self, hung: Hung) -> None:
        """End a process, by the one that looks after it where there is one; its tasks are lost."""
        self.ended[hung.address] = hung.silent_s
        if hung.has_nanny:
            self._client.restart_workers([hung.address], timeout=RESTART_S, raise_for_error=False)
        else:
            self._client.run(os._exit, 1, workers=[hung.address], on_error="return")
