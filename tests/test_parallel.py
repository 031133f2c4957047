import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.parallel import LONG, in_order

REPO = Path(__file__).resolve().parents[1]


@dataclass
class Item:
    nodeid: str
    keywords: tuple[str, ...] = ()


def test_long_files_begin_and_whoever_waits_for_all_others_ends() -> None:
    """A file is handed out with its first test: where one of it is alone, all wait for it or it for all."""
    mixed = [Item("tests/a.py::one"), Item("tests/a.py::two", ("alone",)), Item("tests/a.py::three")]
    others = [
        Item("tests/b.py::alone", ("alone",)),
        Item("tests/bench/a_rates.py::one"),
        Item("tests/c.py::one"),
        Item(f"{LONG[1]}::x"),
        Item(f"{LONG[0]}::x"),
    ]
    names = [item.nodeid.removeprefix("tests/") for item in in_order([*mixed, *others])]
    long = [f"{path.removeprefix('tests/')}::x" for path in LONG[:2]]
    assert names == [
        *long,
        "c.py::one",
        "bench/a_rates.py::one",
        "a.py::one",
        "a.py::three",
        "a.py::two",
        "b.py::alone",
    ]


CONFTEST = """
from tests.parallel import in_order, pytest_runtest_protocol, pytest_xdist_make_scheduler
def pytest_collection_modifyitems(items): items[:] = in_order(items)
"""
TESTS = """
import time, pytest
@pytest.mark.parametrize("n", range({count}))
{mark}
def test_takes_a_moment(n, request):
    start = time.monotonic()
    time.sleep(0.05)
    with open({log!r}, "a") as log:
        log.write(f"{{start}} {{time.monotonic()}} {alone}\\n")
"""


def run(tmp_path: Path, passed: int) -> list[tuple[float, float, bool]]:
    """Run the tests of the folder in two processes and return the spans that they logged, in order."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nmarkers = alone\npythonpath = {REPO}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2", "-c", "pytest.ini", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    return sorted((float(start), float(end), alone == "True") for start, end, alone in rows)


def test_those_marked_alone_run_last_while_no_other_does(tmp_path: Path) -> None:
    log, mark = tmp_path / "log", "@pytest.mark.alone"
    for name, count, marked in (("a", 2, True), ("b", 3, False), ("c", 3, False), ("d", 2, True)):
        text = TESTS.format(count=count, mark=mark if marked else "", alone=marked, log=str(log))
        (tmp_path / f"test_{name}.py").write_text(text)
    spans = run(tmp_path, passed=10)
    assert [alone for *_, alone in spans] == [False] * 6 + [True] * 4
    for place, (start, _, alone) in enumerate(spans):
        assert not alone or start >= max(end for _, end, _ in spans[:place])


AGAIN = """
import time, pytest
from tests.parallel import by_itself
@pytest.mark.parametrize("n", range(2))
def test_is_measured_again(n):
    for alone in (False, True, False):
        with by_itself() if alone else open({log!r}):
            start = time.monotonic()
            time.sleep(0.1)
            with open({log!r}, "a") as log:
                log.write(f"{{start}} {{time.monotonic()}} {{alone}}\\n")
"""


def test_a_test_that_goes_on_by_itself_has_no_company(tmp_path: Path) -> None:
    """In two processes at once, which neither wait for each other for ever nor overlap while one is by itself."""
    (tmp_path / "log").touch()
    for name in "ab":
        (tmp_path / f"test_{name}.py").write_text(AGAIN.format(log=str(tmp_path / "log")))
    spans = run(tmp_path, passed=4)
    for start, end, _ in (span for span in spans if span[2]):
        assert all(e <= start or s >= end for s, e, _ in spans if (s, e) != (start, end))
    assert any(a[1] > b[0] for a, b in pairwise(spans)), "they never met: nothing was tried"
