"""Fixtures and switches that every test may use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# hooks and fixtures for all tests
from tests.parallel import RATES, in_order
from tests.parallel import pytest_runtest_protocol as pytest_runtest_protocol
from tests.parallel import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler
from tests.servers import http_server as http_server
from tests.servers import s3 as s3
from tests.servers import s3_environment as s3_environment
from tests.servers import s3_server as s3_server

MEMORY, LEAST_BYTES = Path("/dev/shm"), 4 << 30
"""A file system in memory, and how much room it must have: every file that we write is synced, which disks take most of
the time of the tests for."""


def has_room(folder: Path) -> bool:
    """Return whether temporary files of tests can be there."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return False
    facts = os.statvfs(folder)
    return facts.f_bavail * facts.f_frsize >= LEAST_BYTES and not facts.f_flag & os.ST_NOEXEC


if has_room(MEMORY):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))  # read when the first of them is made

IN_CI = bool(os.environ.get("CI"))
REPO = Path(__file__).resolve().parents[1]

# deadline=None: the first example of a compiled kernel pays for its compilation
settings.register_profile(
    "default", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("ci", parent=settings.get_profile("default"), max_examples=60, derandomize=True)
# for a second run on other libraries, which rarely turn on an example: make test-new
settings.register_profile("brief", parent=settings.get_profile("ci"), max_examples=15)
# Numba's CUDA simulator runs a thread of a kernel in a millisecond
settings.register_profile("simulator", parent=settings.get_profile("ci"), max_examples=4)
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
if SIMULATED and hasattr(os, "sched_setaffinity"):
    # its threads take turns: on one core none has to wake another core, which takes three times as long
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
settings.load_profile("simulator" if SIMULATED else "ci" if IN_CI else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", default=IN_CI, help="also run tests marked slow")
    parser.addoption("--runnetwork", action="store_true", default=False, help="also run tests marked network")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark, option in (("slow", "--runslow"), ("network", "--runnetwork")):
        if config.getoption(option):
            continue
        for item in items:
            if mark in item.keywords:
                item.add_marker(pytest.mark.skip(reason=f"needs {option}"))
    for item in items:
        if item.path.name.endswith(RATES) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(600))  # a rate that is missed waits for the others, then is tried again
    items[:] = in_order(items)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images; without it tests are skipped, but fail where CI is set."""
    folder = Path(os.environ.get("TILESTREAM_DATA") or REPO.parent / "shared" / "data")
    if (folder / "SHA256SUMS").is_file():
        return folder
    message = f"no real images at {folder}: set TILESTREAM_DATA to the folder that holds SHA256SUMS"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def no_thread_leaks() -> Iterator[None]:
    """Fail when the test leaves threads behind that were not there before."""
    before = set(threading.enumerate())
    yield
    stop = time.monotonic() + 5
    while left := [t for t in threading.enumerate() if t not in before and t.is_alive()]:
        if time.monotonic() > stop:
            pytest.fail(f"threads left running: {left}")
        time.sleep(0.02)


@pytest.fixture
def no_file_leaks() -> Iterator[None]:
    """Fail when the test leaves regular files open that were not open before."""
    import psutil  # not on every machine that only tests kernels

    process = psutil.Process()
    before = {file.path for file in process.open_files()}
    yield
    left = {file.path for file in process.open_files()} - before
    if left:
        pytest.fail(f"files left open: {sorted(left)}")
