"""Workers that lack something are refused before any work, now and later."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

from tests.cluster.elsewhere import Elsewhere
from tests.pipelines.faults.runs import embed, receipts, stores
from tests.servers import S3
from tilestream.cluster import handshake
from tilestream.cluster.client import open_client
from tilestream.cluster.handshake import agreed
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

ENCODER = "tried_encoder:encode"
GOOD = """
import time
def encode(x):
    time.sleep(0.05)
    return x.mean(axis=(2, 3))
encode.contract = {"px": 256}
"""
BAD = GOOD.replace("x.mean(axis=(2, 3))", "x.mean(axis=(2, 3)) + 1")
FOREIGN = "__version__ = '0.0.1'\n"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Path]]:
    """Folders of modules that processes find first."""
    made = {}
    for name, file, text in (
        ("good", "tried_encoder.py", GOOD),
        ("bad", "tried_encoder.py", BAD),
        ("foreign", "tilestream/__init__.py", FOREIGN),
    ):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        made[name] = tmp_path / name
    monkeypatch.syspath_prepend(str(made["good"]))
    return made


def wait_for(truth: Callable[[], bool]) -> None:
    stop = time.monotonic() + 60
    while not truth():
        assert time.monotonic() < stop
        time.sleep(0.02)


def test_the_run_is_refused_or_goes_on_without_them(
    elsewhere: Elsewhere, folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    slide = write_slide(tmp_path / "made.svs", Shape(y=1200, x=1500), seed=3)
    elsewhere.add_worker(folders["good"])
    with open_client(elsewhere.address) as client:
        # there from the start: other code of the encoder
        worker = elsewhere.add_worker(folders["bad"])
        client.wait_for_workers(2, timeout=60)
        with pytest.raises(ConfigError, match=rf"worker tcp://\S+: got other code of `{ENCODER}` in .*/bad/"):
            embed(client, slide, tmp_path / "out", encoder=ENCODER)
        assert not receipts(tmp_path / "out", slide)
        worker.kill()
        wait_for(lambda: len(client.nthreads()) == 1)
        # later: the same, and no tilestream of this version at all; one with a nanny
        late = []

        def join(event: object) -> None:
            if not late:
                late.append(elsewhere.add_worker(folders["bad"], nanny=True))
                late.append(elsewhere.add_worker(folders["foreign"]))
                wait_for(lambda: all(process.poll() is not None for process in late))

        with caplog.at_level(logging.WARNING, handshake.__name__):
            (row,) = embed(client, slide, tmp_path / "out", encoder=ENCODER, on_event=join).rows
            assert row.status == "done", row.reason
            wait_for(lambda: "other code of" in caplog.text)
        assert "which joined later" in caplog.text
        assert len(client.nthreads()) == 1
    with open_client("threads:2") as client:
        embed(client, slide, tmp_path / "alone", encoder=ENCODER)
    assert stores(tmp_path / "out") == stores(tmp_path / "alone")


def test_a_worker_of_another_tilestream(folders: dict[str, Path], elsewhere: Elsewhere) -> None:
    elsewhere.add_worker(folders["foreign"])
    said = r"worker \S+: got (tilestream 0\.0\.1|ModuleNotFoundError)"  # of itself, where it can be asked at all
    with open_client(elsewhere.address) as client, pytest.raises(ConfigError, match=said), agreed(client):
        pass


def test_a_worker_of_another_machine(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the same path is another folder: the file of the run is not there."""
    elsewhere.add_worker()
    monkeypatch.setattr(Place, "put", lambda *_: "")
    with (
        open_client(elsewhere.address) as client,
        pytest.raises(ConfigError, match=r"got another folder `.*` than the starter's"),
        agreed(client, out=Place.of(tmp_path)),
    ):
        pass


def test_the_file_of_a_run_goes_with_it(process_client: Client, tmp_path: Path) -> None:
    stale, other, place = tmp_path / ".run-1", tmp_path / ".run-2", Place.of(tmp_path)
    for path in (stale, other):
        path.write_text("")
    os.utime(stale, (1, 1))
    with agreed(process_client, out=place):
        assert len(place.names(".run-*")) == 2
        assert not stale.exists()
    assert place.names(".run-*") == [".run-2"], "that of a run of today is another's"


def test_a_folder_on_object_storage(s3_environment: S3) -> None:
    """Workers without its keys are told before the run, not once an image."""
    place = Place.of(f"{s3_environment.url}/out")
    with open_client("local:1") as client:
        with agreed(client, out=place):
            assert len(place.names(".run-*")) == 1
        assert place.names() == []
        client.run(forget_keys)
        with pytest.raises(ConfigError, match=r"got `s3://.*`, which cannot be read: "), agreed(client, out=place):
            pass


def forget_keys() -> None:
    """Leave a worker without what it needs for object storage."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.pop(name, None)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


def test_a_worker_that_does_not_answer(process_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "ASK_S", 0.2)
    monkeypatch.setattr(handshake, "look", never)
    with pytest.raises(ConfigError, match=r"got a worker that does not answer within 0\.2 s"), agreed(process_client):
        pass


async def never(_demands: object) -> None:
    """Answer after the test."""
    await asyncio.sleep(1)


def test_threads_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_client("threads:1") as client:
        monkeypatch.setattr(client, "_run", lambda *_, **__: pytest.fail("asked"))
        with agreed(client, stages=["nosuch:x"]):
            pass


@pytest.fixture(scope="module")
def process_client() -> Iterator[Client]:
    with open_client("local:1") as client:
        yield client
