"""What time it is where files are kept: the ages of leases are counted on that clock alone.

Nodes of a cluster need not agree on the time, and a file server has a clock of its own, which stamps what is written to
it. An age is a difference of two of its stamps: that of the file, and that of an empty one put beside it now. Between
two such looks our own steady clock is added, which nobody sets.
"""

from __future__ import annotations

import os
import time
import uuid
from functools import lru_cache

from tilestream.codecs.durable import PARTIAL_SUFFIX
from tilestream.codecs.place import Place

LOOK_S = 30.0
"""How long a look holds: clocks are set now and then, and the steady one stands while a machine is suspended."""


def storage_time_s(place: Place) -> float:
    """Return the time on the clock of the disk, file server or storage service that keeps a folder.

    Parameters
    ----------
    place : Place
        A folder that can be written to.

    Returns
    -------
    float
        Seconds since 1970 over there; at most `LOOK_S` of it are counted here.
    """
    now_s = time.monotonic()
    return now_s + _ahead_s(place, os.getpid(), int(now_s // LOOK_S))


@lru_cache(maxsize=64)
def _ahead_s(place: Place, _pid: int, _turn: int) -> float:
    """Return by how much that clock is ahead of our steady one."""
    name = f".{uuid.uuid4().hex[:16]}{PARTIAL_SUFFIX}"
    before_s = time.monotonic()
    try:
        if place.is_local:
            (place.path / name).open("xb").close()
            os.utime(place.path / name)  # as a heartbeat does it: the server fills in its time
        else:
            place.put(name, b"")
        modified_s = place.modified_s(name)
    except OSError:  # a full disk: one that is kept here has our clock
        modified_s = None
    finally:
        place.remove(name)
    return (time.time() if modified_s is None else modified_s) - before_s
