"""Signals wait for a point where the run can stop, and none is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tilestream.stream.interrupts import held_back


class Told(Exception):
    """What the handler before raises."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    def tell(number: int, _frame: object) -> None:
        raise Told(number)

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is tell
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_the_check(number: int) -> None:
    woken: list[int] = []
    with pytest.raises(Told), held_back(lambda: woken.append(1)) as interrupts:  # noqa: PT012 - signals come between
        interrupts.check()
        os.kill(os.getpid(), number)
        assert woken == [1]
        interrupts.check()
        pytest.fail("went on")


def test_the_second_signal_acts_at_once() -> None:
    with pytest.raises(Told), held_back(lambda: None):  # noqa: PT012 - signals come between
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("went on")


def test_a_signal_after_the_last_check_is_not_lost() -> None:
    with pytest.raises(Told), held_back(lambda: None):
        os.kill(os.getpid(), signal.SIGINT)


def test_an_error_of_the_run_goes_before_its_interrupt() -> None:
    with pytest.raises(ZeroDivisionError), held_back(lambda: None):  # noqa: PT012 - signals come between
        os.kill(os.getpid(), signal.SIGINT)
        raise ZeroDivisionError


def test_other_threads_have_no_signals() -> None:
    done: list[bool] = []

    def work() -> None:
        with held_back(lambda: None) as interrupts:
            interrupts.check()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
