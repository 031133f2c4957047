"""Threads that work for tasks: they outlive one task, since some sources hold an open file a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeAlias

IDLE_S = 10.0
"""How long a thread without work stays."""

_Work: TypeAlias = Callable[[], None]


class HelpThreads:
    """Runs calls beside the caller, each at once and in a thread of its own; never makes one wait for another."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Forget all threads: a forked child has none of its parent's."""
        self._lock = threading.Lock()
        self._idle: list[SimpleQueue[_Work]] = []

    def run(self, work: _Work) -> None:
        """Begin with a call that raises nothing."""
        with self._lock:
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = SimpleQueue()
            # Daemons: what is under way when the interpreter ends is done again by the next run.
            threading.Thread(target=self._serve, args=(inbox,), name="tilestream-decode", daemon=True).start()
        inbox.put(work)

    def _serve(self, inbox: SimpleQueue[_Work]) -> None:
        while True:
            try:
                work = inbox.get(timeout=IDLE_S)
            except Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        return
                continue  # it was given work at this moment
            work()
            with self._lock:
                self._idle.append(inbox)


HELP = HelpThreads()
"""Those of this process."""
