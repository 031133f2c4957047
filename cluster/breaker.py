"""Peers that have not answered are left out for a while: asking them would cost a time-out each time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 2
"""Failures in a row after which a peer is left out."""
FIRST_S = 5.0
"""For how long, the first time, since a busy process may just be late; twice as long each further time."""
LONGEST_S = 300.0
"""For how long at most."""


@dataclass
class _Record:
    failures: int = 0
    pause_s: float = FIRST_S
    until_s: float = float("-inf")


class Breaker:
    """Remembers which peers fail; threads share it, and a count that is lost delays it by one failure.

    Parameters
    ----------
    clock : callable
        Seconds that only grow.

    Notes
    -----
    Libraries for this (pybreaker, aiobreaker) wrap calls and raise; here a peer must be left out before it is chosen.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}

    def allows(self, peer: str) -> bool:
        """Return whether a peer may be asked now."""
        record = self._records.get(peer)
        return record is None or self._clock() >= record.until_s

    def answered(self, peer: str) -> None:
        """Note that a peer is well."""
        self._records.pop(peer, None)

    def failed(self, peer: str) -> None:
        """Note that a peer gave no answer, or a wrong one; after a pause one more failure is enough."""
        record = self._records.setdefault(peer, _Record())
        record.failures += 1
        if record.failures >= FAILURES and self._clock() >= record.until_s:
            record.until_s = self._clock() + record.pause_s
            record.pause_s = min(2 * record.pause_s, LONGEST_S)
