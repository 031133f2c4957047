"""Whether asking peers is worth its time, by how long they and the source have taken; decided for each source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

NEWEST_PART = 0.2
"""Weight of the newest time in the mean of all before."""
LEAST_SHARE = 0.2
"""Peers are taken to have this share of what they are asked for at least: they have nothing at first, more later."""
AGAIN_AFTER = 32
"""After so many decisions not to ask, peers are asked once to see whether things have changed."""


@dataclass
class Ask:
    """An answer of peers that is being measured."""

    found: int = 0
    """Ranges that it held."""


class Worth:
    """Mean time a range takes from each source and from peers, and how often peers have it.

    Threads share it without a lock: a figure that is lost moves a mean by a little.
    """

    def __init__(self) -> None:
        self._fetch_s: dict[str, float] = {}
        self._ask_s: float | None = None
        self._share: float | None = None
        self._declined = 0

    def asking(self, source: str) -> bool:
        """Return whether peers should be asked before a source.

        Parameters
        ----------
        source : str
            Name of the service.

        Returns
        -------
        bool
            Yes while one of the times is not known, and when asking takes less than what it saves on average.
        """
        fetch_s, ask_s, share = self._fetch_s.get(source), self._ask_s, self._share
        if fetch_s is None or ask_s is None or share is None or ask_s < max(share, LEAST_SHARE) * fetch_s:
            return True
        self._declined += 1
        if self._declined < AGAIN_AFTER:
            return False
        self._declined = 0
        return True

    @contextmanager
    def measured_ask(self, ranges: int) -> Iterator[Ask]:
        """Yield what takes the number of ranges found, and note the time of the block.

        Parameters
        ----------
        ranges : int
            How many are asked for.

        Yields
        ------
        Ask
            To be filled.
        """
        ask, started = Ask(), time.perf_counter()
        yield ask
        self._ask_s = _mean(self._ask_s, (time.perf_counter() - started) / ranges)
        self._share = _mean(self._share, ask.found / ranges)

    @contextmanager
    def measured_fetch(self, source: str, ranges: int) -> Iterator[None]:
        """Note the time that a source takes, unless it fails.

        Parameters
        ----------
        source : str
            Name of the service.
        ranges : int
            How many are asked for.

        Yields
        ------
        None
            Nothing.
        """
        started = time.perf_counter()
        yield
        self._fetch_s[source] = _mean(self._fetch_s.get(source), (time.perf_counter() - started) / ranges)


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else (1 - NEWEST_PART) * before + NEWEST_PART * newest
