"""Figures of a run while it goes on, from the events of the engine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilestream.stream.engine import Event
    from tilestream.types import Receipt

WINDOW_S = 30.0
"""The rate shown is that of the last half minute: an average over hours hides that a run has become slow."""


@dataclass
class Image:
    """One image that is being worked on."""

    tiles: int
    """Tiles of its plan."""
    done: int = 0
    """Tiles that have receipts, those of an earlier run included."""


@dataclass
class Counts:
    """What a run has done so far; changed by `hear`."""

    images: int
    """Inputs of the run."""
    noun: str = "tile"
    """What receipts count, for whoever shows it."""
    clock: Callable[[], float] = time.monotonic
    """Seconds from any point."""
    done: int = 0
    """Inputs that are finished."""
    failed: int = 0
    """Inputs that failed."""
    tiles: int = 0
    """Tiles that this run has made."""
    reused: int = 0
    """Tiles that an earlier run had made."""
    damaged: int = 0
    """Tiles that could not be decoded."""
    current: dict[str, Image] = field(default_factory=dict)
    """Images that are being worked on, by key."""
    _planned: int = 0
    _prepared: int = 0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def hear(self, event: Event) -> None:
        """Take in one event.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        key = event.job.key
        if event.kind == "prepared" and event.prepared is not None:
            facts = event.prepared.facts
            known = facts.get("tiles") if isinstance(facts, dict) and self.noun == "tile" else None
            self._prepare(key, len(event.prepared.plan) if known is None else known, event.reused)
        elif event.kind == "unit" and event.receipt is not None:
            self._add(key, event.receipt)
        elif event.kind in ("finished", "skipped", "failed"):
            self.current.pop(key, None)
            self.failed += event.kind == "failed"
            self.done += event.kind != "failed"

    @property
    def ended(self) -> int:
        """Return the number of inputs that are finished or failed."""
        return self.done + self.failed

    @property
    def rate(self) -> float | None:
        """Return the tiles a second of the last half minute, None before there are two units."""
        now = self.clock()
        while self._recent and now - self._recent[0][0] > WINDOW_S:
            self._recent.popleft()
        if len(self._recent) < 2:
            return None
        # the first unit began before the window did, so its tiles do not count
        tiles = sum(count for _, count in self._recent) - self._recent[0][1]
        return tiles / max(now - self._recent[0][0], 1e-6)

    @property
    def eta_s(self) -> float | None:
        """Return the seconds left: tiles to do over the rate, images not yet planned counted as average ones."""
        rate = self.rate
        if not rate or not self._prepared:
            return None
        known = sum(image.tiles - image.done for image in self.current.values())
        unknown = max(0, self.images - self.ended - len(self.current))
        return (known + unknown * self._planned / self._prepared) / rate

    @property
    def share(self) -> float:
        """Return the finished share of the run in images, an image being worked on by its tiles."""
        partly = sum(image.done / image.tiles for image in self.current.values() if image.tiles)
        return (self.ended + partly) / max(1, self.images)

    def _prepare(self, key: str, tiles: int, reused: tuple[Receipt, ...]) -> None:
        self.current[key] = Image(tiles=tiles, done=sum(receipt.tiles for receipt in reused))
        self.reused += self.current[key].done
        self.damaged += sum(map(_damaged, reused))
        self._planned += tiles
        self._prepared += 1

    def _add(self, key: str, receipt: Receipt) -> None:
        if key in self.current:
            self.current[key].done += receipt.tiles
        self.tiles += receipt.tiles
        self.damaged += _damaged(receipt)
        self._recent.append((self.clock(), receipt.tiles))


def _damaged(receipt: Receipt) -> int:
    return len({row for rows in receipt.damaged.values() for row in rows})
