"""Clusters on this machine: threads of this process, processes of one thread each, a process for each device."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from distributed import LocalCluster, SpecCluster
from distributed.system import MEMORY_LIMIT

from tilestream.cluster.devices import VISIBLE, visible_devices
from tilestream.cluster.profile import Profile
from tilestream.cluster.quiet import PRELOAD
from tilestream.errors import ConfigError

LOOPBACK = "127.0.0.1"
"""Nothing that other machines can reach."""
NO_PORT = f"{LOOPBACK}:0"
"""Where a dashboard would be: `None` would serve port 8787 on all interfaces, and warn where another run has it."""


def start_threads(profile: Profile) -> LocalCluster:
    """Return a cluster of threads in this process.

    Parameters
    ----------
    profile : Profile
        Says how many, if not one a core.

    Returns
    -------
    LocalCluster
        Started; to be closed.
    """
    return LocalCluster(
        n_workers=1,
        threads_per_worker=profile.get("threads") or cores(),
        processes=False,
        dashboard_address=NO_PORT,
        worker_dashboard_address=NO_PORT,
        scheduler_kwargs={"dashboard": False},
        memory_limit=0,
        silence_logs=50,
    )


def start_processes(profile: Profile) -> LocalCluster:
    """Return a cluster of processes, of one thread each where nothing else is said.

    Parameters
    ----------
    profile : Profile
        Says how many.

    Returns
    -------
    LocalCluster
        Started; to be closed.
    """
    scale = profile.fields["scale"]
    first, most = (scale, scale) if isinstance(scale, int) else (scale["minimum"], scale["maximum"])
    return LocalCluster(
        n_workers=first,
        threads_per_worker=profile.get("threads", 1),
        env=profile.get("environment", {}),
        **_processes(profile, most),
    )


def start_gpus(profile: Profile) -> SpecCluster:
    """Return a cluster of one process a device, which sees no other device; dask-cuda's own where that is installed.

    Parameters
    ----------
    profile : Profile
        Says which devices, if not all visible ones.

    Returns
    -------
    SpecCluster
        Started; to be closed. Its workers are named by their devices and state the resource `GPU`, 1 each.

    Raises
    ------
    ConfigError
        When no device is visible.
    """
    wanted = ",".join(map(str, profile.get("devices", ()))) or os.environ.get(VISIBLE)
    devices = visible_devices({} if wanted is None else {VISIBLE: wanted})
    if not devices or ("devices" in profile.fields and len(devices) < len(profile.fields["devices"])):
        chosen = "" if wanted is None else f" among `{wanted}`"
        raise ConfigError.of(
            f"`--cluster {profile.given}`",
            got=f"{f'only {len(devices)}' if devices else 'no'} CUDA device{chosen}",
            expected="devices that `nvidia-smi` lists",
            do=f"Use `--cluster threads`, or see to the driver, to the GPUs that the job asks for and to {VISIBLE}.",
        )
    threads = profile.get("threads") or max(1, cores() // len(devices))
    own, options = profile.get("environment", {}), _processes(profile, len(devices))
    if not own and importlib.util.find_spec("dask_cuda") is not None:  # it keeps the workers' `env` for itself
        from dask_cuda import LocalCUDACluster

        found: SpecCluster = LocalCUDACluster(
            CUDA_VISIBLE_DEVICES=list(devices), threads_per_worker=threads, resources={"GPU": 1}, **options
        )
        return found
    cluster = LocalCluster(n_workers=0, threads_per_worker=threads, resources={"GPU": 1}, **options)
    # A nanny's `env` is there before the process that it starts runs a line of anybody's.
    for device in devices:
        spec = cluster.new_spec
        cluster.worker_spec[device] = {**spec, "options": {**spec["options"], "env": {**own, VISIBLE: device}}}
    try:
        cluster.sync(cluster._correct_state)
    except BaseException:
        cluster.close()
        raise
    return cluster


def _processes(profile: Profile, most: int) -> dict[str, Any]:
    """Return what clusters of processes have in common."""
    return {
        "processes": True,
        "host": LOOPBACK,
        "dashboard_address": NO_PORT,
        "worker_dashboard_address": NO_PORT,
        "scheduler_kwargs": {"dashboard": False},
        "silence_logs": 50,
        "preload": [PRELOAD],
        # nothing is enforced (see QUIET): it tells the budget of a plan that these processes share one memory
        "memory_limit": MEMORY_LIMIT // most,
        "local_directory": profile.get("local_directory"),
    }


def cores() -> int:
    """Return the number of cores that this process may use, in a SLURM job those of the job."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    job = os.environ.get("SLURM_CPUS_PER_TASK", "")  # not every SLURM binds a job to its cores
    return min(found, int(job)) if job.isdigit() and int(job) else found
