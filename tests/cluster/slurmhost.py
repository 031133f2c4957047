"""A real SLURM on one machine: munge, a controller and two nodes, with nothing installed and nothing left behind.

Debian's packages are fetched by apt and unpacked into a temporary folder; daemons listen on loopback, on free ports,
with a configuration of their own. A SLURM that the machine may have is neither used nor touched.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
NODES = ("one", "two")
CORES, MEMORY_MB = 16, 1 << 16
"""What SLURM believes each node to have: two members of an array as the page of clusters submits it."""
FETCH_S = 60.0
START_S = 30.0
SETTINGS = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PluginDir={plugins}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=300
KillWait=30
PartitionName=all Nodes=ALL Default=YES MaxTime=UNLIMITED State=UP
"""


def unpack(folder: Path) -> Path:
    """Fetch the packages and those that they need, and return the folder in which they are unpacked; else skip."""
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"SLURM is fetched by apt, as root: no {missing[0]}" if missing else "SLURM is started as root")
    lists, archives, root = folder / "lists", folder / "archives", folder / "root"
    for made in (lists / "partial", archives / "partial", root):
        made.mkdir(parents=True)
    options = ["-qq", "-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1", "-o", "Acquire::Retries=2"]
    options += ["-o", "APT::Sandbox::User=root"]
    install = ["install", "--download-only", "--reinstall", "--no-install-recommends", "-y", *PACKAGES]
    if _apt(*options, *install):  # no list of packages here, or an old one
        options += ["-o", f"Dir::State::lists={lists}"]
        trouble = _apt(*options, "update") or _apt(*options, *install)
        if trouble:
            pytest.skip(f"apt does not fetch SLURM: {trouble}")
    for package in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, root], check=True, timeout=FETCH_S)
    return root


def _apt(*arguments: str) -> str:
    """Return what apt complains of, nothing when it has done what it was told."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        asked = subprocess.run(["apt-get", *arguments], capture_output=True, text=True, timeout=FETCH_S, env=env)
    except subprocess.TimeoutExpired:
        return f"nothing within {FETCH_S:.0f} s"
    return (asked.stderr.strip().splitlines() or ["an error"])[-1] if asked.returncode else ""


class Slurm:
    """The daemons, and what a user does with them.

    Parameters
    ----------
    root : Path
        Where the packages are unpacked.
    folder : Path
        Configuration, sockets and state.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        libraries = next((root / "usr" / "lib").glob("*/slurm-wlm"))
        self.environment = {
            "PATH": f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": f"{libraries.parent}:{libraries}",
            "SLURM_CONF": f"{folder}/slurm.conf",
        }
        host = socket.gethostname().partition(".")[0]
        ports = _free_ports(1 + len(NODES))
        lines = SETTINGS.format(host=host, user="root", port=ports[0], folder=folder, plugins=libraries)
        for name, port in zip(NODES, ports[1:], strict=True):
            lines += f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} "
            lines += f"CPUs={CORES} RealMemory={MEMORY_MB}\n"
        (folder / "slurm.conf").write_text(lines)
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o400)
        (folder / "state").mkdir()
        folder.chmod(0o755)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons, and wait until both nodes are there."""
        sbin, folder = self.root / "usr" / "sbin", self.folder
        places = [f"--{what}={folder}/munge.{end}" for what, end in MUNGE]
        self._spawn(sbin / "munged", "--foreground", "--force", *places)
        self.until(lambda: (folder / "munge.socket").exists(), "munged")
        self._spawn(sbin / "slurmctld-wlm", "-D", "-c")
        for name in NODES:
            self._spawn(sbin / "slurmd-wlm", "-D", "-N", name, "-d", str(sbin / "slurmstepd-wlm"))
        self.until(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D", check=False) == str(len(NODES)), "nodes")

    def stop(self) -> None:
        """Cancel all jobs and end the daemons, whatever has happened before."""
        try:
            self.run("scancel", "--signal=KILL", "--full", "--user=root", check=False)
            self.run("scancel", "--user=root", check=False)
            stop = time.monotonic() + START_S
            while self.run("squeue", "-h", check=False) and time.monotonic() < stop:
                time.sleep(0.1)
        finally:
            for process in reversed(self.processes):
                process.terminate()
            for process in self.processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def run(self, *command: str, check: bool = True) -> str:
        """Return what a command of SLURM's prints."""
        env = {**os.environ, **self.environment}
        asked = subprocess.run(command, capture_output=True, text=True, env=env, timeout=START_S)
        if check:
            assert asked.returncode == 0, asked.stderr
        return asked.stdout.strip()

    def submit(self, *arguments: str) -> int:
        """Return the number of a job."""
        return int(self.run("sbatch", "--parsable", *arguments))

    def state(self, job: str) -> dict[str, str]:
        """Return what SLURM knows of a job or a member of an array."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", job)))

    def members(self, job: int) -> int:
        """Return how many members of an array, or jobs, are not over yet."""
        return len(self.run("squeue", "-h", "-r", f"--jobs={job}", check=False).splitlines())

    def requeue(self, job: str) -> None:
        """End a member by SIGTERM and start it again, at once instead of after two minutes."""
        self.run("scontrol", "requeue", job)
        self.until(lambda: self.state(job)["JobState"] == "PENDING", f"{job} in the queue")
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def kill(self, job: str) -> None:
        """Kill all processes of a job as a machine that loses power does, without SLURM's doing."""
        number = self.state(job)["JobId"]
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and _job_of(folder) == number:
                os.kill(int(folder.name), signal.SIGKILL)

    def until(self, holds: Callable[[], object], what: str, limit_s: float = START_S) -> None:
        """Wait until something holds."""
        stop = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < stop, f"waited for {what}:\n{self.logs()}"
            time.sleep(0.05)

    def logs(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))

    def _spawn(self, program: Path, *options: str) -> None:
        log = (self.folder / f"{program.name}-{len(self.processes)}.log").open("wb")
        env = {**os.environ, **self.environment}
        with log:
            process = subprocess.Popen([program, *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        self.processes.append(process)


MUNGE = (
    ("key-file", "key"),
    ("socket", "socket"),
    ("pid-file", "pid"),
    ("log-file", "log"),
    ("seed-file", "seed"),
)
"""Options of munged and the files that they name."""


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _job_of(folder: Path) -> str:
    """Return the number of the job that a process belongs to, nothing for others."""
    try:
        found = re.search(rb"(?:^|\0)SLURM_JOB_ID=(\d+)", (folder / "environ").read_bytes())
    except OSError:
        return ""
    return found[1].decode() if found else ""
