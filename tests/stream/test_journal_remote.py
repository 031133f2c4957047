"""Receipts and leases on object storage: many processes, no rename, no locks, clocks that differ."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.servers import S3
from tilestream.codecs.place import Place
from tilestream.errors import OutputError
from tilestream.stream import leases, storageclock
from tilestream.stream.journal import FINISH, LEDGER, RECIPE, Journal
from tilestream.stream.leasefiles import lease_file
from tilestream.stream.leases import claim, is_held
from tilestream.types import Receipt

KEYS = ("L0-y0-x0", "L0-y0-x1", "L0-y0-x2")
DEAD = json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0, "lease": "x"}).encode()


def receipt(key: str, recipe: str = "r") -> Receipt:
    return Receipt(key=key, recipe=recipe, outputs={f"part-{key}": "c"}, tiles=3, damaged={"why": (4, 5)})


@pytest.fixture
def place(s3: S3) -> Place:
    return Place.of(f"{s3.url}/receipts/a/slide.svs", s3.options)


@pytest.fixture
def journal(place: Place) -> Journal:
    made = Journal(root=place, recipe="r")
    made.open({"plan": {"tile_px": 256}})
    for key in KEYS:
        made.commit(receipt(key))
    return made


def test_receipts_go_into_the_ledger_and_come_back(journal: Journal) -> None:
    assert journal.receipts() == {key: receipt(key) for key in KEYS}
    assert pickle.loads(pickle.dumps(journal)).receipt(KEYS[1]) == receipt(KEYS[1])
    assert journal.receipt("L0-y9-x9") is None
    assert journal.summary() is None
    journal.close(journal.receipts().values(), {"tiles": 9})
    assert journal.place.names() == [LEDGER, RECIPE]
    assert journal.summary() == {"tiles": 9}
    assert journal.receipt(KEYS[2]) == receipt(KEYS[2])
    journal.reopen([KEYS[1]])
    assert journal.summary() is None
    assert sorted(journal.receipts()) == [KEYS[0], KEYS[2]]


def test_what_was_altered_is_not_believed(journal: Journal) -> None:
    data = journal.place.get(f"{KEYS[1]}.json")
    journal.place.put(f"{KEYS[1]}.json", data.replace(b'"tiles":3', b'"tiles":4'))
    journal.place.put(f"{KEYS[2]}.json", data[:-5])
    assert list(journal.receipts()) == [KEYS[0]]


def test_another_recipe_is_refused_and_replaces_when_told(journal: Journal) -> None:
    other = Journal(root=journal.root, recipe="s")
    with pytest.raises(OutputError, match=r"plan\.tile_px 256 there, 512 now"):
        other.open({"plan": {"tile_px": 512}})
    with journal.claim(FINISH), pytest.raises(OutputError, match="another run at work"):
        other.open({"plan": {"tile_px": 512}}, replace=True)
    assert len(journal.receipts()) == 3
    other.open({"plan": {"tile_px": 512}}, replace=True)
    assert other.place.names() == [RECIPE]


def test_of_two_recipes_that_begin_at_once_one_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(Journal, "_sole", lambda _: Nothing())  # as if each had taken the other's lease for a dead one

    def begin(recipe: str) -> str:
        try:
            Journal(root=place, recipe=recipe).open({"plan": recipe})
        except OutputError as error:
            return str(error)
        return recipe

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(begin, [f"r{number}" for number in range(8)]))
    stands = json.loads(place.get(RECIPE))["digest"]
    assert said.count(stands) == 1
    assert sum("results of another recipe" in words for words in said) == 7


def test_one_holder_at_a_time(journal: Journal) -> None:
    with journal.claim("L0-y5-x5"):
        assert journal.claim("L0-y5-x5") is None
        assert is_held(lease_file(journal.place, "L0-y5-x5.lease"))
    assert not is_held(lease_file(journal.place, "L0-y5-x5.lease"))
    assert journal.place.names("*.lease") == []
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda _: journal.claim("L0-y5-x5"), range(16)))
    assert sum(lease is not None for lease in got) == 1


def test_a_claim_and_its_release_are_three_requests(journal: Journal, s3: S3) -> None:
    s3.log.clear()
    with journal.claim("L0-y5-x5"):
        pass
    assert [request.method for request in s3.log.requests] == ["PUT", "GET", "DELETE"]


def test_the_lease_of_another_host_lives_until_its_heartbeat_stops(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("x.lease", DEAD)
    assert claim(lease_file(place, "x.lease")) is None
    monkeypatch.setattr(leases, "LEASE_S", 1.5)
    stop = time.monotonic() + 20
    while (lease := claim(lease_file(place, "x.lease"))) is None:
        assert time.monotonic() < stop
        time.sleep(0.1)
    with lease:
        assert place.get("x.lease") != DEAD


@pytest.mark.parametrize("wrong_s", [-1800, 1800])
def test_ages_are_counted_on_the_clock_of_the_server(
    place: Place, monkeypatch: pytest.MonkeyPatch, wrong_s: int
) -> None:
    true = time.time
    place.put("x.lease", DEAD)
    with monkeypatch.context() as patched:  # signatures are dated too, but not with this clock
        patched.setattr(time, "time", lambda: true() + wrong_s)
        storageclock._ahead_s.cache_clear()
        _, age_s = lease_file(place, "x.lease").look()
    assert -2 <= age_s < 10
    assert place.names() == ["x.lease"]


def test_the_heartbeat_keeps_a_long_claim_and_brings_no_released_one_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(leases, "LEASE_S", 2.2)  # servers tell whole seconds
    leases._hearts.clear()
    try:
        with claim(lease_file(place, "x.lease")):
            text = place.get("x.lease")
            stop = time.monotonic() + 3.0
            while time.monotonic() < stop:
                assert claim(lease_file(place, "x.lease")) is None
                time.sleep(0.2)
            assert place.get("x.lease") == text
        for _ in range(20):
            with claim(lease_file(place, "y.lease")):
                time.sleep(0.01)
            assert place.names() == []
        time.sleep(0.2)
        assert place.names() == []
    finally:
        leases._hearts.clear()


def test_the_heartbeat_of_one_that_came_back_leaves_the_lease_of_another(place: Place) -> None:
    file = lease_file(place, "x.lease")
    place.put("x.lease", b"another's")
    file.refresh(b"ours")
    file.release(b"ours")
    assert place.get("x.lease") == b"another's"


def test_an_answer_that_got_lost_does_not_lock_us_out(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Place.create

    def lost(self: Place, name: str, data: bytes) -> bool:
        create(self, name, data)  # done, but the connection broke, and botocore sends it again
        return create(self, name, data)

    monkeypatch.setattr(Place, "create", lost)
    assert claim(lease_file(place, "x.lease")) is not None


def test_of_many_takers_of_a_dead_lease_one_is_left_with_it(place: Place) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    place.put("x.lease", json.dumps({"host": socket.gethostname(), "pid": gone.pid, "started": 0.0}).encode())
    gate = threading.Barrier(4)

    def take() -> object:
        gate.wait()
        return claim(lease_file(place, "x.lease"))

    with ThreadPoolExecutor(4) as pool:
        got = [lease.result() for lease in [pool.submit(take) for _ in range(4)]]
    held = [lease for lease in got if lease is not None]
    assert held  # more than one where a taker was slow: the work is done twice
    assert place.get("x.lease") in {lease._text for lease in held}


PROGRAM = """
import sys, time
from tilestream.codecs.place import Place
from tilestream.stream.journal import Journal
from tilestream.types import Receipt

