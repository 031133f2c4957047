"""What dask is told wherever a cluster is started here: it measures less, and leaves memory and signals alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

QUIET: Mapping[str, Any] = {
    "distributed.worker.profile.enabled": False,  # samples all stacks 100 times a second, holding the GIL
    # The window keeps a task waiting behind each that runs: at the end one would wait while other workers are idle.
    "distributed.scheduler.work-stealing": True,
    "distributed.scheduler.work-stealing-interval": "100ms",
    "distributed.admin.low-level-log-length": 100,  # messages that each end of a connection keeps
    "distributed.scheduler.allowed-failures": 0,  # whoever was beside a worker's killer is run again by the engine
    "distributed.admin.tick.interval": "2s",  # looks for a blocked event loop 50 times a second otherwise
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.daemon": False,  # encoders may start processes of their own
    # Tasks return receipts of a few hundred bytes: spilling them frees nothing, and a worker that is paused because its
    # caches and buffers are large, as planned, would wait for ever. The projection of a plan has bounded these.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # As dask has it, but for MALLOC_TRIM_THRESHOLD_: with it glibc gives memory back after each batch, and takes it
    # anew at five page faults a tile, up to a tenth of decoding and computing.
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1},
    # The window holds two tasks a thread, so there is never a longer queue to see: a full one asks for all workers.
    "distributed.adaptive.target-duration": "100ms",
}
"""Settings of clusters that are started here."""

PRELOAD = "tilestream.cluster.preload"
"""Module that every worker process loads: what it does at a signal, and at its end."""


def environment(own: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the settings as environment variables, for processes that somebody else starts.

    Parameters
    ----------
    own : Mapping, optional
        Variables of the user's; they come last and win.

    Returns
    -------
    dict
        Text by name.
    """
    named = {f"DASK_{key.replace('.', '__').replace('-', '_').upper()}": value for key, value in QUIET.items()}
    return {key: str(value) for key, value in {**named, **(own or {})}.items()}
