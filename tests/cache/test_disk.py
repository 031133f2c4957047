"""The disk tier: its budget, several processes, a kill in the middle, damage of every kind, and folders of others."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tilestream.cache import disk as disk_module
from tilestream.cache import mounts
from tilestream.cache.disk import FLUSH_BYTES, LEAST_BYTES, LOG_BYTES, DiskTier
from tilestream.cache.diskfolder import MARKER, TAG, claim_folder
from tilestream.cache.tally import by_tier
from tilestream.errors import ConfigError
from tilestream.metrics import collect

FILE, OTHER = b"one file", b"another file"
TILE_BYTES = 20_000


def tile(number: int) -> bytes:
    return np.random.default_rng(number).bytes(TILE_BYTES)


def parts(*numbers: int) -> dict[tuple[int, int], bytes]:
    return {(number * TILE_BYTES, TILE_BYTES): tile(number) for number in numbers}


@pytest.fixture
def open_tier(tmp_path) -> Callable[..., DiskTier]:
    def open_it(budget_bytes: int = LEAST_BYTES) -> DiskTier:
        return DiskTier(claim_folder(tmp_path / "cache"), budget_bytes)

    return open_it


def fill(tier: DiskTier, *numbers: int) -> None:
    tier.put(FILE, parts(*numbers))
    tier.flush()


def test_what_was_put_is_found_by_a_later_run(open_tier):
    fill(open_tier(), *range(30))
    tier = open_tier()
    with collect() as meter:
        assert tier.get(FILE, parts(*range(25, 35))) == parts(*range(25, 30))
    assert by_tier(meter.counts)["disk"] == {"hits": 5, "misses": 5, "bytes": 5 * TILE_BYTES, "evictions": 0}
    assert tier.get(OTHER, parts(1)) == {}  # another state of the file is another file
    assert tier.get(FILE, [(0, TILE_BYTES - 1)]) == {}  # only just what was put


def test_entries_are_written_together(open_tier):
    tier = open_tier()
    few = FLUSH_BYTES // TILE_BYTES
    for number in range(few):
        tier.put(FILE, parts(number))
    assert tier.get(FILE, parts(0)) == {}
    tier.put(FILE, parts(few))
    assert tier.get(FILE, parts(0, few)) == parts(0, few)


def test_no_more_than_the_budget_and_the_least_recently_used_go_first(open_tier, monkeypatch):
    now = iter(range(1_000_000))
    monkeypatch.setattr(disk_module.time, "time_ns", lambda: next(now) * 1_000_000)
    tier = open_tier()
    body = bytes(1 << 20)
    most = (LEAST_BYTES - LOG_BYTES) >> 20
    with collect() as meter:
        for number in range(2 * most):
            tier.put(FILE, {(number << 20, 1 << 20): body})
            tier.get(FILE, [(0, 1 << 20)])
            assert tier.held_bytes() <= LEAST_BYTES
    kept = [number for number in range(2 * most) if tier.get(FILE, [(number << 20, 1 << 20)])]
    assert kept[0] == 0  # asked for all the time
    assert kept[1:] == list(range(kept[1], 2 * most))
    assert most - 8 <= len(kept) <= most
    assert meter.counts["cache.disk.evictions"] == 2 * most - len(kept)


def test_a_smaller_budget_makes_an_earlier_cache_smaller(open_tier):
    large = open_tier(2 * LEAST_BYTES)
    for number in range(90):
        large.put(FILE, {(number << 20, 1 << 20): bytes(1 << 20)})
    large.flush()
    large.close()
    assert large.held_bytes() > LEAST_BYTES
    small = open_tier(LEAST_BYTES)
    fill(small, 1)
    assert small.held_bytes() <= LEAST_BYTES
    assert small.get(FILE, [(89 << 20, 1 << 20)])


def write_all(tier: DiskTier) -> None:
    """Write until nothing waits any more: another process may be at it for longer than one waits for it."""
    deadline = time.monotonic() + 60
    while tier._pending and time.monotonic() < deadline:
        tier.flush()


def test_threads_and_processes_share_it(open_tier):
    tier = open_tier()
    code = (
        "from tests.cache.test_disk import *\n"
        f"tier = DiskTier(Path({str(tier.folder)!r}), LEAST_BYTES)\n"
        "for number in range(200, 400): tier.put(FILE, parts(number))\n"
        "write_all(tier)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as other, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: tier.put(FILE, parts(number)), range(200)))
        write_all(tier)
        assert other.wait(60) == 0
        assert tier.get(FILE, parts(*range(400))) == parts(*range(400))
        found = list(pool.map(lambda number: tier.get(FILE, parts(number)), range(0, 400, 7)))
    assert found == [parts(number) for number in range(0, 400, 7)]


def test_a_kill_in_the_middle_of_writing_loses_what_was_in_flight_at_most(open_tier):
    tier = open_tier()
    code = (
        "from tests.cache.test_disk import *\n"
        f"tier = DiskTier(Path({str(tier.folder)!r}), LEAST_BYTES)\n"
        "fill(tier, *range(100))\nprint('ready', flush=True)\n"
        "for number in range(100, 10**6): fill(tier, number)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        other.send_signal(signal.SIGKILL)
    assert tier.get(FILE, parts(*range(100))) == parts(*range(100))
    fill(tier, 5000)
    assert tier.get(FILE, parts(5000)) == parts(5000)
    with sqlite3.connect(tier._path) as one:
        assert one.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    one.close()


def empty_log(tier: DiskTier) -> None:
    """Have everything in the file itself, while the tier keeps it open."""
    with sqlite3.connect(tier._path) as one:
        one.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    one.close()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def scribble(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


@pytest.mark.parametrize("damage", [cut, empty, scribble])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_damaged_file_is_left_behind(open_tier, damage, is_open):
    tier = open_tier()
    fill(tier, *range(40))
    if not is_open:
        tier.close()  # the last one to close it empties the log
        tier = open_tier()
    else:
        empty_log(tier)
    damage(tier._path)
    found = tier.get(FILE, parts(*range(40)))
    assert all(data == parts(*range(40))[one] for one, data in found.items())
    assert len(found) < 40
    fill(tier, *range(40))
    write_all(tier)  # a write may find out first
    assert tier.get(FILE, parts(*range(40))) == parts(*range(40))


def test_a_flipped_bit_is_found_by_the_checksum(open_tier):
    tier = open_tier()
    fill(tier, 1, 2)
    with sqlite3.connect(tier._path) as one:
        bad = bytearray(tile(1))
        bad[77] ^= 4
        one.execute("UPDATE bodies SET data = ? WHERE id = (SELECT id FROM entries WHERE start = ?)", (bad, TILE_BYTES))
    one.close()
    assert tier.get(FILE, parts(1, 2)) == parts(2)
    fill(tier, 1)
    assert tier.get(FILE, parts(1, 2)) == parts(1, 2)


def test_a_full_disk_is_passed_by(tmp_path):
    """A file that may not grow stands for it: SQLite gets the same kind of error from the system."""
    code = (
        "import resource\nfrom tests.cache.test_disk import *\n"
        f"tier = DiskTier(claim_folder(Path({str(tmp_path / 'cache')!r})), LEAST_BYTES)\n"
        "fill(tier, *range(10))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "for number in range(10, 400): tier.put(FILE, parts(number))\n"
        "tier.flush()\n"
        "assert time.monotonic() < tier._no_write_before_s\n"
        "tier._no_read_before_s = 0.0\n"
        "assert tier.get(FILE, parts(*range(10))) == parts(*range(10))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_full_database_is_passed_by(open_tier, monkeypatch):
    tier = open_tier()
    fill(tier, 1)
    (one,) = tier._idle  # which is used again
    one.execute(f"PRAGMA max_page_count = {disk_module._pragma(one, 'page_count') + 2}")
    fill(tier, *range(2, 30))
    assert time.monotonic() < tier._no_write_before_s
    assert tier.get(FILE, parts(1, 2)) == parts(1)


def test_a_folder_that_goes_away_is_passed_by(open_tier):
    tier = open_tier()
    fill(tier, 1)
    tier.close()
    shutil.rmtree(tier.folder)
    assert tier.get(FILE, parts(1)) == {}
    fill(tier, 2)
    assert not tier.folder.exists()


def test_a_file_that_is_removed_under_our_hands_does_not_live_on(open_tier):
    tier = open_tier()
    fill(tier, 1)
    for path in tier.folder.glob("stored-*"):
        path.unlink()
    fill(tier, 2)
    assert tier.held_bytes() > TILE_BYTES
    assert tier.get(FILE, parts(1, 2)) == parts(2)


def test_one_that_another_process_has_replaced_is_left(open_tier):
    tier, other = open_tier(), open_tier()
    fill(tier, 1)
    empty_log(tier)
    scribble(other._path)
    assert other.get(FILE, parts(1)) == {}
    fill(other, 2)
    fill(tier, 3)
    assert tier.get(FILE, parts(1, 2, 3)) == parts(2, 3)
    assert len(list(tier.folder.glob("stored-*.sqlite"))) == 1


def test_a_forked_child_leaves_it_to_its_parent(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from tilestream.cache.stack import CacheConfig, disk_tier, use_caches\n"
        "use_caches(CacheConfig(disk=sys.argv[1]))\n"
        "writing = disk_tier()._writing\n"
        "writing.acquire()  # as a thread of the parent has it in the middle of a write\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    signal.alarm(10)\n"
        "    sys.exit(7)\n"
        "_, state = os.waitpid(child, 0)\n"
        "writing.release()\n"
        "print(os.waitstatus_to_exitcode(state))\n"
    )
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "7\n", done.stderr


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "a.svs").write_bytes(b"pixels")
    with pytest.raises(ConfigError, match=r"a folder with other files \(`a.svs`\)"):
        claim_folder(tmp_path / "slides")
    assert [path.name for path in (tmp_path / "slides").iterdir()] == ["a.svs"]
    with pytest.raises(ConfigError, match=r"--disk-cache .*a\.svs"):
        claim_folder(tmp_path / "slides" / "a.svs")


def test_a_folder_of_ours_is_marked_private_and_taken_again(tmp_path):
    folder = claim_folder(tmp_path / "deep" / "cache")
    assert {path.name for path in folder.iterdir()} == {MARKER, TAG}
    assert (folder / TAG).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    assert folder.stat().st_mode & 0o077 == 0
    (folder / "note.txt").write_text("of a user")
    folder.chmod(0o755)  # as a user may have made it
    fill(DiskTier(folder, LEAST_BYTES), 1)
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.sqlite*"))
    assert claim_folder(folder) == folder
    assert (folder / "note.txt").read_text() == "of a user"


MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /home rw shared:2 - nfs4 server:/home rw,vers=4.2
31 30 8:2 / /home/local rw - xfs /dev/sdb1 rw
32 22 0:31 / /mnt/with\\040blank rw master:3 propagate_from:2 - cifs //server/share rw
33 22 0:32 / /mnt/ssh rw - fuse.sshfs server:/ rw
34 22 0:33 / /mnt/usb rw - fuseblk /dev/sdc1 rw
35 22 0:34 / /lustre rw - lustre 10.0.0.1@tcp:/scratch rw
36 22 0:35 / /both rw - ext4 /dev/sdd1 rw
37 36 0:36 / /both rw - nfs server:/both rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "is_network"),
    [
        ("/scratch/a.svs", False),
        ("/home/me/a.svs", True),
        ("/homework/a.svs", False),
        ("/home/local/a.svs", False),
        ("/mnt/with blank/a.svs", True),
        ("/mnt/ssh/a.svs", True),
        ("/mnt/usb/a.svs", False),
        ("/lustre/a/b/c.svs", True),
        ("/both/a.svs", True),
    ],
)
def test_network_shares_are_known_by_the_type_of_their_mount(path, is_network, tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(MOUNTINFO)
    monkeypatch.setattr(mounts, "MOUNTINFO", tmp_path / "mountinfo")
    for cached in (mounts._on_network, mounts._mounts):
        cached.cache_clear()
    try:
        assert mounts.on_network(path) == is_network
        if is_network:
            with pytest.raises(ConfigError, match="network share"):
                claim_folder(Path(path).parent)
    finally:
        for cached in (mounts._on_network, mounts._mounts):
            cached.cache_clear()
