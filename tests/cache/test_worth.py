"""Peers are asked where that is cheaper than the source, and now and then to see whether it has become so."""

from __future__ import annotations

import pytest

from tilestream.cache import worth as module
from tilestream.cache.worth import AGAIN_AFTER, Worth


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


@pytest.mark.parametrize(
    ("ask_s", "share", "fetch_s", "is_worth"),
    [(2, 1, 50, True), (2, 1, 1, False), (2, 0, 50, True), (20, 0, 50, False), (20, 0.3, 50, False)],
)
def test_a_source_that_is_faster_is_asked_at_once(clock, ask_s, share, fetch_s, is_worth):
    worth = Worth()
    assert worth.asking("s3://")
    with worth.measured_ask(10) as ask:
        clock(ask_s)
        ask.found = round(10 * share)
    with worth.measured_fetch("s3://", 10):
        clock(fetch_s)
    assert worth.asking("s3://") == is_worth
    assert worth.asking("https://another.org")  # of which nothing is known yet


def test_peers_are_asked_again_after_a_while(clock):
    worth = Worth()
    with worth.measured_ask(1):
        clock(5)
    with worth.measured_fetch("s3://", 1):
        clock(1)
    assert [worth.asking("s3://") for _ in range(2 * AGAIN_AFTER)].count(True) == 2


def test_a_fetch_that_fails_is_no_time(clock):
    worth = Worth()
    with worth.measured_ask(1) as ask:
        clock(5)
        ask.found = 1
    with pytest.raises(OSError, match="gone"), worth.measured_fetch("s3://", 1):
        raise OSError("gone")
    assert worth.asking("s3://")
