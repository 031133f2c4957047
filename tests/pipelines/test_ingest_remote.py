"""Pyramids on object storage: killed and resumed, made by two at once, refused half-way; the bytes of one on a disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tilestream as ts
from tests.bench.gigapixel import write_gigapixel
from tests.servers import S3, first
from tilestream.codecs.place import Place
from tilestream.pipelines.ingest import build_pyramid
from tilestream.types import Shape

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of 6 super-tiles of 4096 px."""
    return write_gigapixel(tmp_path_factory.mktemp("slide") / "large.svs", Shape(y=4200, x=9000))


@pytest.fixture(scope="module")
def on_disk(slide: Path) -> dict[str, bytes]:
    """The store as one run on a disk makes it."""
    root = slide.parent / "disk" / "large.svs.zarr"
    build_pyramid(slide, root, profile="portable")
    place = Place.of(root)
    return place.get_many(place.sizes())


def command(source: str, out: str) -> list[str]:
    program = [sys.executable, "-c", "from tilestream.cli import main; main()", "ingest", source, "--out", out]
    return [*program, "--profile", "portable"]


def start(source: str, out: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(source, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return out + err


def stored(place: Place) -> dict[str, bytes]:
    return place.get_many(place.sizes())


def receipts(out: Place) -> list[str]:
    return out.at("receipts", "large.svs.zarr").names("L*.json")


def test_killed_and_resumed(s3_environment: S3, slide: Path, on_disk: dict[str, bytes]) -> None:
    source, out = s3_environment.upload(slide), Place.of(f"{s3_environment.url}/out")
    process = start(source, out.url)
    stop = time.monotonic() + 120
    while len(receipts(out)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < stop
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = receipts(out)
    assert 2 <= len(done) < 6
    assert not out.exists("large.svs.zarr/zarr.json")  # nobody takes it for finished
    kept = {name: out.at("receipts", "large.svs.zarr").version(name) for name in done}

    again = start(source, out.url)
    seen = dict(kept)
    while again.poll() is None:
        found = {name: out.at("receipts", "large.svs.zarr").version(name) for name in done}
        seen.update({name: version for name, version in found.items() if version is not None})
        time.sleep(0.05)
    finished(again)
    assert seen == kept  # what was done is not done again
    assert stored(out.at("large.svs.zarr")) == on_disk
    assert out.at("receipts", "large.svs.zarr").names("*.lease") == []
    assert s3_environment.fs.list_multipart_uploads(s3_environment.bucket) == []


def test_two_at_once_share_the_work_and_ride_out_trouble(
    s3_environment: S3, slide: Path, on_disk: dict[str, bytes]
) -> None:
    s3_environment.log.fault = first(20, 500, method="PUT")
    out = Place.of(f"{s3_environment.url}/out")
    for process in [start(str(slide), out.url), start(str(slide), out.url)]:
        finished(process)
    assert stored(out.at("large.svs.zarr")) == on_disk
    opened = ts.open_pyramid(out.at("large.svs.zarr").url)
    assert opened.levels[0].shape == Shape(y=4200, x=9000)


def test_a_place_that_takes_no_more_is_named_and_gone_on_with(
    s3_environment: S3, slide: Path, on_disk: dict[str, bytes]
) -> None:
    out = Place.of(f"{s3_environment.url}/out")
    s3_environment.log.fault = lambda r: 403 if r.method == "PUT" and r.path.endswith("/c/0/1/1") else None
    process = start(str(slide), out.url)
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 3, said
    assert "access denied (403)" in said
    s3_environment.log.fault = None
    finished(start(str(slide), out.url))
    assert stored(out.at("large.svs.zarr")) == on_disk
