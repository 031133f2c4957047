"""Seats: runs that share the work begin far from each other, and one alone keeps the order."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.servers import S3
from tilestream.codecs.place import Place
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.stream.seats import ARRAY, array_index, begun_at, seat_start, taken_seat


@pytest.fixture(autouse=True)
def _no_array(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ARRAY:
        monkeypatch.delenv(name, raising=False)


def test_each_seat_is_in_the_middle_of_the_widest_gap() -> None:
    assert [seat_start(number) for number in range(6)] == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8]
    for count in range(1, 65):
        starts = sorted(seat_start(number) for number in range(count))
        assert len(set(starts)) == count
        gaps = np.diff([*starts, 1.0])
        assert gaps.max() <= 2 * gaps.min()  # nobody is given much more than another


def test_the_lowest_free_seat_is_taken_and_given_back(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "receipts")
    with ExitStack() as others:
        first = ExitStack()
        starts = [first.enter_context(taken_seat(place))]
        starts += [others.enter_context(taken_seat(place)) for _ in range(3)]
        assert starts == [0, 1 / 2, 1 / 4, 3 / 4]
        first.close()
        with taken_seat(place) as start:
            assert start == 0
    assert list(place.path.iterdir()) == []


def test_the_seats_of_killed_runs_are_cleared(tmp_path: Path) -> None:
    place = Place.of(tmp_path)
    with taken_seat(place), taken_seat(place):
        for number, started in ((7, 0.0), (8, psutil.Process(1).create_time())):
            owner = {"host": socket.gethostname(), "pid": 1, "started": started}
            (tmp_path / f".run-{number}.lease").write_text(json.dumps(owner))
    assert [path.name for path in tmp_path.iterdir()] == [".run-8.lease"]  # which lives as long as the machine


def test_members_of_an_array_have_a_seat_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "13")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "10")
    place = Place.of(tmp_path)
    with taken_seat(place) as start, taken_seat(place) as requeued:
        assert (start, requeued) == (seat_start(3), seat_start(4))


@pytest.mark.parametrize(
    ("environment", "index"),
    [
        ({}, 0),
        ({"SLURM_ARRAY_TASK_ID": "7"}, 7),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5"}, 2),
        ({"SLURM_ARRAY_TASK_ID": "4000000"}, 4_000_000 % 1024),
        ({"SLURM_ARRAY_TASK_ID": "odd"}, 0),
        ({"SLURM_ARRAY_TASK_MIN": "5"}, 0),
    ],
)
def test_the_index_in_an_array(environment: dict[str, str], index: int) -> None:
    assert array_index(environment) == index


def test_a_seat_on_object_storage(s3: S3) -> None:
    place = Place.of(f"{s3.url}/receipts", s3.options)
    with taken_seat(place), taken_seat(place) as second:
        assert second == 1 / 2
    assert place.names() == []


def test_an_order_begun_in_the_middle_has_everything_once() -> None:
    assert begun_at("abcde", 0) == [*"abcde"]
    assert begun_at("abcde", 1 / 2) == [*"cdeab"]
    assert begun_at("", 3 / 4) == []


def test_units_are_the_same_wherever_a_run_begins() -> None:
    plan = plan_tiles(open_pyramid(np.zeros((700, 900, 3), np.uint8)), where="all", super_tile_px=256)
    keys = [unit.key for unit in plan.start()]
    for number in range(5):
        begun = replace(plan, begin_at=seat_start(number))
        assert [unit.key for unit in begun.start()] == begun_at(keys, seat_start(number))
        assert begun.digest == plan.digest
