"""Signs of life: what is slow, what is silent, and who may give signs."""

from __future__ import annotations

import threading

import pytest

from tilestream import life, metrics
from tilestream.life import Life


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(life.time, "monotonic", lambda: now[0])
    return now


def test_silence_is_counted_while_a_task_runs(clock: list[float]) -> None:
    mine = Life()
    clock[0] += 50
    assert mine.silent_s == 0
    with mine.task():
        clock[0] += 7
        assert mine.silent_s == 7
        mine.sign()
        clock[0] += 2
        assert (mine.silent_s, mine.longest_s) == (2, 7)
    clock[0] += 1000
    assert (mine.silent_s, mine.longest_s) == (0, 7)
    with mine.task():
        assert (mine.silent_s, mine.longest_s) == (0, 7)


def test_what_goes_on_before_the_first_task_and_between_two_is_no_silence(clock: list[float]) -> None:
    mine = Life()
    mine.sign()
    with mine.task():
        clock[0] += 2
    clock[0] += 1000
    mine.sign()
    assert mine.longest_s == 2


def test_one_that_lives_speaks_for_its_process(clock: list[float]) -> None:
    mine = Life()
    with mine.task():
        clock[0] += 30
        with mine.task():
            clock[0] += 1
        assert mine.silent_s == 0
        clock[0] += 5
        assert mine.silent_s == 5


def test_steps_and_files_of_tasks_are_signs_and_those_of_other_threads_are_not(clock: list[float]) -> None:
    with life.LIFE.task():
        clock[0] += 3
        heart = threading.Thread(target=metrics.advance)  # such as the one that refreshes leases
        heart.start()
        heart.join()
        with metrics.timed("x"):
            pass
        assert life.LIFE.silent_s == 3
        with metrics.collect():
            with metrics.timed("x"):
                clock[0] += 1
            assert life.LIFE.silent_s == 0
            clock[0] += 1
            metrics.advance()
            assert life.LIFE.silent_s == 0
