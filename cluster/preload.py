"""What worker processes are told about signals and their end; dask loads it: `--preload tilestream.cluster.preload`."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType

from distributed import Worker

from tilestream.stream.halt import halt
from tilestream.stream.leases import abandon

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a worker process that was told to end."""


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
    halt()
    abandon()


def _leave(_number: int, _frame: FrameType | None) -> None:
    abandon()
    os._exit(TERMINATED)
