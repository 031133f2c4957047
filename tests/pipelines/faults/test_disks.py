"""Places that cannot be written, or not any more."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from tests.pipelines.faults.runs import embed, stores
from tilestream.codecs import durable
from tilestream.errors import OutputError
from tilestream.stream.engine import Event


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("may not mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("free", [0, 16, 64, 200, 420])
def test_a_disk_that_is_full(
    small_disk: Path, slide: Path, client: Client, whole: dict[str, bytes], tmp_path: Path, free: int
) -> None:
    filler = small_disk / "other data"
    filler.write_bytes(bytes(((1 << 20) - free * 1024) // 4096 * 4096))
    out = small_disk / "out"
    said: list[str] = []

    def hear(event: Event) -> None:
        if event.failure is not None:
            said.append(event.failure.reason + event.failure.trace)

    try:
        embed(client, slide, out, on_event=hear)
    except OutputError as error:  # not even the report has room
        said.append(str(error))
    assert said
    assert all("full disk" in words and "\n" not in words for words in said), said
    assert not (out / "made.svs.features.zarr").exists()
    assert not list(out.rglob("*.lease"))
    filler.unlink()
    (row,) = embed(client, slide, out).rows
    assert row.status == "done", row.reason
    assert stores(out) == whole
    assert not list(out.rglob("*.partial"))


def test_a_disk_that_becomes_read_only(
    small_disk: Path, slide: Path, client: Client, whole: dict[str, bytes], tmp_path: Path
) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", small_disk], check=True)

    def lock(event: Event) -> None:
        if event.kind == "unit" and os.access(small_disk, os.W_OK):
            try:
                remount("ro")
            except subprocess.CalledProcessError:  # something is being written just now
                return

    with pytest.raises(OutputError, match="read-only"):
        embed(client, slide, small_disk / "out", on_event=lock)
    with pytest.raises(OutputError, match=r"permission|read-only"):
        embed(client, slide, small_disk / "out")
    remount("rw")
    (row,) = embed(client, slide, small_disk / "out").rows
    assert row.status == "done", row.reason
    assert row.supertiles_reused > 0
    assert stores(small_disk / "out") == whole


def test_a_report_that_cannot_be_written(
    slide: Path, client: Client, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.DurableFile.__init__

    def refuse(self: Any, path: Path) -> None:
        if path.name == "report.json":
            raise durable.explain_os_error(path, OSError(errno.ENOSPC, "No space left on device"))
        real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(durable.DurableFile, "__init__", refuse)
        with pytest.raises(OutputError, match=r"report\.json.*full disk"):
            embed(client, slide, tmp_path)
    assert stores(tmp_path) == whole
    assert embed(client, slide, tmp_path).rows[0].supertiles_computed == 0
