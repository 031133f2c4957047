"""What worker processes are told about signals and their end; dask loads it: `--preload tilestream.cluster.preload`."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

from distributed import Worker

from tilestream.stream.faults import is_replaced
from tilestream.stream.halt import halt_everything
from tilestream.stream.leases import abandon

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a worker process that was told to end."""
IN_POD = "KUBERNETES_SERVICE_HOST"
"""Kubernetes sets this variable in every pod, and starts a container of a worker again that has ended."""
LEAVE_S = 2.0
"""How long it goes on answering: whoever has started it is often told to end too, and closes it in good order."""


def dask_setup(worker: Worker) -> None:
    """Prepare the process of a worker.

    Parameters
    ----------
    worker : distributed.Worker
        The one that starts; dask gives it.

    Notes
    -----
    Ctrl-C reaches all of a terminal's processes, but it is the starter who ends the run. SIGTERM reaches all of a
    SLURM job's, and what a worker holds is free at once, not only when others see that its heartbeat has stopped.
    """
    if IN_POD in os.environ:
        is_replaced()
    with suppress(ValueError):  # not the main thread: whoever owns that decides
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # `dask worker` without a nanny closes by itself
            signal.signal(signal.SIGTERM, _leave)


def dask_teardown(worker: Worker) -> None:
    """End what a worker that is being closed is at: in seconds its process is killed.

    Parameters
    ----------
    worker : distributed.Worker
        The one that closes.
    """
    halt_everything()
    abandon()


def _leave(_number: int, _frame: FrameType | None) -> None:
    halt_everything()
    abandon()
    timer = threading.Timer(LEAVE_S, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    abandon()
    os._exit(TERMINATED)
