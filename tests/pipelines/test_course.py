"""Figures of a run from made-up events under a made-up clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from tilestream.pipelines.course import Course
from tilestream.stream.engine import Event, Prepared
from tilestream.types import Receipt


@dataclass
class Named:
    key: str

    def prepare(self) -> Any:
        raise NotImplementedError


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Planned:
    def __init__(self, tiles: int) -> None:
        self.tiles = tiles

    def __len__(self) -> int:
        return self.tiles


def prepared(key: str, tiles: int, *reused: Receipt, **facts: Any) -> Event:
    plan: Any = Planned(tiles)
    work: Any = None
    ready = Prepared(plan=plan, work=work, finish=dict, facts=facts)
    return Event(job=Named(key), kind="prepared", prepared=ready, reused=reused, threads=2)


def receipt(tiles: int, **more: Any) -> Receipt:
    return Receipt(key="L0-y0-x0", recipe="r", outputs={}, tiles=tiles, **more)


def unit(key: str, tiles: int, *, reused: bool = False, **more: Any) -> Event:
    made = receipt(tiles, **more)
    return Event(job=Named(key), kind="unit", receipt=made, reused=(made,) if reused else (), threads=2)


def ended(key: str, kind: str = "finished", **result: Any) -> Event:
    return Event(job=Named(key), kind=kind, result=result, threads=2)


def test_tiles_count_once_and_damage_once_a_tile() -> None:
    course = Course(images=3)
    course.hear(prepared("a", 100, receipt(20, damaged={"cut": (1, 2)})))
    course.hear(unit("a", 30, damaged={"cut": (30, 31), "empty": (31,)}, counts={"failed": 3, "empty": 4}))
    course.hear(unit("a", 10, reused=True, damaged={"cut": (60,)}))
    found = course.figures()
    assert (found.tiles, found.reused, found.supertiles) == (30, 30, 1)
    assert (found.damaged, found.damaged_made, found.unfit, found.empty) == (5, 2, 3, 4)
    assert found.current == {"a": (60, 100)}
    assert found.share == pytest.approx(0.6 / 3)
    course.hear(ended("a"))
    course.hear(ended("b", "failed"))
    course.hear(ended("c", "skipped"))
    found = course.figures()
    assert (found.done, found.skipped, found.failed, found.ended, found.share) == (2, 1, 1, 3, 1.0)
    assert not found.current


def test_rates_of_late_and_of_the_whole_run() -> None:
    clock = Clock()
    course = Course(images=2, clock=clock)
    course.hear(prepared("a", 1000, pixels=1000 * 256**2))
    assert course.figures().now is None
    assert course.figures().eta_s is None
    for clock.now in (1.0, 2.0, 3.0, 4.0):
        course.hear(unit("a", 100, bytes_read=500, seconds={"decode": 1.0, "vit": 0.5}, worker="h:1"))
    found = course.figures()
    assert found.now is not None
    assert found.whole is not None
    for rates in (found.now, found.whole):
        assert (rates.tiles, rates.bytes_read, rates.busy) == (100, 500, 1.5)
        assert rates.pixels == 100 * 256**2
        assert rates.steps == {"decode": 4.0, "vit": 2.0}
    assert found.eta_s == pytest.approx((600 + 1000) / 100)  # the second image is taken for an average one
    assert found.mpx_per_core_s == pytest.approx(400 * 256**2 / 1e6 / 6)
    assert (found.threads, found.workers) == (2, 1)


def test_a_rate_forgets_what_is_long_ago() -> None:
    clock = Clock()
    course = Course(images=1, clock=clock)
    course.hear(prepared("a", 10**6))
    for clock.now in (1.0, 2.0, 3.0, 4.0):
        course.hear(unit("a", 50_000))
    for clock.now in (60.0, 70.0, 80.0, 90.0):
        course.hear(unit("a", 100))
    found = course.figures()
    assert found.now is not None
    assert found.whole is not None
    assert found.now.tiles == pytest.approx(400 / 86)  # since the last of the fast ones
    assert found.whole.tiles > 2000


def test_units_that_take_longer_than_the_window_still_have_a_rate() -> None:
    clock = Clock()
    course = Course(images=1, clock=clock)
    course.hear(prepared("a", 10**6))
    for clock.now in range(100, 1001, 100):
        course.hear(unit("a", 50))
    found = course.figures()
    assert found.now is not None
    assert found.now.tiles == pytest.approx(0.5)


def test_two_threads_that_end_at_once_are_not_taken_for_a_fast_one() -> None:
    clock = Clock()
    course = Course(images=1, clock=clock)
    course.hear(prepared("a", 1000))
    for clock.now in (10.0, 10.001):
        course.hear(unit("a", 50))
    found = course.figures()
    assert found.now is not None
    assert found.now.tiles == pytest.approx(10, rel=1e-3)


def test_planning_and_finishing_are_work_too_and_time_stops_at_the_end() -> None:
    clock = Clock(2.0)
    course = Course(images=1, clock=clock)
    clock.now = 4.0
    course.hear(prepared("a", 4, plan_s=2.0))
    clock.now = 6.0
    course.hear(unit("a", 4, seconds={"decode": 2.0}))
    clock.now = 9.0
    course.hear(ended("a", seconds={"finish": 3.0, "decode": 2.0}))
    clock.now = 10.0
    course.stop()
    clock.now = 500.0
    found = course.figures()
    assert found.seconds == {"plan": 2.0, "decode": 2.0, "finish": 3.0}
    assert found.wall_s == 8.0
    assert course.timeline.busy(0.0, 8.0) == pytest.approx(7 / 8)
    assert found.tail_busy == pytest.approx(1.4 / 2.4)


def test_workers_that_come_later_have_not_been_idle_before() -> None:
    clock = Clock()
    course = Course(images=1, clock=clock)
    clock.now = 2.0
    course.hear(replace(prepared("a", 9), threads=1))
    clock.now = 10.0
    course.hear(replace(unit("a", 1), threads=4))
    assert course.figures().threads_s == 10.0
    clock.now = 12.0
    assert course.figures().threads_s == 18.0
    course.hear(replace(unit("a", 1), threads=0))  # nobody has counted
    clock.now = 13.0
    course.stop()
    clock.now = 99.0
    found = course.figures()
    assert (found.threads, found.threads_s, found.wall_s) == (4, 22.0, 13.0)


def test_caches_are_told_by_tier_nearest_first() -> None:
    course = Course(images=1)
    course.hear(prepared("a", 4))
    course.hear(unit("a", 2, counts={"cache.disk.hits": 3, "cache.decoded.misses": 4, "cache.decoded.bytes": 50}))
    course.hear(unit("a", 2, counts={"cache.disk.hits": 2, "cache.peer.evictions": 1, "cache.peer.hits": 0}))
    assert course.figures().cache == {
        "decoded": {"hits": 0, "misses": 4, "bytes": 50, "evictions": 0},
        "disk": {"hits": 5, "misses": 0, "bytes": 0, "evictions": 0},
        "peer": {"hits": 0, "misses": 0, "bytes": 0, "evictions": 1},
    }


def test_an_image_without_tiles_is_no_division_by_zero() -> None:
    course = Course(images=1)
    course.hear(prepared("a", 0))
    found = course.figures()
    assert found.share == 0
    assert found.eta_s is None
    assert found.mpx_per_core_s is None
