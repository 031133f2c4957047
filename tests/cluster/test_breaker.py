"""A peer that fails is left out for a while, longer each time, and comes back when it answers."""

from __future__ import annotations

from tilestream.cluster.breaker import FIRST_S, LONGEST_S, Breaker


def test_a_peer_that_fails_twice_is_left_out_for_a_while():
    now = [0.0]
    breaker = Breaker(clock=lambda: now[0])
    breaker.failed("a")
    assert breaker.allows("a")
    breaker.answered("a")
    breaker.failed("a")
    assert breaker.allows("a")  # not in a row
    breaker.failed("a")
    assert not breaker.allows("a")
    assert breaker.allows("b")
    now[0] = FIRST_S
    assert breaker.allows("a")
    breaker.failed("a")  # once is enough now, and it takes twice as long
    now[0] += 1.5 * FIRST_S
    assert not breaker.allows("a")
    now[0] += FIRST_S
    breaker.answered("a")
    breaker.failed("a")
    assert breaker.allows("a")


def test_the_pause_has_an_end():
    now = [0.0]
    breaker = Breaker(clock=lambda: now[0])
    for _ in range(20):
        breaker.failed("a")
        breaker.failed("a")
        now[0] += LONGEST_S
        assert breaker.allows("a")
