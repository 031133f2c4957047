"""Where tasks run: a `distributed.Client` by profile name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster
from distributed.utils import silence_logging_cmgr

from tilestream.errors import ConfigError

QUIET = {
    "distributed.worker.profile.enabled": False,  # samples all stacks 100 times a second, holding the GIL
    "distributed.scheduler.work-stealing": False,  # the window already hands a unit to whoever is free
    "distributed.scheduler.allowed-failures": 0,  # whoever was beside a worker's killer is run again by the engine
    "distributed.admin.tick.interval": "2s",  # looks for a blocked event loop 50 times a second otherwise
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.daemon": False,  # encoders may start processes of their own
}
"""Settings of clusters that are started here."""

CONNECT_S = 10.0
"""How long a scheduler may take to answer."""

DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Run in worker processes: Ctrl-C reaches all of a terminal's processes, but it is the starter who ends the run."""

PROFILES = "`threads`, `threads:N`, `local:N` or `tcp://host:port`"


@contextmanager
def open_client(profile: str = "threads") -> Iterator[Client]:
    """Yield a client for a profile and close what was started for it.

    Parameters
    ----------
    profile : str
        `threads` (one thread a core in this process), `threads:N`, `local:N` (N processes of one thread each on this
        machine), or the address of a running scheduler.

    Yields
    ------
    distributed.Client
        Connected, with at least one worker.

    Raises
    ------
    ConfigError
        When the profile is not known or the scheduler does not answer.
    """
    kind, _, rest = profile.partition(":")
    if kind in ("tcp", "tls", "ws", "wss") and rest.startswith("//"):
        # What happens to workers is told by the engine, once and in words of the run.
        with silence_logging_cmgr(logging.CRITICAL), _connect(profile) as client:
            yield client
        return
    processes, threads = _local_size(profile, kind, rest)
    # No dashboard, and nothing that other machines can reach: `None` as its address would still serve port 8787 on all
    # interfaces, and warn where another run has it. No memory limit either, since tasks return receipts of a few
    # hundred bytes and the byte projection of a plan has bounded the rest.
    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=max(1, processes),
            threads_per_worker=threads,
            processes=processes > 0,
            host="127.0.0.1" if processes else None,
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            silence_logs=50,
            **({"preload": [DEAF]} if processes else {}),
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _local_size(profile: str, kind: str, rest: str) -> tuple[int, int]:
    count = int(rest) if rest.isdigit() and int(rest) > 0 else None
    if kind == "threads" and (not rest or count):
        return 0, count or _cores()
    if kind == "local" and count:
        return count, 1
    raise ConfigError.of("`--cluster`", got=f"`{profile}`", expected=PROFILES, do="Name one of these.")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _connect(address: str) -> Client:
    try:
        return Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise ConfigError.of(
            "`--cluster`", got=f"no scheduler at {address} ({error})", expected=PROFILES, do="Start `dask scheduler`."
        ) from error
