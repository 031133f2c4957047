"""What a run has done by a moment, in figures that can be shown, stored and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tilestream.pipelines.report_time import ENDS, task_seconds, work_seconds

TAIL = 0.3
"""The last part of a run, by its time, in which threads that have nothing left to do are looked for."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a run does in a second, over some time."""

    seconds: float
    """Over how long."""
    tiles: float
    """Tiles a second."""
    pixels: float
    """Pixels of the plan a second."""
    bytes_read: float
    """Compressed bytes a second, asked of the sources."""
    busy: float
    """Threads of workers that are in tasks."""
    steps: Mapping[str, float] = field(default_factory=dict)
    """Time by step, s."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run has done by a moment."""

    images: int
    """Inputs of the run."""
    noun: str
    """What receipts count."""
    done: int
    """Inputs that are finished, those included that an earlier run has finished."""
    skipped: int
    """Of these, those of an earlier run."""
    failed: int
    """Inputs that failed."""
    current: Mapping[str, tuple[int, int]]
    """Images that are being worked on: tiles done and tiles of the plan, by key."""
    tiles: int
    """Tiles that this run has made."""
    reused: int
    """Tiles that an earlier run, or another one at work beside this one, had made."""
    damaged: int
    """Tiles that could not be decoded, those of earlier runs included."""
    damaged_made: int
    """Of these, those among the tiles that this run has made."""
    unfit: int
    """Tiles for which a stage had no result."""
    empty: int
    """Tiles without a valid pixel."""
    supertiles: int
    """Super-tiles that this run has made."""
    pixels: float
    """Pixels of the plan under the tiles that this run has made."""
    bytes_read: int
    """Compressed bytes asked of the sources."""
    seconds: Mapping[str, float]
    """Time by step, summed over threads."""
    cache: Mapping[str, Mapping[str, int]]
    """Cache → hits, misses, bytes, evictions."""
    workers: int
    """Processes that have sent receipts."""
    threads: int
    """Threads of workers, as last counted; 0 while nobody has said it."""
    threads_s: float
    """Time that these threads had, also where there were more or fewer of them before."""
    wall_s: float
    """Time from the start of the run."""
    now: Rates | None
    """Of the last half minute; None before anything can be told."""
    whole: Rates | None
    """Of the whole run."""
    ends_idle_s: float
    """Time in which threads had no task while others opened or finished images."""
    tail_busy: float
    """Threads of workers in tasks in the last `TAIL` of the time."""
    eta_s: float | None
    """Time left; None while it is not known."""

    @property
    def ended(self) -> int:
        """Return the number of inputs that are finished or failed."""
        return self.done + self.failed

    @property
    def share(self) -> float:
        """Return the finished share of the run in images, an image being worked on by its tiles."""
        partly = sum(done / tiles for done, tiles in self.current.values() if tiles)
        return min(1.0, (self.ended + partly) / max(1, self.images))

    @property
    def unit_s(self) -> float:
        """Return how long a super-tile kept a thread, on average; 0 when none was made."""
        ends_s = sum(self.seconds.get(step, 0.0) for step in ENDS)
        return (task_seconds(self.seconds) - ends_s) / self.supertiles if self.supertiles else 0.0

    @property
    def mpx_per_core_s(self) -> float | None:
        """Return the megapixels that a core does in a second in which it is at work, None when nothing was done."""
        work_s = work_seconds(self.seconds)
        return self.pixels / 1e6 / work_s if self.pixels and work_s > 0 else None
