"""The rate that stain separation is promised at, at 70 % of its bar: below that is no noise."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from tests.bench.bench_stain import SEPARATION_BAR, picture, separation_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


def measured() -> dict[str, Any]:
    return separation_row(picture(1024), rounds=3, bar=SHARE * SEPARATION_BAR)


@pytest.mark.slow
def test_stain_separation_beside_numpy() -> None:
    # in a process of its own: where much was allocated and freed before, NumPy's temporaries cost it half as much
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        row = until_held(lambda: pool.submit(measured).result())
    assert row["ok"], row
