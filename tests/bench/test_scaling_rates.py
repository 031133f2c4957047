"""Two workers beside one at 70 % of the bar, and super-tiles that leave nothing behind."""

import os
from pathlib import Path

import pytest

from tests.bench.bench_scaling import scaling_rows
from tests.bench.bench_units import unit_rows
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_two_workers_beside_one_on_unequal_slides(tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    number = iter(range(3))

    def measure() -> list[dict[str, object]]:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        return scaling_rows(folder, (0.2, 0.02, 0.08), rounds=1, share=SHARE)

    rows = until_held(measure)
    assert all(row["ok"] for row in rows), rows


@pytest.mark.slow
def test_super_tiles_leave_nothing_behind() -> None:
    # a unit, a receipt or the work that was kept would be more than twice this
    rows = until_held(lambda: unit_rows(2000, growth_bytes=2000))
    assert all(row["ok"] for row in rows), rows
