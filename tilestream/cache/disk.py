"""Stored bytes of remote files on a local disk, for many runs and processes at once: a folder with one SQLite file.

SQLite, not files of our own: one entry is a tile of some 20 kB, of which a slide has 100,000; it is safe when any of
its processes is killed at any moment, and holds a budget in pages. `diskcache` does the same with pickles and is no
longer kept up; the caching file systems of fsspec know neither a budget nor two processes.

A power cut may damage the file, since nothing is forced to the platter. What is damaged is noticed, by SQLite or by the
checksum of an entry, and thrown away. Trouble of any kind costs the answers of this tier, never the run.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import google_crc32c

from tilestream.cache.diskfolder import database, next_database
from tilestream.cache.ranges import Range
from tilestream.cache.tally import DISK, tell

T = TypeVar("T")

PAGE_BYTES = 8192
LOG_BYTES = 16 << 20
"""Of the budget kept for SQLite's log, which grows with one transaction and is used again."""
LEAST_BYTES = 64 << 20
"""Smallest budget that is of use."""
FLUSH_BYTES = 1 << 20
"""Entries are written together when there are this many bytes of them."""
PENDING_BYTES = 32 << 20
"""What waits to be written beyond this is not kept: the disk is slower than the network."""
LARGEST_BYTES = 8 << 20
"""A larger range is not kept: it would push out hundreds of tiles."""
FREED_PART = 20
"""An eviction makes room for this part of the budget at least, so that not every write evicts."""
PAUSE_S = 30.0
"""How long the tier is left alone after an error, and not written to when the disk is full."""
MOST_TOUCHED = 4096
"""Uses of entries that are remembered before they are noted on the disk."""
BUSY_S = 2.0
"""How long one process waits for another that writes."""
ASKED_AT_ONCE = 256
"""Entries of one query."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, file BLOB NOT NULL, start INTEGER NOT NULL, nbytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL, used_ms INTEGER NOT NULL, UNIQUE (file, start, nbytes));
CREATE INDEX IF NOT EXISTS by_use ON entries (used_ms);
CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
"""
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}


