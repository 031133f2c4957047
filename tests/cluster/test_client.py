"""Clusters: the same bytes on threads, processes and a scheduler elsewhere; quiet, and bounded when they are gone."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client

from tests.bench.gigapixel import write_gigapixel
from tests.cluster.elsewhere import Elsewhere
from tests.pipelines.faults.runs import UNITS, embed, receipts, start, stores
from tests.told import told
from tilestream.cluster import client as cluster
from tilestream.cluster.client import open_client
from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.image import ImageJob
from tilestream.pipelines.map import map_tiles
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.stream import engine
from tilestream.stream.engine import Engine, Event, Prepared, pickled_bytes
from tilestream.stream.running import MOST_UNITS
from tilestream.testing.slide import write_slide
from tilestream.types import Receipt, Shape, SuperTile

SMALL_BYTES = 32 << 10
"""What travels with each unit stays below this."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("in") / "made.svs", Shape(y=1200, x=1500), seed=3)


@pytest.mark.slow
def test_the_same_bytes_wherever_it_runs(
    slide: Path, elsewhere: Elsewhere, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    elsewhere.add_worker()
    elsewhere.add_worker()
    monkeypatch.chdir(tmp_path)
    Path("made.svs").symlink_to(slide)
    made = {}
    for profile in ("threads:1", "threads:3", "local:2", elsewhere.address):
        out = Path(profile.partition(":")[0] + profile[-1])  # relative: workers have other folders
        with open_client(profile) as client:
            client.wait_for_workers(1)
            (row,) = embed(client, Path("made.svs"), out, super_tile_px=512).rows
        assert row.status == "done", row.reason
        made[profile] = stores(out)
    first, *others = made.values()
    assert first
    assert all(other == first for other in others)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_workers_that_die_and_never_come_back(
    slide: Path, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NO_WORKER_S", 2.0)
    monkeypatch.setattr(engine, "LOOK_S", 0.2)
    worker = elsewhere.add_worker()
    events: list[Event] = []

    def kill(event: Event) -> None:
        events.append(event)
        if event.kind == "unit":
            worker.kill()

    with open_client(elsewhere.address) as client:
        client.wait_for_workers(1)
        started = time.monotonic()
        outcome = embed(client, [slide], tmp_path, encoder="tests.pipelines.faults.faulty:slow", on_event=kill)
        assert time.monotonic() - started < 30
    assert outcome.exit_code() == 3
    assert "no worker" in outcome.rows[0].reason
    done = receipts(tmp_path, slide)
    assert done > 0
    with open_client("threads:2") as client:
        (row,) = embed(client, slide, tmp_path, encoder="tests.pipelines.faults.faulty:slow").rows
    assert (row.status, row.supertiles_reused) == ("done", done)


@pytest.mark.slow
def test_a_scheduler_that_dies(slide: Path, elsewhere: Elsewhere, tmp_path: Path) -> None:
    elsewhere.add_worker()
    run = start(slide, tmp_path, "--cluster", elsewhere.address, encoder="slow")
    stop = time.monotonic() + 60
    while receipts(tmp_path, slide) < 3:
        assert time.monotonic() < stop
        assert run.poll() is None
        time.sleep(0.01)
    elsewhere.processes[0].kill()
    _, stderr = run.communicate(timeout=60)
    assert run.returncode == 3, stderr
    assert "scheduler is lost" in stderr
    assert len(told(stderr)) == 1, stderr
    elsewhere.end()  # the worker may be at a unit yet
    done, slow = receipts(tmp_path, slide), "tests.pipelines.faults.faulty:slow"
    with open_client("threads:2") as client:
        (row,) = embed(client, slide, tmp_path, encoder=slow).rows
        assert (row.status, row.supertiles_reused, row.supertiles_computed) == ("done", done, UNITS - done)
        assert embed(client, slide, tmp_path / "alone", encoder=slow).exit_code() == 0
    alone = stores(tmp_path / "alone")
    assert alone
    assert {name: data for name, data in stores(tmp_path).items() if not name.startswith("alone/")} == alone


def test_no_worker_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slide: Path) -> None:
    monkeypatch.setattr(engine, "NO_WORKER_S", 0.5)
    monkeypatch.setattr(engine, "LOOK_S", 0.1)
    with open_client("threads:1") as client:
        client.retire_workers(list(client.nthreads()), close_workers=True)
        outcome = embed(client, [slide, slide.parent], tmp_path)
    assert all("no worker" in row.reason for row in outcome.rows)
    assert outcome.exit_code() == 3


def test_schedulers_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "CONNECT_S", 0.3)
    file, secured = tmp_path / "scheduler.json", tmp_path / "mine.yaml"
    told = {"tcp://127.0.0.1:1": "no scheduler at tcp://127.0.0.1:1 .*Start `dask scheduler`"}
    told[str(file)] = "No such file.* Start the scheduler first"
    for profile, says in told.items():
        with pytest.raises(ConfigError, match=says), open_client(profile):
            pass
    for text, says in (("{}", "without an `address`"), ('{"address": "tcp://127.0.0.1:1"}', "no scheduler at tcp")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=says), open_client(str(file)):
            pass
    secured.write_text("kind: address\naddress: tls://127.0.0.1:1\ntls_ca_file: missing.pem\n")
    with pytest.raises(ConfigError, match=r"no scheduler at tls://127\.0\.0\.1:1"), open_client(str(secured)):
        pass