root, slow_s = sys.argv[1], float(sys.argv[2])
journal = Journal(root=Place.of(root), recipe="r")
journal.open({"plan": 1})
for number in range(12):
    key = f"L0-y0-x{number}"
    lease = journal.claim(key)
    if lease is None:
        print("busy", key, flush=True)
        continue
    with lease:
        if journal.receipt(key) is not None:
            print("found", key, flush=True)
            continue
        print("begin", key, flush=True)
        time.sleep(slow_s)
        with journal.place.at("out").writer(key) as file:
            file.write(key.encode() * 1000)
        journal.commit(Receipt(key=key, recipe="r", outputs={key: file.checksum}, tiles=1))
        print("done", key, flush=True)
"""


def run(root: str, slow_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, root, str(slow_s)], stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    )


def said(process: subprocess.Popen[str]) -> list[tuple[str, str]]:
    assert process.stdout is not None
    lines = process.communicate(timeout=60)[0].splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def test_two_processes_share_the_work_and_one_killed_is_resumed(s3_environment: S3) -> None:
    root = f"{s3_environment.url}/receipts/slide"
    killed = run(root, 0.3)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("begin L0-y0-x3"):
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    place = Place.of(root)
    assert len(place.names("L*.json")) == 3
    assert place.names("*.lease") == ["L0-y0-x3.lease"]

    pair = [run(root, 0.05), run(root, 0.05)]
    words = [said(process) for process in pair]
    assert all(process.returncode == 0 for process in pair)
    begun = [key for one in words for word, key in one if word == "begin"]
    assert sorted(begun) == sorted(f"L0-y0-x{number}" for number in range(3, 12))  # each once, the killed one's too
    assert sorted(Journal(root=root, recipe="r").receipts()) == sorted(f"L0-y0-x{number}" for number in range(12))
    assert place.at("out").sizes() == {f"L0-y0-x{n}": 1000 * len(f"L0-y0-x{n}") for n in range(12)}
    assert place.names("*.lease") == []
