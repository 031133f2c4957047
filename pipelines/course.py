"""Figures of a run while it goes on and at its end, from the events of the engine and nothing else."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, NamedTuple

from tilestream.cache.tally import by_tier
from tilestream.pipelines.figures import TAIL, Figures, Rates
from tilestream.pipelines.report_time import ENDS, task_seconds
from tilestream.pipelines.report_timeline import Timeline

if TYPE_CHECKING:
    from tilestream.stream.events import Event
    from tilestream.types import Receipt

WINDOW_S = 30.0
"""Figures of the moment are those of the last half minute: an average over hours hides that a run has become slow."""
LEAST_S = 1.0
"""Rates are told from then on: those of the first moments would be the rates of a clock's grain."""


class _Arrival(NamedTuple):
    time_s: float
    tiles: int
    pixels: float
    bytes_read: int
    steps: Mapping[str, float]


@dataclass
class _Image:
    tiles: int
    px_per_tile: float
    done: int = 0


class Course:
    """Takes in the events of a run; threads may ask for its figures meanwhile.

    Parameters
    ----------
    images : int
        Inputs of the run.
    noun : str
        What receipts count.
    clock : callable
        Seconds from any point.
    """

    def __init__(self, *, images: int, noun: str = "tile", clock: Callable[[], float] = time.monotonic) -> None:
        self.images = images
        self.noun = noun
        self.timeline = Timeline()
        self.energy: Mapping[str, float] = {}
        """Joules that this machine has used meanwhile, by what a meter has measured."""
        self._clock = clock
        self._started = self._edge = clock()
        self._stopped: float | None = None
        self._recent: deque[_Arrival] = deque()
        self._n: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self._pixels = self._threads_s = 0.0
        self._counted = self._started
        self._current: dict[str, _Image] = {}
        self._workers: set[str] = set()
        self._lock = RLock()

    def hear(self, event: Event) -> None:
        """Take in one event.

        Parameters
        ----------
        event : Event
            What happened to an input.
        """
        with self._lock:
            self._count_threads(event.threads)
            if event.kind == "prepared" and event.prepared is not None:
                self._prepare(event)
            elif event.kind == "unit" and event.receipt is not None:
                self._add(event.job.key, event.receipt, is_ours=not event.reused)
            elif event.kind in ("finished", "skipped", "failed"):
                self._end(event)

    def tiles_of(self, key: str) -> int | None:
        """Return the tiles in the plan of an image that is being worked on, None for all others."""
        with self._lock:
            image = self._current.get(key)
            return None if image is None else image.tiles

    def stop(self) -> None:
        """Let the time of the run end now; its figures stay what they are."""
        with self._lock:
            self._stopped = self._clock()

    def figures(self) -> Figures:
        """Return what the run has done so far."""
        with self._lock:
            wall_s = self._now() - self._started
            self._count_threads(self._n["threads"])
            now = self._rates()
            return Figures(
                images=self.images,
                noun=self.noun,
                **{name: self._n[name] for name in ("done", "skipped", "failed", "tiles", "reused", "damaged")},
                **{name: self._n[name] for name in ("supertiles", "damaged_made", "bytes_read", "threads")},
                unfit=self._counts["failed"],
                empty=self._counts["empty"],
                current={key: (image.done, image.tiles) for key, image in self._current.items()},
                pixels=self._pixels,
                seconds=dict(self._seconds),
                cache=by_tier(self._counts),
                workers=len(self._workers),
                wall_s=wall_s,
                now=now,
                whole=self._whole(wall_s),
                threads_s=self._threads_s,
                ends_idle_s=self.timeline.idle(self._n["threads"], beside=ENDS),
                tail_busy=self.timeline.busy((1 - TAIL) * wall_s, wall_s),
                eta_s=self._eta(now),
            )

    def _count_threads(self, threads: int) -> None:
        """Add the time that threads had since the last look; those counted first were there from the start."""
        now = self._now()
        self._threads_s += (self._n["threads"] or threads) * (now - self._counted)
        self._counted = now if threads else self._counted
        self._n["threads"] = threads or self._n["threads"]

    def _now(self) -> float:
        return self._clock() if self._stopped is None else self._stopped

    def _prepare(self, event: Event) -> None:
        prepared = event.prepared
        if prepared is None:
            return
        facts = prepared.facts if isinstance(prepared.facts, Mapping) else {}
        tiles = facts.get("tiles", len(prepared.plan)) if self.noun == "tile" else len(prepared.plan)
        image = _Image(tiles=tiles, px_per_tile=facts.get("pixels", 0) / max(1, tiles))
        image.done = sum(receipt.tiles for receipt in event.reused)
        self._current[event.job.key] = image
        self._n["reused"] += image.done
        self._n["damaged"] += sum(map(_damaged, event.reused))
        self._n["planned"] += tiles
        self._n["prepared"] += 1
        self._work({"plan": facts.get("plan_s", 0.0)})

    def _add(self, key: str, receipt: Receipt, *, is_ours: bool) -> None:
        image = self._current.get(key)
        if image is not None:
            image.done += receipt.tiles
        self._n["damaged"] += _damaged(receipt)
        if not is_ours:
            self._n["reused"] += receipt.tiles
            return
        pixels = receipt.tiles * image.px_per_tile if image is not None else 0.0
        self._n["damaged_made"] += _damaged(receipt)
        self._n["tiles"] += receipt.tiles
        self._n["supertiles"] += 1
        self._n["bytes_read"] += receipt.bytes_read
        self._pixels += pixels
        self._counts.update(receipt.counts)
        if receipt.worker:
            self._workers.add(receipt.worker)
        self._work(receipt.seconds, (receipt.tiles, pixels, receipt.bytes_read))

    def _end(self, event: Event) -> None:
        self._current.pop(event.job.key, None)
        self._n["failed" if event.kind == "failed" else "done"] += 1
        self._n["skipped"] += event.kind == "skipped"
        if event.kind == "finished" and isinstance(event.result, Mapping):
            self._work({"finish": event.result.get("seconds", {}).get("finish", 0.0)})

    def _work(self, seconds: Mapping[str, float], made: tuple[int, float, int] = (0, 0.0, 0)) -> None:
        """Take in a task: its time by step, and the tiles, pixels and bytes read of a unit."""
        if made[0] or any(seconds.values()):
            self._seconds.update(seconds)
            self.timeline.add(self._now() - self._started, seconds)
            self._recent.append(_Arrival(self._now(), *made, seconds))

    def _rates(self) -> Rates | None:
        """Return the rates of the moment.

        The window reaches over half a minute, and further back to a few receipts where these are rarer: what was begun
        before it, and counts in full, is outweighed by what is not finished yet.
        """
        now, least = self._now(), max(2, 2 * self._n["threads"])
        while len(self._recent) > least and now - self._recent[0].time_s > WINDOW_S:
            self._edge = self._recent.popleft().time_s
        span_s = now - self._edge
        if not self._recent or span_s < LEAST_S:
            return None
        steps: Counter[str] = Counter()
        for arrival in self._recent:
            steps.update(arrival.steps)
        return self._rate(
            span_s,
            steps,
            tiles=sum(arrival.tiles for arrival in self._recent),
            pixels=sum(arrival.pixels for arrival in self._recent),
            bytes_read=sum(arrival.bytes_read for arrival in self._recent),
        )

    def _whole(self, wall_s: float) -> Rates | None:
        if not self._n["supertiles"] or wall_s <= 0:
            return None
        n = self._n
        return self._rate(wall_s, self._seconds, tiles=n["tiles"], pixels=self._pixels, bytes_read=n["bytes_read"])

    def _rate(self, span_s: float, steps: Mapping[str, float], *, tiles: int, pixels: float, bytes_read: int) -> Rates:
        return Rates(
            seconds=span_s,
            tiles=tiles / span_s,
            pixels=pixels / span_s,
            bytes_read=bytes_read / span_s,
            busy=min(task_seconds(steps) / span_s, float(self._n["threads"] or 1 << 20)),
            steps=dict(steps),
        )

    def _eta(self, rates: Rates | None) -> float | None:
        """Return the time left: tiles to do over the rate, images not yet planned counted as average ones."""
        if rates is None or not rates.tiles or not self._n["prepared"]:
            return None
        known = sum(image.tiles - image.done for image in self._current.values())
        unknown = max(0, self.images - self._n["done"] - self._n["failed"] - len(self._current))
        return (known + unknown * self._n["planned"] / self._n["prepared"]) / rates.tiles


def _damaged(receipt: Receipt) -> int:
    return len({row for rows in receipt.damaged.values() for row in rows})