class DiskTier:
    """Ranges of files by identity of the file; the least recently used go first. Safe under threads and processes.

    Parameters
    ----------
    folder : Path
        A folder that `claim_folder` has accepted.
    budget_bytes : int
        Most bytes of all its files.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.folder, self.budget_bytes = folder, budget_bytes
        self._path = database(folder)
        self._epoch = 0  # another file, even under the same name, is another epoch
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._pending: list[tuple[bytes, int, bytes]] = []
        self._pending_bytes = 0
        self._touched: set[int] = set()
        self._no_write_before_s = self._no_read_before_s = 0.0
        atexit.register(self.close)

    def get(self, file: bytes, ranges: Iterable[Range]) -> dict[Range, bytes]:
        """Return those of some ranges that are there and whole.

        Parameters
        ----------
        file : bytes
            Identity of the file in the state it is in.
        ranges : iterable of (int, int)
            First byte and number of bytes; only entries that were put with just these are found.

        Returns
        -------
        dict
            Bytes by range.
        """
        wanted = list(dict.fromkeys(ranges))
        found: dict[Range, bytes] = {}
        for first in range(0, len(wanted) if time.monotonic() >= self._no_read_before_s else 0, ASKED_AT_ONCE):
            some = wanted[first : first + ASKED_AT_ONCE]
            found |= self._guarded(partial(self._select, file=file, ranges=some)) or {}
        tell(DISK, hits=len(found), misses=len(wanted) - len(found), bytes=sum(map(len, found.values())))
        return found

    def put(self, file: bytes, parts: Mapping[Range, bytes]) -> None:
        """Keep ranges; they are written together, soon.

        Parameters
        ----------
        file : bytes
            As for `get`.
        parts : Mapping
            Bytes by range.
        """
        if time.monotonic() < self._no_write_before_s:
            return
        self._wait([(file, start, data) for (start, nbytes), data in parts.items() if len(data) == nbytes])
        is_due = self._pending_bytes >= FLUSH_BYTES or len(self._touched) > MOST_TOUCHED
        if is_due and self._writing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._writing.release()

    def flush(self) -> None:
        """Write what waits to be written."""
        with self._writing:
            self._write()

    def close(self) -> None:
        """Write what waits and let go of the file, which is opened again when it is needed."""
        self.flush()
        self._begin_epoch(self._path)

    def held_bytes(self) -> int:
        """Return the bytes of all files of this tier on the disk."""
        return sum(path.stat().st_size for path in self.folder.glob(f"{self._path.name}*"))

    def _select(self, one: sqlite3.Connection, file: bytes, ranges: Sequence[Range]) -> dict[Range, bytes]:
        marks = ",".join("?" * len(ranges))
        query = (
            "SELECT id, start, nbytes, checksum, data FROM entries JOIN bodies USING (id) "
            f"WHERE file = ? AND start IN ({marks})"
        )
        wanted, found, bad = set(ranges), {}, []
        for number, start, nbytes, checksum, data in one.execute(query, (file, *(start for start, _ in ranges))):
            if len(data) != nbytes or google_crc32c.value(data) != checksum:
                bad.append(number)
            elif (start, nbytes) in wanted:
                found[start, nbytes] = data
                self._touched.add(number)
        if bad:
            self._remove(one, bad)
        return found

    def _wait(self, parts: Sequence[tuple[bytes, int, bytes]]) -> None:
        """Let parts wait to be written, as far as they may."""
        with self._lock:
            for part in parts:
                if len(part[2]) <= min(LARGEST_BYTES, PENDING_BYTES - self._pending_bytes):
                    self._pending.append(part)
                    self._pending_bytes += len(part[2])

    def _write(self) -> None:
        with self._lock:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            touched, self._touched = self._touched, set()
        if self._idle and not self._path.exists():  # removed by hand, or damaged and replaced by another process
            self._begin_epoch(next_database(self._path))
        if touched:
            self._guarded(partial(self._touch, numbers=touched))
        for parts in _batches(pending):
            if not self._guarded(partial(self._insert, parts=parts)) and time.monotonic() >= self._no_write_before_s:
                self._wait(parts)  # another process was writing, or the file was damaged

    def _touch(self, one: sqlite3.Connection, numbers: set[int]) -> None:
        now_ms = time.time_ns() // 1_000_000
        with _transaction(one):
            one.executemany("UPDATE entries SET used_ms = ? WHERE id = ?", [(now_ms, number) for number in numbers])

    def _insert(self, one: sqlite3.Connection, parts: Sequence[tuple[bytes, int, bytes]]) -> bool:
        now_ms = time.time_ns() // 1_000_000
        with _transaction(one):
            evictions = self._make_room(one, sum(len(data) + PAGE_BYTES for _, _, data in parts))
            for file, start, data in parts:
                made = one.execute(
                    "INSERT OR IGNORE INTO entries (file, start, nbytes, checksum, used_ms) VALUES (?, ?, ?, ?, ?)",
                    (file, start, len(data), google_crc32c.value(data), now_ms),
                )
                if made.rowcount:  # no other process was first
                    one.execute("INSERT OR REPLACE INTO bodies (id, data) VALUES (?, ?)", (made.lastrowid, data))
        tell(DISK, evictions=evictions)
        return True

    def _make_room(self, one: sqlite3.Connection, nbytes: int) -> int:
        most = self.budget_bytes - LOG_BYTES
        used = (_pragma(one, "page_count") - _pragma(one, "freelist_count")) * PAGE_BYTES
        if used + nbytes <= most:
            return 0
        excess, numbers = used + nbytes - most + most // FREED_PART, []
        for number, size in one.execute("SELECT id, nbytes FROM entries ORDER BY used_ms, id"):
            if excess <= 0:
                break
            numbers.append(number)
            excess -= size
        self._remove(one, numbers)
        return len(numbers)

    @staticmethod
    def _remove(one: sqlite3.Connection, numbers: Sequence[int]) -> None:
        for table in ("entries", "bodies"):
            one.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in numbers])

    def _guarded(self, use: Callable[[sqlite3.Connection], T]) -> T | None:
        """Return what a use of the file gives, None when it cannot be used; a damaged one is left behind."""
        one: sqlite3.Connection | None = None
        epoch = self._epoch
        try:
            one = self._borrow()
            found = use(one)
        except (sqlite3.Error, OSError) as error:
            if one is not None:
                with suppress(sqlite3.Error):
                    one.close()
            self._failed(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR), epoch)
            return None
        with self._lock:
            if epoch == self._epoch:
                self._idle.append(one)
                return found
        one.close()
        return found

    def _failed(self, code: int, epoch: int) -> None:
        if code & 0xFF in _DAMAGED or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            if epoch == self._epoch:  # no other thread has seen it before
                self._begin_epoch(next_database(self._path))
        elif code & 0xFF not in _PASSING:
            self._no_write_before_s = time.monotonic() + PAUSE_S
            if code & 0xFF != sqlite3.SQLITE_FULL:
                self._no_read_before_s = self._no_write_before_s

    def _begin_epoch(self, path: Path) -> None:
        with self._lock:
            self._path, self._epoch = path, self._epoch + 1
            idle, self._idle = self._idle, []
        for one in idle:
            with suppress(sqlite3.Error):
                one.close()

    def _borrow(self) -> sqlite3.Connection:
        """Return a connection that nobody else uses meanwhile."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            path = self._path
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite gives its other files the same rights
        one = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(one)
        except BaseException:
            one.close()
            raise
        return one

    def _prepare(self, one: sqlite3.Connection) -> None:
        pages = (self.budget_bytes - LOG_BYTES) // PAGE_BYTES
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = OFF",
            f"journal_size_limit = {LOG_BYTES // 2}",
            "cache_size = -512",
        ):
            one.execute(f"PRAGMA {pragma}").close()
        one.executescript(_SCHEMA)
        if _pragma(one, "page_count") > pages:  # an earlier run had more room
            with _transaction(one):
                tell(DISK, evictions=self._make_room(one, 0))
            one.executescript("PRAGMA incremental_vacuum")  # `execute` would end it after one page
            one.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        one.execute(f"PRAGMA max_page_count = {pages}").close()


class _transaction:
    """One transaction that takes the right to write at its start, so that it cannot fail in its middle for it."""

    def __init__(self, one: sqlite3.Connection) -> None:
        self._one = one

    def __enter__(self) -> None:
        self._one.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._one.execute("COMMIT")
        elif self._one.in_transaction:
            with suppress(sqlite3.Error):
                self._one.execute("ROLLBACK")


def _batches(parts: Sequence[tuple[bytes, int, bytes]]) -> list[list[tuple[bytes, int, bytes]]]:
    """Return parts in groups that are written in one transaction each, which bounds SQLite's log."""
    groups: list[list[tuple[bytes, int, bytes]]] = []
    room = 0
    for part in parts:
        if room < len(part[2]):
            groups.append([])
            room = LOG_BYTES // 4
        groups[-1].append(part)
        room -= len(part[2])
    return groups


def _pragma(one: sqlite3.Connection, name: str) -> int:
    with closing(one.execute(f"PRAGMA {name}")) as rows:
        return int(rows.fetchone()[0])
