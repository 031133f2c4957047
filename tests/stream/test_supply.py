"""Batches decoded ahead are those decoded in place, whoever decodes them and however many buffers there are."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stream.test_batches import EDGE, tile_place
from tilestream.metrics import collect
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid import open_pyramid
from tilestream.stream.batches import new_outcome
from tilestream.stream.helpthreads import HELP, HelpThreads
from tilestream.stream.supply import decode_threads, supplied
from tilestream.testing.slide import write_slide
from tilestream.types import Batch, Pending, Shape, SuperTile

TILES = 6
BATCH = 5


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of which one stored tile is damaged."""
    path = tmp_path_factory.mktemp("slide") / "small.svs"
    write_slide(path, Shape(y=TILES * EDGE, x=TILES * EDGE), tile_px=EDGE, seed=5)
    offset, nbytes = tile_place(path, 8)
    content = bytearray(path.read_bytes())
    content[offset + nbytes // 2 : offset + nbytes] = bytes(nbytes - nbytes // 2)
    path.write_bytes(content)
    return path


def the_unit(path: Path, cache_bytes: int = 0, **options: Any) -> tuple[Any, SuperTile]:
    pyramid = open_pyramid(str(path), cache_bytes=cache_bytes)
    (unit,) = plan_tiles(pyramid, where="all", **{"tile_px": EDGE, **options}).start()
    return pyramid, unit


def taken(path: Path, threads: int, out_at_once: int = 1, **options: Any) -> dict[str, Any]:
    """Return everything that a supply gave, by row."""
    pyramid, unit = the_unit(path, **options)
    outcome = new_outcome(unit)
    pixels: dict[int, Any] = {}
    batches: set[tuple[int, ...]] = set()
    held: list[Batch] = []
    with collect() as meter, supplied(pyramid, unit, outcome, batch=BATCH, threads=threads) as supply:
        while (batch := supply.take()) is not None:
            held.append(batch)
            if len(held) == out_at_once:
                for one in held:
                    batches.add(tuple(one.rows.tolist()))
                    pixels.update(zip(one.rows.tolist(), one.pixels.copy(), strict=True))
                    supply.give_back(one)
                held = []
        for one in held:
            batches.add(tuple(one.rows.tolist()))
            pixels.update(zip(one.rows.tolist(), one.pixels.copy(), strict=True))
    return {
        "pixels": pixels,
        "batches": batches,
        "status": outcome.status.tolist(),
        "share": outcome.valid_share.tolist(),
        "damaged": {reason: sorted(rows) for reason, rows in outcome.damaged.items()},
        "meter": meter,
    }


@pytest.mark.parametrize("options", [{}, {"tile_px": 200}, {"tile_px": 200, "halo_px": 20, "cache_bytes": 1 << 26}])
@pytest.mark.parametrize(("threads", "out_at_once"), [(1, 1), (1, 2), (3, 1), (3, 2), (50, 2)])
def test_what_is_supplied_does_not_depend_on_who_decodes(
    slide: Path, threads: int, out_at_once: int, options: dict[str, Any]
) -> None:
    here = taken(slide, 0, **options)
    ahead = taken(slide, threads, out_at_once, **options)
    assert here["pixels"].keys() == ahead["pixels"].keys()
    assert all(np.array_equal(here["pixels"][row], ahead["pixels"][row]) for row in here["pixels"])
    for name in ("batches", "status", "share", "damaged"):
        assert here[name] == ahead[name], name
    assert here["damaged"]


def test_the_figures_of_all_threads_are_those_of_the_task(slide: Path) -> None:
    here, ahead = taken(slide, 0)["meter"], taken(slide, 2)["meter"]
    assert here.counts == ahead.counts
    assert here.seconds.keys() == {"supply", "read", "decode"}
    assert ahead.seconds.keys() == {"supply", "read", "decode", "wait"}


def test_a_buffer_is_not_written_before_it_was_given_back(slide: Path) -> None:
    pyramid, unit = the_unit(slide)
    with supplied(pyramid, unit, new_outcome(unit), batch=2, threads=1) as supply:
        first, second = supply.take(), supply.take()
        assert first is not None
        assert second is not None
        kept = first.pixels.copy(), second.pixels.copy()
        third = supply.take()  # the last of three buffers: the thread waits for one of them now
        assert third is not None
        assert not np.shares_memory(first.pixels, third.pixels)
        supply.give_back(third)
        fourth = supply.take()
        assert fourth is not None
        assert np.shares_memory(third.pixels, fourth.pixels)
        assert np.array_equal(kept[0], first.pixels)
        assert np.array_equal(kept[1], second.pixels)


class Broken(RuntimeError):
    """Not one of ours."""


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_of_the_source_is_raised_by_the_task(
    slide: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid, unit = the_unit(slide)
    read = type(pyramid.source).read_block

    def broken(self: Any, level: int, iy: int, ix: int, out: Any = None) -> Any:
        if (iy, ix) == (4, 4):
            raise Broken("a cable")
        return read(self, level, iy, ix, out)

    monkeypatch.setattr(type(pyramid.source), "read_block", broken)

    def run() -> None:
        with supplied(pyramid, unit, new_outcome(unit), batch=BATCH, threads=threads) as supply:
            while (batch := supply.take()) is not None:
                supply.give_back(batch)

    with pytest.raises(Broken, match="a cable"):
        run()


@pytest.mark.parametrize("threads", [1, 3])
def test_who_leaves_early_leaves_nobody_reading(slide: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid, unit = the_unit(slide)
    read = type(pyramid.source).read_block
    reading: list[str] = []

    def noted(self: Any, level: int, iy: int, ix: int, out: Any = None) -> Any:
        reading.append(threading.current_thread().name)
        return read(self, level, iy, ix, out)

    monkeypatch.setattr(type(pyramid.source), "read_block", noted)
    with supplied(pyramid, unit, new_outcome(unit), batch=1, threads=threads) as supply:
        assert supply.take() is not None
    seen = len(reading)
    assert set(reading) == {"tilestream-decode"}
    assert seen < TILES * TILES
    again = taken(slide, threads)  # with the same buffers
    assert again["status"] == taken(slide, 0)["status"]
    assert len(reading) == seen + 2 * TILES * TILES


def test_where_no_thread_can_be_started_nobody_goes_on_reading(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid, unit = the_unit(slide)
    started: list[Any] = []
    run = HELP.run

    def refuse(work: Any) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(work)
        run(work)

    ended = threading.Event()
    monkeypatch.setattr("tilestream.stream.supply.UnitReader.close", lambda self: ended.set())
    monkeypatch.setattr(HELP, "run", refuse)
    with (
        pytest.raises(RuntimeError, match="new thread"),
        supplied(pyramid, unit, new_outcome(unit), batch=1, threads=2),
    ):
        pass
    assert started
    assert ended.is_set()


class Pinned:
    """Gives memory that can be told from other memory."""

    device = "cuda:0"

    def __init__(self) -> None:
        self.given: list[Any] = []

    def allocate(self, nbytes: int) -> Any:
        self.given.append(np.empty(nbytes, np.uint8))
        return self.given[-1]

    def start(self, batch: Batch) -> Pending:
        raise AssertionError("not called here")


def test_batches_for_a_device_lie_in_its_kind_of_memory_which_is_used_again(slide: Path) -> None:
    pyramid, unit = the_unit(slide)
    pinned = Pinned()

    def run() -> None:  # a thread of its own, since buffers belong to a thread
        for _ in range(2):
            outcome = new_outcome(unit)
            with supplied(pyramid, unit, outcome, batch=4, threads=1, device=pinned) as supply:
                while (batch := supply.take()) is not None:
                    if len(batch.rows) == 4:
                        found.append(any(np.shares_memory(batch.pixels, memory) for memory in pinned.given))
                    supply.give_back(batch)

    found: list[bool] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(found) == 2 * (TILES * TILES // 4 - 1)  # one batch lacks its damaged tile
    assert all(found)
    assert len(pinned.given) <= 3


@pytest.mark.parametrize(
    ("cores", "tasks", "on_device", "threads"),
    [
        (2, 2, False, 0),
        (2, 1, False, 1),
        (1, 1, False, 0),
        (16, 4, False, 3),
        (16, 12, False, 0),
        (64, 1, False, 8),
        (2, 2**62, False, 0),
        (16, 16, True, 1),
        (16, 4, True, 4),
        (2, 8, True, 1),
    ],
)
def test_tasks_and_their_threads_are_no_more_than_the_cores(
    cores: int, tasks: int, on_device: bool, threads: int
) -> None:
    assert decode_threads(cores=cores, tasks=tasks, on_device=on_device) == threads


@pytest.fixture
def short_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilestream.stream.helpthreads.IDLE_S", 0.05)


def test_help_threads_are_used_again_and_end_when_idle(short_idle: None, no_thread_leaks: None) -> None:
    help_threads = HelpThreads()
    names: list[int] = []
    for _ in range(3):
        done = threading.Event()

        def work(done: threading.Event = done) -> None:
            names.append(threading.get_ident())
            done.set()

        help_threads.run(work)
        assert done.wait(10)
    both = threading.Barrier(2)
    for _ in range(2):  # neither waits for the other's end
        help_threads.run(lambda: names.append(both.wait(10)))
