"""Where tasks run: a `distributed.Client` by profile name."""

from __future__ import annotations

import gc
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Security
from distributed.deploy.cluster import Cluster
from distributed.utils import silence_logging_cmgr
from distributed.versions import VersionMismatchWarning

from tilestream.cluster.devices import visible_devices
from tilestream.cluster.kubernetes import explain_pods, start_kubernetes
from tilestream.cluster.local import start_gpus, start_processes, start_threads
from tilestream.cluster.profile import Profile, read_profile
from tilestream.cluster.quiet import QUIET
from tilestream.cluster.slurm import explain_jobs, start_slurm
from tilestream.errors import ConfigError

CONNECT_S = 10.0
"""How long a scheduler may take to answer."""
LOOK_S = 0.2
"""How often workers are looked for."""
WAIT_S: Mapping[str, float] = {"address": 30.0, "scheduler-file": 30.0, "slurm": 900.0, "kubernetes": 900.0}
"""How long the first worker may take where a profile does not say it in `wait_s`; jobs and pods stand in a queue."""
LOCAL_WAIT_S = 60.0

START: Mapping[str, Callable[[Profile], AbstractContextManager[Cluster]]] = {
    "threads": start_threads,
    "local": start_processes,
    "gpus": start_gpus,
    "slurm": start_slurm,
    "kubernetes": start_kubernetes,
}
"""Kind → what starts a cluster of it, and ends it."""
EXPLAIN: Mapping[str, Callable[[Profile, Any], str]] = {"slurm": explain_jobs, "kubernetes": explain_pods}
"""Kind → what says how it stands with workers that have not come."""


def default_profile(*, is_for_device: bool) -> str:
    """Return the profile of a run that names none.

    Parameters
    ----------
    is_for_device : bool
        Whether a stage of the run computes on a CUDA device where there is one.

    Returns
    -------
    str
        `gpus` when such a stage meets a visible device, else `threads`.
    """
    return "gpus" if is_for_device and visible_devices() else "threads"


@contextmanager
def open_client(profile: str = "threads") -> Iterator[Client]:
    """Yield a client for a profile and close what was started for it.

    Parameters
    ----------
    profile : str
        `threads` (one thread a core in this process), `threads:N`, `local:N` (N processes of one thread each on this
        machine), `gpus` (a process for each visible CUDA device), `slurm`, `kubernetes`, the address of a running
        scheduler, or the path of a profile or scheduler file.

    Yields
    ------
    distributed.Client
        Connected, with at least one worker.

    Raises
    ------
    ConfigError
        When the profile is not known, its file is wrong, a package is missing, the scheduler does not answer, or no
        worker comes in time.
    """
    found = read_profile(profile)
    if found.kind in ("address", "scheduler-file"):
        # What happens to workers is told by the engine, once and in words of the run.
        with silence_logging_cmgr(logging.CRITICAL), _connect(found) as client:
            _await_worker(client, found)
            yield client
        return
    # Where workers stand in a queue before they start, the engine waits as long for those that replace lost ones.
    patience = {"tilestream.no-worker-s": _wait_s(found)} if found.kind in EXPLAIN else {}
    with (
        dask.config.set({**QUIET, **patience}),
        START[found.kind](found) as cluster,
        Client(cluster) as client,
    ):
        _scale(cluster, found)
        _await_worker(client, found, cluster)
        yield client


def _scale(cluster: Cluster, profile: Profile) -> None:
    """Let a cluster grow and shrink, where its profile gives it room."""
    scale = profile.get("scale")
    if profile.kind == "slurm" and isinstance(scale, int):
        scale = {"minimum": scale, "maximum": scale}  # so that a job whose time is over is followed by another
    if isinstance(scale, dict):
        each = profile.get("processes", 1)
        cluster.adapt(minimum=scale["minimum"] * each, maximum=scale["maximum"] * each)


def _await_worker(client: Client, profile: Profile, cluster: Cluster | None = None) -> None:
    """Wait for the first worker, and say why there is none when it does not come."""
    wait_s = _wait_s(profile)
    stop = time.monotonic() + wait_s
    while not client.nthreads():
        if time.monotonic() > stop:
            state = EXPLAIN[profile.kind](profile, cluster) if cluster and profile.kind in EXPLAIN else ""
            raise ConfigError.of(
                f"`--cluster {profile.given}`",
                got=f"no worker within {wait_s:g} s{f' ({state})' if state else ''}",
                expected="at least one",
                do=_advice(client, profile),
            )
        time.sleep(LOOK_S)


def _wait_s(profile: Profile) -> float:
    return float(profile.get("wait_s") or WAIT_S.get(profile.kind, LOCAL_WAIT_S))


def _advice(client: Client, profile: Profile) -> str:
    if profile.kind in EXPLAIN:
        return "See to what holds them back, or raise `wait_s` in a profile file of your own."
    if profile.kind in START:
        return "Try again."
    return f"Start some: `dask worker {client.scheduler_info()['address']}`."


def _connect(profile: Profile) -> Client:
    options = {key: value for key, value in profile.fields.items() if key.startswith("tls_")}
    security = Security(
        require_encryption=True,
        tls_ca_file=options.get("tls_ca_file"),
        tls_client_cert=options.get("tls_cert"),
        tls_client_key=options.get("tls_key"),
    )
    place: dict[str, Any] = {"security": security} if options else {}
    if profile.kind == "address":
        place["address"] = profile.fields["address"]
    else:
        place["address"] = _address_in(profile, Path(profile.fields["path"]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VersionMismatchWarning)  # the handshake refuses those that matter
            return Client(timeout=CONNECT_S, **place)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error)
    # The client that failed is closed here: by a collector in the thread of the next one it would stop that.
    gc.collect()
    raise ConfigError.of(
        f"`--cluster {profile.given}`",
        got=f"no scheduler at {place['address']} ({reason})",
        expected="a running one",
        do="Start `dask scheduler`, and name the address that it prints.",
    )


def _address_in(profile: Profile, path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        got = f"`{path}`, {error.strerror}" if isinstance(error, OSError) else f"`{path}` without an `address`"
        raise ConfigError.of(
            f"`--cluster {profile.given}`",
            got=got,
            expected="the file that `dask scheduler --scheduler-file` writes",
            do="Start the scheduler first, and name its file.",
        ) from error
