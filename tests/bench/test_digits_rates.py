"""What the digits are promised to show, on a small canvas with more of them, at 70 % of the bars."""

from typing import Any

import pytest

from tests.bench.baselines import BUDGETS, FULL, LEARNED, STAGED, THUMBNAIL, TREE, lattice
from tests.bench.bench_digits import digits_rows, summary_of
from tests.bench.digits_measure import TIMED
from tests.bench.digits_seed import Size
from tests.bench.digits_table import SHOWN, Summary, markdown, write
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE

pytest.importorskip("sklearn")
SMALL = Size(
    test=(2, 2), tune=(1, 2), train=(1, 2), most_targets=20, epochs=4, scorer_epochs=6, fields=16, field_epochs=1
)


@pytest.fixture(scope="module")
def summary() -> Summary:
    found = []

    def measure() -> list[dict[str, Any]]:
        found.append(summary_of([0], SMALL, processes=1))
        return bars(found[-1])

    until_held(measure, attempts=2)  # nothing but the time comes out otherwise
    return found[-1]


def bars(summary: Summary) -> list[dict[str, Any]]:
    """Rows with bars but that of accuracy, of which four answers say too little."""
    rows = [row for row in digits_rows(summary, share=SHARE) if row["ok"] is not None]
    assert len(rows) == 4
    return [row for row in rows if "accuracy" not in row["name"]]


@pytest.mark.slow
def test_bars_are_held(summary: Summary) -> None:
    rows = bars(summary)
    assert len(rows) == 3
    assert [row for row in rows if not row["ok"]] == []
    assert summary.lost(LEARNED, TIMED).mean <= 100 / 4  # an answer


@pytest.mark.slow
def test_all_ways_are_measured_by_the_same_rules(summary: Summary) -> None:
    assert {*summary.ways} == {*SHOWN}
    for way in summary.ways:
        recalls = [summary.of(way, share, "recall").mean for share in BUDGETS]
        assert way == LEARNED + TREE or recalls == sorted(recalls)
        assert recalls[2] <= summary.of(LEARNED, TIMED, "recall").mean
    assert summary.of(FULL, 1.0, "pixels").mean == summary.of(STAGED, TIMED, "pixels").mean == 1.0
    assert summary.of(THUMBNAIL, 0.0, "pixels").mean < 0.005
    assert 0.1 <= summary.of("uniform", TIMED, "pixels").mean + 1e-3 < 0.105


@pytest.mark.slow
def test_table_and_plot_are_written(summary: Summary, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    paths = write(summary, tmp_path / "results", "About.")
    assert all(path.stat().st_size for path in paths)
    assert markdown(summary).count("\n") == 1 + 2 + len(summary.ways) * len(BUDGETS)


def test_a_lattice_spreads_any_number_of_cells() -> None:
    scores = lattice((16, 16))
    for count, apart in ((4, 8), (16, 4), (64, 2)):
        chosen = scores >= sorted(scores.ravel())[-count]
        blocks = chosen.reshape(16 // apart, apart, 16 // apart, apart).sum((1, 3))
        assert (blocks == 1).all()
