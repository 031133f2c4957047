"""Workers as SLURM jobs, through dask-jobqueue; the scheduler runs in this process and ends with it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from distributed import Security, Status

from tilestream.cluster.profile import Profile
from tilestream.cluster.quiet import PRELOAD, environment
from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from distributed import SpecCluster

LOGS = "slurm-logs"
"""Folder of the jobs' logs, below the working folder, where a profile names none."""
ASK_S = 10.0
"""How long `squeue` may take."""


@contextmanager
def start_slurm(profile: Profile) -> Iterator[SpecCluster]:
    """Yield a cluster whose workers are jobs, and cancel them.

    Parameters
    ----------
    profile : Profile
        Fields of kind `slurm`.

    Yields
    ------
    SLURMCluster
        Its jobs are submitted.

    Raises
    ------
    ConfigError
        When dask-jobqueue or `sbatch` is missing, or SLURM refuses the job.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ConfigError.of(
            f"`--cluster {profile.given}`",
            got=str(error),
            expected="the package dask-jobqueue",
            do="Run `pip install -e '.[slurm]'` in the clone.",
        ) from error
    if shutil.which("sbatch") is None:
        raise ConfigError.of(
            f"`--cluster {profile.given}`",
            got="no command `sbatch`",
            expected="a machine that can submit to SLURM",
            do="Run this on a login or compute node of the cluster.",
        )
    logs = log_folder(profile)
    logs.mkdir(parents=True, exist_ok=True)
    scale = profile.fields["scale"]
    with ExitStack() as stack:
        options = slurm_options(profile)
        if profile.get("encrypt", True):
            keys = stack.enter_context(TemporaryDirectory(prefix=".keys-", dir=logs))  # for nobody else to read
            options |= {"security": write_keys(Path(keys)), "protocol": "tls://"}
        try:
            cluster = stack.enter_context(SLURMCluster(**options))
            _submit(cluster, scale if isinstance(scale, int) else scale["minimum"])
        except (RuntimeError, OSError, ValueError) as error:
            raise ConfigError.of(
                f"`--cluster {profile.given}`",
                got=" ".join(str(error).split()),
                expected="jobs that SLURM accepts",
                do="Correct the profile; `tilestream cluster slurm` prints one to start from.",
            ) from error
        yield cluster


def _submit(cluster: SpecCluster, jobs: int) -> None:
    """Submit jobs, and raise what `sbatch` says; `scale` would log it, and the jobs be waited for."""
    while len(cluster.worker_spec) < jobs:
        cluster.worker_spec.update(cluster.new_worker_spec())
    try:
        cluster.sync(cluster._correct_state)
    except RuntimeError:
        for job in cluster._created:
            if job.status == Status.created:  # else closing the cluster asserts that it is over
                job.status = Status.failed
        raise


def slurm_options(profile: Profile) -> dict[str, Any]:
    """Return the arguments of dask-jobqueue's `SLURMCluster` for a profile.

    Parameters
    ----------
    profile : Profile
        Fields of kind `slurm`.

    Returns
    -------
    dict
        Without those for which SLURM has defaults of its own.
    """
    exports = [f"export {key}={shlex.quote(value)}" for key, value in environment(profile.get("environment")).items()]
    options = {
        "cores": profile.fields["cores"],
        "memory": profile.fields["memory"],
        "processes": profile.get("processes", 1),
        "queue": profile.get("queue"),
        "account": profile.get("account"),
        "walltime": profile.get("walltime"),
        "interface": profile.get("interface"),
        "python": profile.get("python"),
        "job_name": profile.get("job_name", "tilestream"),
        "job_extra_directives": profile.get("directives", []),
        "job_script_prologue": [*exports, *profile.get("prologue", [])],
        "local_directory": profile.get("local_directory", '"${TMPDIR:-/tmp}"'),  # dask's own files, never results
        "log_directory": str(log_folder(profile)),
        # a worker that lost its scheduler, which is this process, ends its job instead of holding the node
        "death_timeout": 60,
        # nothing that other machines can reach but the scheduler itself, and that only with the keys of this run
        "scheduler_options": {"dashboard": False, "dashboard_address": "127.0.0.1:0"},
        "worker_extra_args": ["--no-dashboard", "--preload", PRELOAD],
        "silence_logs": "critical",
    }
    return {key: value for key, value in options.items() if value is not None}


def write_keys(folder: Path) -> Security:
    """Return keys of one run, written where jobs find them.

    Parameters
    ----------
    folder : Path
        That nobody else can read, on a file system that all nodes share.

    Returns
    -------
    Security
        With the paths of the files.
    """
    made = Security.temporary().get_tls_config_for_role("client")
    paths = {}
    for name in ("ca_file", "cert", "key"):
        path = folder / f"{name}.pem"
        path.write_text(made[name], encoding="ascii")
        paths["tls_ca_file" if name == "ca_file" else name] = str(path)
    roles = {
        f"tls_{role}_{name}": paths[name] for role in ("client", "scheduler", "worker") for name in ("cert", "key")
    }
    return Security(require_encryption=True, tls_ca_file=paths["tls_ca_file"], **roles)


def log_folder(profile: Profile) -> Path:
    """Return where the jobs of a profile write their logs."""
    return Path(profile.get("log_directory", LOGS)).absolute()


def explain_jobs(profile: Profile, cluster: SpecCluster) -> str:
    """Return how it stands with the jobs of a cluster, as far as SLURM says it.

    Parameters
    ----------
    profile : Profile
        Says where logs are.
    cluster : SLURMCluster
        Knows its jobs.

    Returns
    -------
    str
        State and reason of each job by `squeue`, and where its log is.
    """
    jobs = [str(job.job_id) for job in cluster.workers.values() if getattr(job, "job_id", None)]
    if not jobs:
        return "no job was accepted"
    command = ["squeue", "--noheader", "--format=job %i %T %r", f"--jobs={','.join(jobs)}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
        lines = asked.stdout.split("\n") if asked.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired):
        lines = []
    states = [line.strip() for line in lines if line.strip()] or [f"jobs {', '.join(jobs)} are over or unknown"]
    return f"{'; '.join(states[:3])}{' …' if len(states) > 3 else ''}; logs in {log_folder(profile)}"
