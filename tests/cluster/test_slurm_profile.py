"""The SLURM profile as far as it goes without SLURM: what is asked of dask-jobqueue and what is said of trouble."""

from __future__ import annotations

import sys
from pathlib import Path

import dask
import pytest

from tilestream.cluster import client as cluster
from tilestream.cluster.client import open_client
from tilestream.cluster.profile import read_profile
from tilestream.cluster.slurm import slurm_options, write_keys
from tilestream.errors import ConfigError

PROFILE = """
kind: slurm
scale: 2
cores: 2
memory: 4GiB
walltime: "00:10:00"
queue: gpu
account: me
directives: ["--gres=gpu:1"]
environment: {SAY: "it's here"}
prologue: ["module load cuda"]
wait_s: 0.5
"""


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(PROFILE)
    return path


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def put(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_job_as_it_is_submitted(profile: Path) -> None:
    from dask_jobqueue.slurm import SLURMJob

    options = slurm_options(read_profile(str(profile)))
    for name in ("scheduler_options", "silence_logs"):
        options.pop(name)
    script = SLURMJob("tls://host:1", name="w", **options).job_script()
    for line in ("-J tilestream", "-p gpu", "-A me", "--cpus-per-task=2", "--mem=4G", "-t 00:10:00", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False\n" in script
    assert "export SAY='it'\"'\"'s here'\nmodule load cuda\n" in script
    assert f"{sys.executable} -m distributed.cli.dask_worker tls://host:1" in script
    assert "--nthreads 2 --memory-limit 4.00GiB" in script
    assert '--local-directory "${TMPDIR:-/tmp}" --no-dashboard' in script


def test_keys_are_a_run_s_own(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        security = write_keys(tmp_path / name)
        for role in ("client", "scheduler", "worker"):
            found = security.get_tls_config_for_role(role)
            texts.append(Path(found["key"]).read_text())
            assert {Path(found[part]).parent for part in ("key", "cert", "ca_file")} == {tmp_path / name}
    assert len(set(texts)) == 2


def test_without_the_package(profile: Path, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(commands, "sbatch", "true")
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[slurm\]'"):
        open_client(str(profile)).__enter__()


def test_without_slurm(profile: Path, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(ConfigError, match=r"got no command `sbatch`.*login or compute node"):
        open_client(str(profile)).__enter__()


def test_a_job_that_slurm_refuses(profile: Path, commands: Path) -> None:
    put(commands, "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(ConfigError, match=r"invalid partition specified: gpu.*expected jobs that SLURM accepts"):
        open_client(str(profile)).__enter__()


def test_jobs_that_wait_too_long(profile: Path, commands: Path, tmp_path: Path) -> None:
    put(commands, "sbatch", "echo Submitted batch job 7$$")
    put(commands, "squeue", "echo job 71 PENDING Resources; echo job 72 PENDING Priority")
    put(commands, "scancel", f"echo $* >> {tmp_path}/cancelled")
    with pytest.raises(ConfigError) as caught:
        open_client(str(profile)).__enter__()
    text = str(caught.value)
    assert "got no worker within 0.5 s (job 71 PENDING Resources; job 72 PENDING Priority; logs in " in text
    assert str(tmp_path / "slurm-logs") in text
    assert len((tmp_path / "cancelled").read_text().split()) == 2, "no job is left behind"


def test_workers_of_a_job_do_the_work(profile: Path, commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sbatch` that runs the script at once; a job that ends is followed by another."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    profile.write_text(PROFILE.replace("scale: 2", "scale: 1").replace("wait_s: 0.5", "interface: lo\nwait_s: 60"))
    put(commands, "module", "true")
    put(commands, "sbatch", 'cp "$1" job$$; setsid sh job$$ >>log 2>&1 & echo Submitted batch job $!')
    put(commands, "scancel", "echo $1 >>cancelled; kill -9 -- -$1")  # a job is all of its processes
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "100ms"}), open_client(str(profile)) as client:
        assert list(client.nthreads().values()) == [2]
        assert client.submit(says, 1).result(timeout=60) == "it's here"
        (worker,) = client.scheduler_info()["workers"]
        assert worker.startswith("tls://")
        assert dask.config.get("tilestream.no-worker-s") == 60
        client.retire_workers([worker], close_workers=True)
        assert client.submit(says, 2).result(timeout=60) == "it's here"
        (other,) = client.scheduler_info()["workers"]
        assert other != worker


def says(_number: int) -> str:
    import os

    return os.environ["SAY"]


def test_how_long_a_first_worker_may_take() -> None:
    assert cluster.WAIT_S["slurm"] >= 600, "jobs stand in a queue"
