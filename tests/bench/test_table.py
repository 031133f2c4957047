import json
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.bench import table
from tests.bench.run import facts, modules, write
from tests.bench.table import TURN_S, at_least, make_row, markdown, rates, until_held


@pytest.mark.parametrize(("value", "ok"), [(500.0, True), (499.0, False)])
def test_a_ratio_is_judged_by_its_bar(value: float, ok: bool) -> None:
    row = make_row("supply", value, "tiles/s", rival=("other", 100.0), bar=at_least(5))
    assert row["ok"] is ok
    assert row["ratio"] == value / 100


@pytest.mark.parametrize(("value", "ok"), [(84.0, False), (100.0, True), (116.0, False)])
def test_a_band_has_two_ends(value: float, ok: bool) -> None:
    assert make_row("memory", value, "MB", rival=("median", 100.0), bar=(0.85, 1.15))["ok"] is ok


def test_without_a_rival_the_value_is_judged() -> None:
    assert make_row("kernels", 299.0, "Mpx/s", bar=at_least(300))["ok"] is False
    assert make_row("kernels", 1.0, "Mpx/s")["ok"] is None


def test_rates_take_turns() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        time.sleep(TURN_S)
        return 1.0

    found = rates([lambda: contestant("a"), lambda: contestant("b")], rounds=3)
    assert order == ["a", "b"] * 3
    assert all(0 < rate <= 1 / TURN_S for rate in found)


def test_what_is_done_soon_is_done_again() -> None:
    calls: list[float] = []

    def contestant() -> float:
        calls.append(time.sleep(TURN_S / 10) or 1.0)
        return 1.0

    (rate,) = rates([contestant], rounds=1)
    assert len(calls) > 1
    assert 0 < rate <= 10 / TURN_S


def test_table_is_written_with_what_it_takes_to_judge_it(tmp_path: Path) -> None:
    about = facts()
    path = write([make_row("supply", 10.0, "tiles/s", rival=("other", 5.0), bar=at_least(3))], about, tmp_path)
    assert "| supply | 10 tiles/s | 5 tiles/s (other) | 2.00 | ≥ 3 | **no** |" in path.read_text()
    stored = json.loads(path.with_suffix(".json").read_text())
    assert stored["about"] == about
    assert stored["about"]["versions"]["openslide-bin"]
    assert stored["rows"][0]["bar"] == [3, None]


def test_each_benchmark_is_found() -> None:
    assert {"supply", "memory"} <= set(modules())
    assert markdown([]).count("\n") == 2


@pytest.mark.parametrize(("values", "calls"), [([1.0], 1), ([0.1, 0.1, 1.0], 3), ([0.1] * 9, 6)])
def test_a_missed_bar_is_measured_again(values: list[float], calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "by_itself", nullcontext)  # which would wait for the longest test of all
    left = iter(values)
    row = until_held(lambda: make_row("x", next(left), "Mpx/s", bar=at_least(1)))
    assert row["ok"] is (1.0 in values)
    assert len(values) - len(list(left)) == calls
