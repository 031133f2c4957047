"""Work that is told to stop: that of the run alone, on all threads, and no longer than until another run begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilestream.stream import halt, tasks
from tilestream.stream.halt import Halted
from tilestream.stream.journal import Journal
from tilestream.stream.work import Busy, once
from tilestream.types import Receipt


@pytest.fixture(autouse=True)
def _nothing_halted() -> Iterator[None]:
    yield
    halt._halted.clear()
    halt._everything.clear()


def test_work_on_a_halted_image_ends_and_other_work_goes_on() -> None:
    halt.halt("a", "b")
    halt.look()  # not at work on an image
    with halt.working_on("c"):
        halt.look()
    with halt.working_on("b"):
        with pytest.raises(Halted):
            halt.look()
        halt.go_on("b")
        halt.look()
    with halt.working_on("a"):
        other = threading.Thread(target=halt.look)  # which works on nothing
        other.start()
        other.join()
        with pytest.raises(Halted):
            halt.look()
    halt.look()


def test_a_process_that_ends_halts_everything() -> None:
    halt.halt_everything()
    with pytest.raises(Halted):
        halt.look()


def test_a_halted_unit_is_left_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(root=tmp_path, recipe="r")
    journal.open({"plan": 1})

    def run() -> Receipt:
        halt.halt(str(tmp_path))
        halt.look()
        raise AssertionError("not halted")

    monkeypatch.setattr(tasks, "report_life", lambda: None)  # in no worker
    assert isinstance(tasks.guarded(once, journal, "L0-y0-x0", run), Busy)
    assert not list(tmp_path.glob("*.lease"))
    assert journal.receipts() == {}
