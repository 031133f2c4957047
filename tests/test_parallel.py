import os
import subprocess
import sys
from dataclasses import dataclass
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
        Item("tests/c.py::one"),
        Item(f"{LONG[1]}::x"),
        Item(f"{LONG[0]}::x"),
    ]
    names = [item.nodeid.removeprefix("tests/") for item in in_order([*mixed, *others])]
    long = [f"{path.removeprefix('tests/')}::x" for path in LONG[:2]]
    assert names == [*long, "c.py::one", "a.py::one", "a.py::three", "a.py::two", "b.py::alone"]


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


def test_those_marked_alone_run_last_while_no_other_does(tmp_path: Path) -> None:
    log, mark = tmp_path / "log", "@pytest.mark.alone"
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nmarkers = alone\npythonpath = {REPO}\n")
    for name, count, marked in (("a", 2, True), ("b", 3, False), ("c", 3, False), ("d", 2, True)):
        text = TESTS.format(count=count, mark=mark if marked else "", alone=marked, log=str(log))
        (tmp_path / f"test_{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist", "-n", "2", "-c", "pytest.ini", "."],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert "10 passed" in done.stdout, done.stdout + done.stderr
    rows = [line.split() for line in log.read_text().splitlines()]
    spans = sorted((float(start), float(end), alone == "True") for start, end, alone in rows)
    assert [alone for *_, alone in spans] == [False] * 6 + [True] * 4
    for place, (start, _, alone) in enumerate(spans):
        assert not alone or start >= max(end for _, end, _ in spans[:place])
