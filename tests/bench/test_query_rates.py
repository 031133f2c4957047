"""A query against a table at 70 % of its bars, on a small one."""

import pytest

from tests.bench.bench_query import NUMPY_BAR, TORCH_BAR, query_rows
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE

pytestmark = [pytest.mark.alone, pytest.mark.slow]


def test_a_query_against_numpy_and_torch() -> None:
    bars = SHARE * NUMPY_BAR, SHARE * TORCH_BAR
    rows = until_held(lambda: query_rows(60_000, rounds=3, bars=bars))
    assert all(row["ok"] for row in rows), rows
