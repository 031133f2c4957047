"""SLURM itself: array jobs without a scheduler of ours, and workers that dask-jobqueue submits."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurmhost import Slurm, unpack
from tests.pipelines.faults.runs import command, done, embed, start, stores
from tilestream.cluster.client import open_client
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SLIDES = {"large.svs": (1200, 1500), "small.svs": (300, 400), "wide.svs": (500, 1500)}
"""Height and width: 30, 4 and 12 super-tiles of 256 px."""
UNITS = 46
ENCODER = "tests.pipelines.faults.faulty:together"
REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "cluster" / "README.md"
PROFILE = """
kind: slurm
scale: 2
cores: 1
memory: 1GiB
walltime: "00:05:00"
interface: lo
log_directory: {logs}
wait_s: 60
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    root = unpack(tmp_path_factory.mktemp("packages"))
    made = Slurm(root, tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for seed, (name, (y, x)) in enumerate(SLIDES.items()):
        write_slide(folder / name, Shape(y=y, x=x), seed=seed)
    return folder


@pytest.fixture(scope="module")
def whole(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes."""
    out = tmp_path_factory.mktemp("whole")
    with open_client("threads:8") as client:
        assert embed(client, slides, out, encoder=ENCODER).exit_code() == 0
    return stores(out)


def submit(slurm: Slurm, folder: Path, slides: Path, members: int, *options: str) -> int:
    """Submit the line of the page of clusters, with other paths and fewer members."""
    line = re.search(r"^sbatch (.*?)\n```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[1]
    *given, wrapped = shlex.split(line.replace("\\\n", ""))
    assert given[0].startswith("--array=")
    assert given[-1] == "--wrap"
    assert wrapped == "exec tilestream embed /shared/slides --out /shared/out"
    more = command(slides, folder / "out", "--encoder", ENCODER, "--cluster", "threads:1", *options)[3:]
    gate = folder / "gate"  # all have a part in the work
    gate.mkdir()
    return slurm.submit(
        *(f"--array=0-{members - 1}", *given[1:-1]),
        *(f"--output={folder}/%a.out", f"--error={folder}/%a.err"),
        f"--export=ALL,PYTHONPATH={REPO},FAULTY_GATE={gate}:{members}",
        *("--wrap", f"exec {Path(sys.executable).parent}/{shlex.join(['tilestream', *more])}"),
    )


def all_done(out: Path) -> dict[str, str]:
    """Which process has done each super-tile, by image and key."""
    return {f"{name}/{key}": worker for name in SLIDES for key, worker in done(out, Path(name)).items()}


def test_members_of_an_array_share_the_work(
    slurm: Slurm, slides: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    job = submit(slurm, tmp_path, slides, 3, "--json")
    slurm.until(lambda: not slurm.members(job), "the array", 60)
    reports = [json.loads((tmp_path / f"{member}.out").read_text()) for member in range(3)]
    assert [report["exit_code"] for report in reports] == [0, 0, 0]
    rows = [{row["path"]: row for row in report["inputs"]} for report in reports]
    assert all(row.keys() == SLIDES.keys() for row in rows)  # the report is whole, whoever ended last
    computed = [sum(row["supertiles"]["computed"] for row in one.values()) for one in rows]
    assert sum(computed) == UNITS  # each once
    assert all(computed), computed
    assert json.loads((tmp_path / "out" / "report.json").read_text())["inputs"] in [
        report["inputs"] for report in reports
    ]
    workers = all_done(tmp_path / "out")
    assert len(workers) == UNITS
    assert len(set(workers.values())) == 3
    assert stores(tmp_path / "out") == whole
    assert not list(tmp_path.rglob("*.lease"))


def test_members_that_are_cancelled_killed_and_requeued(
    slurm: Slurm, slides: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    job = submit(slurm, tmp_path, slides, 4)
    slurm.until(lambda: len(set(all_done(out).values())) == 4, "a super-tile of each member")
    slurm.run("scancel", f"{job}_0")
    slurm.kill(f"{job}_1")
    slurm.requeue(f"{job}_2")
    slurm.until(lambda: not slurm.members(job), "the array", 60)
    said = [(tmp_path / f"{member}.err").read_text() for member in range(4)]
    assert re.search(r"^interrupted: .* are done and kept", said[0], re.MULTILINE), said[0]
    assert slurm.state(f"{job}_1")["JobState"] == "FAILED"
    assert slurm.state(f"{job}_2")["Restarts"] == "1"
    assert slurm.state(f"{job}_3")["ExitCode"] == "0:0"
    assert stores(out) == whole
    workers = all_done(out)
    assert len(workers) == UNITS
    assert not list(out.rglob("*.lease"))
    again = start(slides, out, "--cluster", "threads:1", encoder="together")
    assert again.communicate(timeout=60)[0].startswith("3 done, 0 failed")
    assert all_done(out) == workers  # nothing was computed


def test_workers_as_jobs(
    slurm: Slurm, slides: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "gate").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    monkeypatch.setenv("FAULTY_GATE", f"{tmp_path}/gate:2")
    profile = tmp_path / "profile.yaml"
    profile.write_text(PROFILE.format(logs=tmp_path / "logs"))
    out = tmp_path / "out"
    run = start(slides, out, "--cluster", str(profile), encoder="together", cwd=tmp_path)
    slurm.until(
        lambda: run.poll() is not None or len(set(all_done(out).values())) == 2, "a super-tile of each worker", 60
    )
    jobs = slurm.run("squeue", "-h", "-o", "%i %j").split("\n")
    assert [line.partition(" ")[2] for line in jobs] == ["tilestream"] * 2
    slurm.run("scancel", jobs[0].partition(" ")[0])  # one is preempted, and the other goes on
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == 0, stderr
    assert stdout.startswith("3 done, 0 failed"), stdout
    assert stores(out) == whole
    assert not list(out.rglob("*.lease"))
    slurm.until(lambda: not slurm.run("squeue", "-h"), "the end of the jobs")
