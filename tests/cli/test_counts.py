"""Figures of a run from made-up events under a made-up clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tilestream.cli.counts import Counts
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


def prepared(key: str, tiles: int, *reused: Receipt) -> Event:
    plan: Any = Planned(tiles)
    work: Any = None
    ready = Prepared(plan=plan, work=work, finish=dict)
    return Event(job=Named(key), kind="prepared", prepared=ready, reused=reused)


def receipt(tiles: int, **damaged: tuple[int, ...]) -> Receipt:
    return Receipt(key="L0-y0-x0", recipe="r", outputs={}, tiles=tiles, damaged=damaged)


def unit(key: str, tiles: int, **damaged: tuple[int, ...]) -> Event:
    return Event(job=Named(key), kind="unit", receipt=receipt(tiles, **damaged))


def ended(key: str, kind: str = "finished") -> Event:
    return Event(job=Named(key), kind=kind)


def test_counts_tiles_once_and_damage_once_a_tile() -> None:
    counts = Counts(images=3)
    counts.hear(prepared("a", 100, receipt(20, cut=(1, 2))))
    counts.hear(unit("a", 30, cut=(30, 31), empty=(31,)))
    assert (counts.tiles, counts.reused, counts.damaged) == (30, 20, 4)
    assert counts.current["a"].done == 50
    assert counts.share == pytest.approx(0.5 / 3)
    counts.hear(ended("a"))
    counts.hear(ended("b", "failed"))
    counts.hear(ended("c", "skipped"))
    assert (counts.done, counts.failed, counts.ended, counts.share) == (2, 1, 3, 1.0)
    assert not counts.current


def test_rate_and_time_left() -> None:
    clock = Clock()
    counts = Counts(images=2, clock=clock)
    counts.hear(prepared("a", 1000))
    assert counts.rate is None
    assert counts.eta_s is None
    for clock.now in (1.0, 2.0, 3.0):
        counts.hear(unit("a", 100))
    assert counts.rate == pytest.approx(100)
    assert counts.eta_s == pytest.approx((700 + 1000) / 100)  # the second image is taken for an average one


def test_rate_forgets_what_is_long_ago() -> None:
    clock = Clock()
    counts = Counts(images=1, clock=clock)
    counts.hear(prepared("a", 10**6))
    for clock.now in (0.0, 1.0):
        counts.hear(unit("a", 50_000))
    for clock.now in (100.0, 110.0):
        counts.hear(unit("a", 100))
    assert counts.rate == pytest.approx(10)


def test_an_image_without_tiles_is_no_division_by_zero() -> None:
    counts = Counts(images=1)
    counts.hear(prepared("a", 0))
    assert counts.share == 0
    assert counts.eta_s is None
