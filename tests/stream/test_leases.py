"""Leases: who holds a piece of work, and when another may take it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tilestream.errors import OutputError
from tilestream.stream import leases
from tilestream.stream.leasefiles import LocalLease
from tilestream.stream.leases import claim, is_held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "L0-y0-x0.lease"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_one_holder_at_a_time(path: Path) -> None:
    with claim(path):
        assert is_held(path)
        assert claim(path) is None
    assert not path.exists()
    assert not is_held(path)
    assert claim(path) is not None


def test_of_many_threads_one_gets_it(path: Path) -> None:
    got: list[object] = []
    gate = threading.Barrier(16)

    def take() -> None:
        gate.wait()
        got.append(claim(path))

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in got) == 1


def test_leases_that_threads_take_as_the_first_of_their_process_do_not_look_dead(tmp_path: Path) -> None:
    for _ in range(20):
        leases._hearts.clear()
        gate = threading.Barrier(8)

        def take(number: int, gate: threading.Barrier = gate) -> object:
            gate.wait()
            return claim(tmp_path / f"{number}.lease")

        with ThreadPoolExecutor(8) as pool:
            held = list(pool.map(take, range(8)))
        assert all(is_held(tmp_path / f"{number}.lease") for number in range(8))
        for lease in held:
            lease.__exit__()


def test_of_many_takers_of_a_dead_lease_one_is_left_with_it(path: Path) -> None:
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    age(path, 2 * leases.LEASE_S)
    assert not is_held(path)
    assert claim(path) is not None
    assert is_held(path)
    assert claim(path) is None


def test_the_heartbeat_keeps_a_long_claim(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(leases, "LEASE_S", 1.0)
    leases._hearts.clear()  # a thread that beats as fast as the test needs
    try:
        with claim(path):
            stop = time.monotonic() + 2.2
            while time.monotonic() < stop:
                assert claim(path) is None
                time.sleep(0.05)
    finally:
        leases._hearts.clear()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"host": "x"}'])
def test_a_lease_that_was_never_written_is_waited_for_shortly(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    assert claim(path) is None  # perhaps its holder is just writing
    age(path, leases.EMPTY_S + 1)
    assert claim(path) is not None


def test_a_lease_of_a_killed_process_is_taken_before_its_parent_has_noticed(path: Path) -> None:
    program = f"from pathlib import Path; from tilestream.stream.leases import claim; claim(Path({str(path)!r})); "
    process = subprocess.Popen(
        [sys.executable, "-c", program + "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert claim(path) is None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
    assert claim(path) is not None
    process.communicate()


def test_a_lease_taken_by_another_meanwhile_is_not_released(path: Path) -> None:
    lease = claim(path)
    with lease:
        path.unlink()
        other = claim(path)
        assert other is not None
    assert is_held(path)


def test_a_fresh_lease_put_in_place_of_a_dead_one_is_given_back(path: Path) -> None:
    path.write_bytes(b"dead")
    assert claim(path) is None
    path.unlink()
    assert claim(path) is not None
    before = path.read_bytes()
    LocalLease(path=path).take_away(b"dead")  # what a slower taker does, who saw the dead one
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_no_empty_lease(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, *_: object, **__: object) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leases.os, "fdopen", full)
    with pytest.raises(OutputError, match="full disk"):
        claim(path)
    assert not path.exists()
