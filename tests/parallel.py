"""How tests share the machine where several processes run them (pytest-xdist, `make test`).

A file is run by one process, so that what its tests share is made once and most kernels are compiled by one process.
Long files start first, those that measure rates come near the end: a rate that is missed in company is measured again
`by_itself`. What would measure nothing in company is marked `alone`: it runs last, while no other test does, and with
it the rest of its file.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LONG = ("tests/kernels/test_simulator.py", "tests/kernels/test_compile.py", "tests/pipelines/test_main_job.py")
"""Files that take minutes: begun last they would be waited for."""
RATES = ("_rates.py", "test_ratios.py")
"""Files that end so measure time beside rivals."""
MAIN_JOB = "tests/pipelines/test_main_"
"""Files with this prefix look at one run of the main job, so one process takes them."""


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests: long files first, then others in order, rates, and files with tests marked `alone` last."""
    waiting = {
        _file(item.nodeid) for item in items if "alone" in item.keywords
    }  # for minutes, were they handed out early

    def place(item: pytest.Item) -> tuple[bool, bool, bool, int]:
        path = _file(item.nodeid)
        rank = LONG.index(path) if path in LONG else len(LONG)
        return "alone" in item.keywords, path in waiting, path.endswith(RATES), rank

    return sorted(items, key=place)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return a scheduler that hands out files in the order of their collection."""
    from xdist.scheduler import LoadScopeScheduling

    class FilesInOrder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return MAIN_JOB if nodeid.startswith(MAIN_JOB) else _file(nodeid)

    config.option.loadscopereorder = False  # which goes by numbers of tests, and these say nothing of time
    return FilesInOrder(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around the clock of pytest-timeout: no test pays for its waiting
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Run a test marked `alone` while the other processes wait."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with _turn(item.config, alone="alone" in item.keywords):
        return (yield)


@contextmanager
def _turn(config: pytest.Config, *, alone: bool) -> Iterator[None]:
    """Hold the room, with others or alone."""
    room, door = _locks(config.inipath or config.rootpath, config.rootpath)
    _enter(room, door, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    _company.extend([] if alone else [(room, door)])
    try:
        yield
    finally:
        _company.clear()
        fcntl.flock(room, fcntl.LOCK_UN)


def _enter(room: int, door: int, how: int) -> None:
    """Take the room. Who waits for it keeps the door shut, so that nobody overtakes."""
    fcntl.flock(door, fcntl.LOCK_EX)
    try:
        fcntl.flock(room, how)
    finally:
        fcntl.flock(door, fcntl.LOCK_UN)


_company: list[tuple[int, int]] = []
"""The locks of the test that runs in this process while others do."""


@contextmanager
def by_itself() -> Iterator[None]:
    """Have the rest of the running test wait for the others and hold them off; nothing where it has no company."""
    for room, door in _company:
        fcntl.flock(room, fcntl.LOCK_UN)  # first, or two who want this would wait for each other
        _enter(room, door, fcntl.LOCK_EX)
    try:
        yield
    finally:
        for room, _ in _company:
            fcntl.flock(room, fcntl.LOCK_SH)


@cache
def _locks(room: Path, door: Path) -> tuple[int, int]:
    """Return descriptors that stand for room and door; the system lets go of them when a process dies.

    They are those of the run: one that a test starts in a folder of its own waits for nobody outside it.
    """
    return os.open(room, os.O_RDONLY), os.open(door, os.O_RDONLY)
