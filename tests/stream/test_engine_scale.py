"""Very many units: what the engine itself does for each stays the same, and no folder is listed for one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.bench_units import NullJob
from tilestream.codecs.place import Place
from tilestream.stream import running, tasks
from tilestream.stream.engine import Engine
from tilestream.stream.journal import Journal
from tilestream.stream.work import once
from tilestream.types import Receipt


class Done:
    """A future that is done."""

    status = "finished"

    def __init__(self, result: Any) -> None:
        self._result = result

    def result(self) -> Any:
        return self._result

    def add_done_callback(self, call: Callable[[Done], None]) -> None:
        call(self)


class Inline:
    """A cluster that does each task as it is submitted, so that only the engine is left."""

    status = "running"

    def __init__(self) -> None:
        self.submitted: Counter[str] = Counter()

    def nthreads(self) -> dict[str, int]:
        return {"here": 2}

    def scheduler_info(self) -> dict[str, Any]:
        return {"workers": {}}

    def submit(self, guard: Callable[..., Any], *arguments: Any, key: str, **_: Any) -> Done:
        self.submitted[key.split("-")[1]] += 1
        return Done(guard(*arguments))

    def cancel(self, *_: Any, **__: Any) -> None:
        pass


def seconds_a_unit(n: int, folder: Path) -> float:
    client: Any = Inline()
    start = time.process_time()
    Engine(client, lambda _: None).run([NullJob(folder, n)])
    spent = time.process_time() - start
    units = client.submitted.pop("unit")
    assert n / running.MOST_UNITS <= units <= n  # at most a task a super-tile
    assert client.submitted == {"prepare": 1, "finish": 1}
    return spent / n


def test_a_unit_of_many_costs_the_engine_what_a_unit_of_few_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "report_life", lambda: None)  # there is no worker
    monkeypatch.setattr(tasks, "_fetched", lambda done, _: done.result())
    seconds_a_unit(500, tmp_path)
    assert min(seconds_a_unit(20_000, tmp_path) for _ in range(2)) < 3 * seconds_a_unit(2000, tmp_path)


def test_no_unit_looks_through_the_folder_of_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(root=tmp_path / "receipts", recipe="r")
    journal.open({})

    def refuse(self: Place, pattern: str = "*") -> list[str]:
        raise AssertionError(f"{self.url} was listed")

    monkeypatch.setattr(Place, "names", refuse)
    for number in range(3):
        receipt = Receipt(key=f"L0-y0-x{number}", recipe="r", outputs={}, tiles=1)
        once(journal, receipt.key, lambda receipt=receipt: journal.commit(receipt) or receipt)
    with pytest.raises(AssertionError, match="listed"):
        journal.receipts()