def test_a_scheduler_without_workers(elsewhere: Elsewhere, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"kind: scheduler-file\npath: {elsewhere.folder / 'scheduler.json'}\nwait_s: 0.5\n")
    says = rf"got no worker within 0\.5 s, expected at least one\. Start some: `dask worker {elsewhere.address}`"
    with pytest.raises(ConfigError, match=says), open_client(str(path)):
        pass


@pytest.mark.parametrize("where", ["all", "tissue"])
def test_what_travels_with_a_unit_is_small(tmp_path: Path, where: str, shared_data: Path) -> None:
    source = write_gigapixel(tmp_path / "large.svs", Shape(y=60_000, x=60_000))
    (entry,) = read_cohort([str(source)]).entries
    prepared = ImageJob(entry=entry, config=EmbedConfig(out=tmp_path / "out", where=where), tasks=2).prepare()
    assert isinstance(prepared, Prepared)
    unit = next(iter(prepared.plan.start()))
    assert pickled_bytes(prepared.work) < SMALL_BYTES
    assert pickled_bytes(prepared.finish) < SMALL_BYTES
    assert pickled_bytes(unit) < SMALL_BYTES
    # the plan itself travels once: 5 bytes a tile, never its mask
    assert pickled_bytes(prepared) < SMALL_BYTES + 5 * len(prepared.plan) * 4


class Kept:
    """A sink that keeps nothing but what it was given, in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, unit: SuperTile, results: Any) -> dict[str, str]:
        """Write the means."""
        np.save(self.folder / f"{unit.key}.npy", results["entropy"])
        return {}

    def finish(self, receipts: Any) -> None:
        """Do nothing."""


def submissions(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes that are submitted with each call."""
    sizes: list[int] = []
    real: Callable[..., Any] = client.submit

    def submit(*arguments: Any, **options: Any) -> Any:
        sizes.append(
            sum(
                pickled_bytes(argument)
                for argument in arguments
                if not hasattr(argument, "key") or isinstance(argument, SuperTile)
            )
        )
        return real(*arguments, **options)

    monkeypatch.setattr(client, "submit", submit)
    return sizes


@pytest.mark.parametrize("profile", ["threads:2", pytest.param("local:1", marks=pytest.mark.slow)])
def test_an_array_travels_once(profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
    pyramid = open_pyramid(array)
    plan = plan_tiles(pyramid, where="all", super_tile_px=512)
    with warnings.catch_warnings(), open_client(profile) as client:
        warnings.simplefilter("error")  # such as the one about large graphs
        sizes = submissions(client, monkeypatch)
        report = map_tiles(pyramid, plan, "entropy", Kept(tmp_path), receipts=tmp_path / "receipts", client=client)
    assert report.tiles == len(plan)
    assert len(sizes) > plan.units / MOST_UNITS
    assert max(sizes) < SMALL_BYTES


def test_a_receipt_of_another_run_is_not_counted_as_computed(slide: Path, tmp_path: Path) -> None:
    with open_client("threads:1") as client:
        seen: list[Event] = []
        other: list[Receipt] = []

        def hear(event: Event) -> None:
            seen.append(event)
            if event.kind == "prepared" and event.prepared is not None:
                units = list(event.prepared.plan.start())
                other.extend(event.prepared.work(unit) for unit in units[5:9])

        (row,) = embed(client, slide, tmp_path, on_event=hear).rows
    assert len(other) == 4
    assert row.supertiles_reused == 4
    assert sum(bool(event.reused) for event in seen if event.kind == "unit") == 4


def test_the_engine_cancels_what_is_queued_when_it_is_stopped(slide: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        """From the outside."""

    def stop(event: Event) -> None:
        if event.kind == "unit":
            raise Stop

    with open_client("threads:1") as client:
        (entry,) = read_cohort([str(slide)]).entries
        config = EmbedConfig(
            out=tmp_path,
            where="all",
            super_tile_px=256,
            tile_px=256,
            encoders=(EncoderChoice(name="tests.pipelines.faults.faulty:slow"),),
        )
        with pytest.raises(Stop):
            Engine(client, stop, 20).run([ImageJob(entry=entry, config=config, tasks=1)])
        time.sleep(0.5)
        assert not any(client.processing().values())
        assert receipts(tmp_path, slide) < 5
