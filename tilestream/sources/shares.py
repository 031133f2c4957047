"""Files on a network share by way of the disk tier: a local path, and yet each read of it may cost a round trip."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b

from tilestream.cache.mounts import on_network
from tilestream.cache.stack import disk_tier


def read_shared(path: str, descriptor: int, part: tuple[int, int], read: Callable[[int, int, int], bytes]) -> bytes:
    """Return bytes of an open file, from the disk tier where there is one and the file lies on a network share.

    Parameters
    ----------
    path : str
        Where the file lies.
    descriptor : int
        The open file.
    part : tuple of int
        First byte and number of bytes.
    read : callable
        Reads descriptor, first byte and number of bytes.

    Returns
    -------
    bytes
        Fewer than asked for where the file ends.

    Notes
    -----
    Entries are known by path, size, number and time of change, which shares tell in nanoseconds.
    """
    disk = disk_tier()
    if disk is None or not on_network(path):
        return read(descriptor, *part)
    found = os.fstat(descriptor)
    state = os.path.realpath(path), found.st_size, found.st_ino, found.st_mtime_ns
    name = blake2b(repr(state).encode(), digest_size=16).digest()
    data = disk.get(name, [part]).get(part)
    if data is None:
        data = read(descriptor, *part)
        disk.put(name, {part: data})
    return data
