"""The parallel form of every CPU kernel: its serial form on bands, in threads.

A kernel without the GIL that owns the rows it writes needs no threading layer of its own. Numba's `prange` was left
out: its default layer aborts when two Python threads enter it at once, and kills a process that was forked after it
ran. These threads are shared by all callers and are started anew after a fork.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from tilestream.errors import ConfigError

_BANDS_PER_THREAD = 4
"""More bands than threads, so that one busy core does not hold up the rest."""


class _Pool:
    """The threads, and the lock under which they are made."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.lock = threading.Lock()
        self.threads: ThreadPoolExecutor | None = None

    def get(self) -> ThreadPoolExecutor:
        with self.lock:
            if self.threads is None:
                self.threads = ThreadPoolExecutor(cores(), thread_name_prefix="tilestream-kernel")
            return self.threads


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def over_bands(work: Callable[[int, int], object], n: int, *, threads: int, least: int = 1, align: int = 1) -> None:
    """Call `work(start, stop)` on bands that cover 0 to n, at once in up to `threads` threads.

    Parameters
    ----------
    work : callable
        Writes what belongs to positions start to stop, and nothing else; must give up the GIL to gain anything.
    n : int
        How many positions, such as rows.
    threads : int
        Most threads, this one among them; 1 calls `work(0, n)`.
    least : int
        Fewest positions that are worth a band.
    align : int
        Bands begin at multiples of this.

    Raises
    ------
    ConfigError
        When `threads` is not positive.
    """
    if threads < 1:
        raise ConfigError.of("`threads`", got=threads, expected="at least 1", do="Leave it out for all cores.")
    bands = min(threads * _BANDS_PER_THREAD, n // max(1, least))
    if threads == 1 or bands < 2:
        work(0, n)
        return
    step = -(-n // bands)
    step += -step % align
    starts = iter(range(0, n, step))  # taken from under the GIL, so by one thread each

    def some() -> None:
        for start in starts:
            work(start, min(start + step, n))

    # this thread works too: it need not wait for others to wake up, nor for those that others keep busy
    others = [_pool.get().submit(some) for _ in range(threads - 1)]
    try:
        some()
    finally:
        started = [other for other in others if not other.cancel()]
        wait(started)
    for other in started:
        other.result()
