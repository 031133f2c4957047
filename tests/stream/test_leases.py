"""Leases: who holds a piece of work, and when another may take it."""

from __future__ import annotations

import errno
import io
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
from tilestream.stream import leasefiles, leases, storageclock
from tilestream.stream.journal import Journal
from tilestream.stream.leasefiles import LocalLease
from tilestream.stream.leases import alone, claim, is_held


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


NEVER_WRITTEN = pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"host": "x"}'])


@NEVER_WRITTEN
def test_a_lease_that_was_never_written_is_waited_for_shortly(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    assert claim(path) is None  # perhaps its holder is just writing
    age(path, leases.EMPTY_S + 1)
    assert claim(path) is not None


@NEVER_WRITTEN
def test_a_killed_run_that_had_not_written_its_lease_is_not_at_work(path: Path, text: bytes) -> None:
    journal = Journal(root=path.parent, recipe="r")
    journal.open({"plan": 1})
    path.write_bytes(text)
    age(path, leases.EMPTY_S - 0.3)  # killed a moment ago
    Journal(root=path.parent, recipe="s").open({"plan": 2}, replace=True)
    assert not path.exists()


def test_a_lease_that_is_being_written_is_waited_for(path: Path) -> None:
    path.write_bytes(b"")
    writing = threading.Timer(0.2, path.write_text, [json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0})])
    writing.start()
    assert is_held(path)
    writing.join()


@pytest.fixture(params=["links", "no links"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, also of a file system where a file has one name."""
    if request.param == "no links":
        monkeypatch.setattr(leasefiles.os, "link", refused)
    return tmp_path


def refused(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_a_lease_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "L0-y0-x0.lease", []
    fdopen = os.fdopen

    def look(*arguments: object, **options: object) -> object:
        seen.append(path.exists())
        return fdopen(*arguments, **options)

    monkeypatch.setattr(leasefiles.os, "fdopen", look)
    with claim(path):
        assert json.loads(path.read_bytes())["pid"] == os.getpid()
        assert claim(path) is None
        assert list(tmp_path.iterdir()) == [path]
    assert seen == [False]  # a killed process leaves none without a text


def test_asking_for_a_held_lease_writes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with claim(path):
        is_held(path)  # what time it is over there was asked for
        monkeypatch.setattr(storageclock, "LOOK_S", 1e9)
        claim(path)
        before = path.parent.stat().st_mtime_ns
        for _ in range(3):
            assert claim(path) is None
        assert path.parent.stat().st_mtime_ns == before


def test_one_holder_where_a_file_has_one_name(folder: Path) -> None:
    path = folder / "L0-y0-x0.lease"
    with claim(path):
        assert is_held(path)
        assert claim(path) is None
        assert list(folder.iterdir()) == [path]
    assert list(folder.iterdir()) == []


def test_a_link_whose_answer_got_lost_is_ours(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)  # the file server's client has asked again

    monkeypatch.setattr(leasefiles.os, "link", twice)
    with claim(path) as lease:
        assert lease is not None
        assert claim(path) is None
    assert not path.exists()


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


@pytest.mark.parametrize("wrong_s", [-1800, 1800])
def test_ages_are_counted_on_the_clock_of_the_file_server(
    path: Path, monkeypatch: pytest.MonkeyPatch, wrong_s: int
) -> None:
    true = time.time
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    age(path, leases.LEASE_S / 2)
    monkeypatch.setattr(time, "time", lambda: true() + wrong_s)
    storageclock._ahead_s.cache_clear()
    assert claim(path) is None
    _, age_s = LocalLease(path=path).look()
    assert leases.LEASE_S / 2 - 1 < age_s < leases.LEASE_S
    assert list(path.parent.iterdir()) == [path]


def test_a_look_at_that_clock_is_kept_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storageclock, "LOOK_S", 1e9)
    path.write_bytes(b"{}")
    ages = [LocalLease(path=path).look()[1] for _ in range(2)]
    monkeypatch.setattr(storageclock.uuid, "uuid4", None)  # no other probe
    ages.append(LocalLease(path=path).look()[1])
    assert ages == sorted(ages)


def test_the_heartbeat_of_one_that_came_back_leaves_the_lease_of_another(path: Path) -> None:
    path.write_bytes(b"another's")
    age(path, 30)
    file = LocalLease(path=path)
    file.refresh(b"ours")
    file.release(b"ours")
    assert path.read_bytes() == b"another's"
    assert file.look()[1] > 25
    file.refresh(b"another's")
    assert file.look()[1] < 25


def test_what_a_process_abandons_is_free_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.lease" for number in range(3)]
    held = [claim(path) for path in paths]
    paths[2].write_bytes(b"another's")
    leases.abandon()
    assert [path.exists() for path in paths] == [False, False, True]
    for lease in held:
        lease.__exit__()
    assert paths[2].read_bytes() == b"another's"


def test_a_lease_that_another_machine_removes_while_it_is_read_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"{}")

    class Gone(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(Path, "open", lambda *_: Gone())
    assert LocalLease(path=path).look() is None


def test_alone_waits_for_its_turn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def second() -> None:
        with alone(path):
            order.append("second")

    with alone(path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    monkeypatch.setattr(leases, "LEASE_S", 0.05)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0}))
    age(path, -60)  # as if its heartbeat never stopped
    with pytest.raises(OutputError, match="on and on"), alone(path):
        pass


def test_a_full_disk_leaves_no_empty_lease(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, *_: object, **__: object) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(leases.os, "fdopen", full)
    with pytest.raises(OutputError, match="full disk"):
        claim(folder / "L0-y0-x0.lease")
    assert list(folder.iterdir()) == []
