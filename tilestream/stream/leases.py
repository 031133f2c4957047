"""Leases: small files that say which process is at a piece of work, kept alive by a heartbeat."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import psutil

from tilestream.codecs.durable import PARTIAL_SUFFIX, explained

LEASE_S = 60.0
"""A lease without a heartbeat for this long may be taken by anybody."""
HEARTBEAT_S = 10.0
"""How often a process touches the leases that it holds; a sixth of the limit rides out slow shared disks."""
EMPTY_S = 5.0
"""A lease in which nothing stands for this long was left by a process killed between creating and writing it."""

BOOT_JITTER_S = 2.0
"""Start times are counted from the time of boot, which a kernel that follows a time server shifts by a second."""


class Lease:
    """A claim kept alive by heartbeat until the block ends.

    Parameters
    ----------
    path : Path
        The lease file.
    text : bytes
        What stands in it.
    name : str
        Its own name in there; no two leases have the same.
    """

    def __init__(self, path: Path, text: bytes, name: str) -> None:
        self._path = path
        self._text = text
        self._name = name

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        _heart().remove(self._name)
        # After a long pause of this machine it may be another's by now, which must not be released.
        if _read(self._path) == self._text:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def claim(path: Path) -> Lease | None:
    """Return a lease, None while another process holds it.

    Parameters
    ----------
    path : Path
        Lease file; its folder must exist.

    Returns
    -------
    Lease or None
        To be used as a context manager; released at its end.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    name = uuid.uuid4().hex
    text = json.dumps({**_owner(), "lease": name}).encode()
    _heart().add(name, path)  # before it can be seen: a lease of ours that we do not know of is a dead one
    is_ours = False
    try:
        for _ in range(2):
            is_ours = _create(path, text)
            if is_ours:
                return Lease(path, text, name)
            found = _read(path)
            if found is not None and not _is_expired(path, found):
                return None
            _take_away(path, found)
        return None
    finally:
        if not is_ours:
            _heart().remove(name)


def is_held(path: Path) -> bool:
    """Return whether a living process, this one included, holds the lease.

    Parameters
    ----------
    path : Path
        Lease file.

    Returns
    -------
    bool
        False also where there is no lease.
    """
    found = _read(path)
    return found is not None and not _is_expired(path, found)


def _create(path: Path, text: bytes) -> bool:
    with explained(path):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(text)
        except OSError:  # a full disk; an empty lease would keep others waiting
            path.unlink(missing_ok=True)
            raise
    return True


def _take_away(path: Path, found: bytes | None) -> None:
    """Remove a dead lease unless another taker has put a new one in its place meanwhile."""
    aside = path.parent / f".{uuid.uuid4().hex[:16]}{PARTIAL_SUFFIX}"
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if _read(aside) != found:
        with suppress(OSError):  # where a file can have but one name the work is done twice, which is harmless
            os.link(aside, path)
    aside.unlink(missing_ok=True)


class _Heart:
    """One daemon thread a process that touches the leases held there."""

    def __init__(self) -> None:
        self._held: dict[str, Path] = {}
        self._lock = Lock()
        self._wake = Event()
        Thread(target=self._beat, name="tilestream-leases", daemon=True).start()

    def add(self, name: str, path: Path) -> None:
        with self._lock:
            self._held[name] = path

    def holds(self, name: object) -> bool:
        with self._lock:
            return name in self._held

    def remove(self, name: str) -> None:
        with self._lock:
            self._held.pop(name, None)

    def _beat(self) -> None:
        while not self._wake.wait(HEARTBEAT_S):
            with self._lock:
                held = list(self._held.values())
            for path in held:
                try:
                    os.utime(path)
                except OSError:
                    continue  # taken by another after a long pause of this machine: the work is done twice


def _heart() -> _Heart:
    return _heart_of(os.getpid())


@cache
def _heart_of(_: int) -> _Heart:
    return _Heart()  # one a process id: threads do not survive a fork


def _owner() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "started": process.create_time(),
    }


def _is_expired(path: Path, found: bytes) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    try:
        owner = json.loads(found)
        host, pid, started = owner["host"], int(owner["pid"]), float(owner["started"])
    except (ValueError, TypeError, KeyError):
        return age_s > EMPTY_S  # its holder is just writing it, or never came to that
    if age_s > LEASE_S or host != socket.gethostname():
        return age_s > LEASE_S
    if pid == os.getpid() and not _heart().holds(owner.get("lease")):
        return True  # ours, released where it could not be removed: the disk was read-only
    # On our own host we can see at once that the holder is gone, and need not wait for its heartbeat to stop.
    try:
        process = psutil.Process(pid)
        is_other = abs(process.create_time() - started) > BOOT_JITTER_S
        return is_other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
