"""Leases: small files that say which process is at a piece of work, kept alive by a heartbeat."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import psutil

from tilestream.errors import OutputError
from tilestream.stream.leasefiles import LeaseFile, LocalLease

LEASE_S = 60.0
"""A lease without a heartbeat for this long may be taken by anybody."""
HEARTBEAT_S = 10.0
"""How often a process refreshes the leases that it holds; a sixth of the limit rides out slow shared disks."""
EMPTY_S = 5.0
"""A lease that cannot be read for this long was left by a process killed between creating and writing it, which are two
steps where a file system knows no links."""
EMPTY_WAIT_S = 0.05
"""How often one that cannot be read is looked at again where it matters whether it is held."""

ALONE_WAIT_S = 0.02
"""How often a lease is asked for again that another holds for a moment."""

BOOT_JITTER_S = 2.0
"""Start times are counted from the time of boot, which a kernel that follows a time server shifts by a second."""


class Lease:
    """A claim kept alive by heartbeat until the block ends.

    Parameters
    ----------
    file : LeaseFile
        Where it lies.
    text : bytes
        What stands in it.
    name : str
        Its own name in there; no two leases have the same.
    """

    def __init__(self, file: LeaseFile, text: bytes, name: str) -> None:
        self._file = file
        self._text = text
        self._name = name

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        _heart().remove(self._name)
        # After a long pause of this machine it may be another's by now, which is not released.
        with suppress(OSError):
            self._file.release(self._text)


def claim(at: Path | LeaseFile) -> Lease | None:
    """Return a lease, None while another process holds it.

    Parameters
    ----------
    at : Path or LeaseFile
        A file, whose folder must exist, or `lease_file` of a place.

    Returns
    -------
    Lease or None
        To be used as a context manager; released at its end.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    file = LocalLease(path=at) if isinstance(at, Path) else at
    name = uuid.uuid4().hex
    text = json.dumps({**_owner(), "lease": name}).encode()
    _heart().add(name, file, text)  # before it can be seen: a lease of ours that we do not know of is a dead one
    is_ours = False
    try:
        for _ in range(2):
            is_ours = file.create(text)
            if is_ours:
                return Lease(file, text, name)
            found = file.look()
            if found is not None:
                if not _is_expired(*found):
                    return None
                file.take_away(found[0])
        return None
    finally:
        if not is_ours:
            _heart().remove(name)


@contextmanager
def alone(at: Path | LeaseFile) -> Iterator[None]:
    """Hold a lease for the block, waiting for whoever has it; for steps that take moments.

    Parameters
    ----------
    at : Path or LeaseFile
        Where it lies.

    Yields
    ------
    None
        Nothing.

    Raises
    ------
    OutputError
        When another process holds it on and on.
    """
    file = LocalLease(path=at) if isinstance(at, Path) else at
    stop = time.monotonic() + 2 * LEASE_S
    while (lease := claim(file)) is None:
        if time.monotonic() > stop:
            raise OutputError.of(
                f"`{file.where}`",
                got="a lease that another run holds on and on",
                expected="one that ends in moments",
                do="End that run, then run the same command again.",
            )
        time.sleep(ALONE_WAIT_S)
    with lease:
        yield


def is_held(at: Path | LeaseFile) -> bool:
    """Return whether a living process, this one included, holds the lease.

    Parameters
    ----------
    at : Path or LeaseFile
        Where it lies.

    Returns
    -------
    bool
        False also where there is no lease. One that its holder is just writing is waited for, since a process killed
        in the middle of that has left it otherwise.
    """
    file = LocalLease(path=at) if isinstance(at, Path) else at
    while (found := file.look()) is not None:
        if _is_expired(*found):
            return False
        if _owner_of(found[0]) is not None:
            return True
        time.sleep(EMPTY_WAIT_S)
    return False


def clear_dead(at: LeaseFile) -> None:
    """Remove a lease whose holder is dead; a living one stays.

    Parameters
    ----------
    at : LeaseFile
        Where it lies.
    """
    found = at.look()
    if found is not None and _is_expired(*found):
        at.take_away(found[0])


def abandon() -> None:
    """Release all leases of this process, which is about to end: work that still goes on is anybody's now.

    Waits for nothing, so that it can be called from the handler of a signal.
    """
    heart = _hearts.get(os.getpid())
    for held in [] if heart is None else heart.all_held():
        with suppress(OSError):
            held.file.release(held.text)


class _Held:
    """A lease held in this process, or about to be."""

    def __init__(self, file: LeaseFile, text: bytes) -> None:
        self.file = file
        self.text = text
        self.lock = Lock()


class _Heart:
    """One daemon thread a process that refreshes the leases held there."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._lock = Lock()
        self._wake = Event()
        self._thread: Thread | None = None

    def start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = Thread(target=self._beat, name="tilestream-leases", daemon=True)
                self._thread.start()

    def add(self, name: str, file: LeaseFile, text: bytes) -> None:
        with self._lock:
            self._held[name] = _Held(file, text)

    def holds(self, name: object) -> bool:
        with self._lock:
            return name in self._held

    def all_held(self) -> list[_Held]:
        return list(self._held.values())  # one step of the interpreter, without the lock: see `abandon`

    def remove(self, name: str) -> None:
        """Forget a lease; when this returns no refreshing of it is under way that could bring it back to life."""
        with self._lock:
            held = self._held.pop(name, None)
        if held is not None:
            with held.lock:
                pass

    def _beat(self) -> None:
        while not self._wake.wait(HEARTBEAT_S):
            with self._lock:
                held = list(self._held.items())
            for name, one in held:
                with one.lock:
                    if not self.holds(name):
                        continue
                    try:
                        one.file.refresh(one.text)
                    except OSError:
                        continue  # taken by another after a long pause of this machine: the work is done twice


_hearts: dict[int, _Heart] = {}  # one a process id: threads do not survive a fork


def _heart() -> _Heart:
    pid = os.getpid()
    if pid not in _hearts:
        # Of threads that come here at once all get the same one: a lease that another heart holds looks dead.
        _hearts.setdefault(pid, _Heart()).start()
    return _hearts[pid]


def _owner() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": process.create_time(),
    }


def _owner_of(text: bytes) -> dict[str, Any] | None:
    """Return who holds a lease with this text, None while that is not there."""
    try:
        owner = json.loads(text)
        return {**owner, "host": owner["host"], "pid": int(owner["pid"]), "started": float(owner["started"])}
    except (ValueError, TypeError, KeyError):
        return None


def _is_expired(text: bytes, age_s: float) -> bool:
    owner = _owner_of(text)
    if owner is None:
        return age_s > EMPTY_S  # its holder is just writing it, or never came to that
    if age_s > LEASE_S or owner["host"] != socket.gethostname():
        return age_s > LEASE_S
    if owner["pid"] == os.getpid() and not _heart().holds(owner.get("lease")):
        return True  # ours, released where it could not be removed: the disk was read-only
    # On our own host we can see at once that the holder is gone, and need not wait for its heartbeat to stop.
    try:
        process = psutil.Process(owner["pid"])
        is_other = abs(process.create_time() - owner["started"]) > BOOT_JITTER_S
        return is_other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
