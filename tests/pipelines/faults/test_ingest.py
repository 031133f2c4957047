"""Stores that were killed, shared, short of room or of permission on the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import tilestream as ts
from tests.pipelines.faults.ingesting import small_units
from tests.pipelines.faults.test_disks import small_disk as small_disk
from tests.sinks.build import tree_bytes
from tilestream.codecs.place import Place
from tilestream.errors import OutputError
from tilestream.pipelines.ingest import build_pyramid
from tilestream.pipelines.update import update_pyramid
from tilestream.sinks import layout
from tilestream.sinks.tree import check_place
from tilestream.stream.journal import Journal

UNITS = 9 + 1
"""Units of 256 px of the image, and one of the next tier."""


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for name in ("CHUNK_PX", "LAST_PX"):
        monkeypatch.setattr(layout, name, getattr(layout, name))
    small_units()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.tif"
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:700, :650]
    pixels = np.clip(120 + 60 * np.sin(y / 37) + 40 * np.cos(x / 23) + rng.normal(0, 5, y.shape), 0, 255)
    tifffile.imwrite(path, np.stack([pixels.astype("u1")] * 3, -1), tile=(64, 64), photometric="rgb")
    return path


@pytest.fixture
def whole(image, tmp_path):
    build_pyramid(image, tmp_path / "whole" / "x.zarr")
    return tree_bytes(tmp_path / "whole" / "x.zarr")


def _command(image, root, log, *more, **environment):
    arguments = [sys.executable, "-m", "tests.pipelines.faults.ingesting", str(image), str(root), str(log), *more]
    repo = Path(__file__).resolve().parents[3]
    return subprocess.Popen(arguments, cwd=repo, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)


def _stored(root):
    """Content of every object of a store, wherever it is."""
    place = Place.of(str(root))
    return tree_bytes(place.path) if place.is_local else place.get_many(place.sizes())


@pytest.fixture(params=["disk", "s3"])
def root(request, tmp_path):
    """Where a store goes: a folder, or a prefix of a bucket."""
    if request.param == "disk":
        return str(tmp_path / "out" / "x.zarr")
    return f"{request.getfixturevalue('s3_environment').url}/out/x.zarr"


@pytest.mark.parametrize(
    ("root", "count"),
    [*(("disk", count) for count in (0, 1, 5, UNITS - 1)), *(("s3", count) for count in (1, UNITS - 1))],
    indirect=["root"],
)
def test_a_killed_ingest_goes_on(image, root, whole, tmp_path, count):
    first = _command(image, root, tmp_path / "first", str(count))
    first.communicate(timeout=120)
    assert first.returncode == -9
    assert check_place(Place.of(root)) is None  # nobody takes it for a store
    receipts = {
        name.removesuffix(".json")
        for name in Place.of(root.removesuffix("x.zarr")).at("receipts/x.zarr").names("L*.json")
    }
    assert len(receipts) == count
    second = _command(image, root, tmp_path / "second")
    _, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert len((tmp_path / "second").read_text().split()) == UNITS - count
    assert not receipts & set((tmp_path / "second").read_text().split())
    assert _stored(root) == whole
    pyramid = ts.open_pyramid(root)
    assert pyramid.levels[0].shape.yx == (700, 650)


def test_a_coarse_unit_that_another_run_holds_is_waited_for(image, whole, tmp_path, monkeypatch):
    """A run that was killed on another machine in the last step: its lease has to end first."""
    held, asked = "L4-make1-y0-x0", []
    claim = Journal.claim

    def claimed(self, key):
        asked.append(key)
        return None if key == held and asked.count(held) < 3 else claim(self, key)

    monkeypatch.setattr(Journal, "claim", claimed)
    build_pyramid(image, tmp_path / "out" / "x.zarr")
    assert asked.count(held) == 3
    assert tree_bytes(tmp_path / "out" / "x.zarr") == whole


def test_what_a_killed_run_was_writing_is_no_part_of_the_store(image, whole, tmp_path):
    staging = tmp_path / "out" / ".x.zarr.partial" / "0" / "image" / "c" / "0" / "0"

    def left(self, receipt):
        if receipt.key.startswith("L0"):
            (staging / ".0123456789abcdef.partial").write_bytes(b"half a shard")
        commit(self, receipt)

    commit = Journal.commit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "commit", left)
        build_pyramid(image, tmp_path / "out" / "x.zarr")
    assert tree_bytes(tmp_path / "out" / "x.zarr") == whole


def test_two_processes_share_the_work(image, root, whole, tmp_path):
    logs = [tmp_path / "one", tmp_path / "two"]
    runs = [_command(image, root, log) for log in logs]
    said = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    done = [log.read_text().split() if log.exists() else [] for log in logs]
    assert set(done[0]) | set(done[1]) == set(done[0] + done[1])
    assert len({*done[0], *done[1]}) == UNITS
    assert _stored(root) == whole


def test_what_is_returned_is_what_is_stored_now(image, root, tmp_path):
    """Also on object storage, where what a file was is remembered for a moment."""
    pixels = tifffile.imread(image)
    source = tmp_path / "changing.tif"
    for value in (50, 100):
        pixels[300:310, 300:310] = value
        tifffile.imwrite(source, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
        stored = build_pyramid(source, root, resume=False)
        assert (stored.read(ts.Box(y=300, x=300, height=10, width=10)) == value).all()
    pixels[300:310, 300:310] = 150
    tifffile.imwrite(source, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
    stored = update_pyramid(root, [ts.Box(y=300, x=300, height=10, width=10)], src=source)
    assert (stored.read(ts.Box(y=300, x=300, height=10, width=10)) == 150).all()


def test_another_recipe_is_refused_while_one_is_unfinished(image, root, tmp_path):
    run = _command(image, root, tmp_path / "log", "3")
    run.communicate(timeout=120)
    with pytest.raises(OutputError, match="another recipe"):
        build_pyramid(image, root, profile="gdal")
    layout.CHUNK_PX = ((float("inf"), 64),)  # each is an object in this profile
    build_pyramid(image, root, profile="gdal", resume=False)
    record = check_place(Place.of(root))
    assert record is not None
    assert record["profile"] == "gdal"
    assert not any(name.startswith("0/image/c/0/0/0/") for name in Place.of(root).sizes())


@pytest.mark.parametrize("free", [60, 250, 700])
def test_a_disk_that_fills_up(image, whole, small_disk, free):
    filler = small_disk / "other data"
    filler.write_bytes(bytes(((1 << 20) - free * 1024) // 4096 * 4096))
    root = small_disk / "out" / "x.zarr"
    with pytest.raises(OutputError, match=r"full disk|bytes free"):
        build_pyramid(image, root)
    assert not root.exists()
    assert not list(small_disk.rglob("0/image/**/.*.partial"))


def test_a_disk_that_has_room_again(image, whole, tmp_path, monkeypatch):
    """The disk is full in the middle of a shard; when there is room the same call goes on."""
    from tilestream.codecs.durable import DurableFile, explain_os_error

    write, left = DurableFile.write, [400_000]

    def limited(self, data):
        left[0] -= len(data)
        if left[0] < 0:
            raise explain_os_error(self.path, OSError(28, "No space left on device"))
        write(self, data)

    root = tmp_path / "out" / "x.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(DurableFile, "write", limited)
        with pytest.raises(OutputError, match="full disk"):
            build_pyramid(image, root)
    assert not root.exists()
    build_pyramid(image, root)
    assert tree_bytes(root) == whole


def test_a_place_without_permission(image, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="folder"):
        build_pyramid(image, tmp_path / "out" / "x.zarr")


def test_a_shard_that_was_lost_is_damage(image, tmp_path):
    root = tmp_path / "x.zarr"
    build_pyramid(image, root)
    (root / "0" / "image" / "c" / "0" / "1" / "1").unlink()
    pyramid = ts.open_pyramid(str(root))
    region = pyramid.read_region(pyramid.levels[0].box)
    assert region.damage
    assert not region.valid[256:512, 256:512].any()
    assert region.valid[:256].all()
