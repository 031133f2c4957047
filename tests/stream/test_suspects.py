"""Tasks that lost their worker are tried one at a time, and only when workers are settled."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilestream.stream import suspects
from tilestream.stream.running import Running, Task
from tilestream.stream.suspects import NOT_SETTLED_S, SETTLED_S, Suspects


class Slide:
    """A job of which only the name is asked."""

    key = "slide"

    def prepare(self) -> None:
        """Nothing is ever begun."""


class Clock:
    """The time of the module under test."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(suspects, "time", clock)
    return clock


@pytest.fixture
def task() -> Task:
    return Task(Running(Slide()), "unit", print)


def test_one_at_a_time_the_second_time_is_the_last(clock: Clock, task: Task) -> None:
    found = Suspects()
    assert not found
    found.see(["a"])
    found.add(task)
    found.add(replace(task, step="finish"))
    assert found
    assert found.take() is None, "a worker has come just now"
    clock.now += SETTLED_S + 1
    first = found.take()
    assert first == replace(task, is_alone=True)
    assert found.take() is None, "one is being tried"
    found.tried()
    found.add(first)
    second = found.take()
    assert second is not None
    assert (second.step, second.is_last_try) == ("finish", False)
    assert found, "one is being tried, so nothing else may start"
    found.tried()
    assert found.take() == replace(first, is_last_try=True)
    found.tried()
    assert not found


def test_workers_that_come_and_go_are_waited_for_a_while(clock: Clock, task: Task) -> None:
    found = Suspects()
    found.add(task)
    lost_at = clock.now
    clock.now += SETTLED_S + 1
    assert found.take() is None, "there is no worker"
    while clock.now - lost_at <= NOT_SETTLED_S:
        found.see([f"worker-{clock.now}"])
        assert found.take() is None
        clock.now += SETTLED_S - 1
    assert found.take() is not None
    found.tried()
    assert not found
