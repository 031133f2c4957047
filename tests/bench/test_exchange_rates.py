"""The ratios of vectors that are read, small and at 70 % of their bar: below that is no noise."""

from __future__ import annotations

import pytest

from tests.bench.bench_exchange import BAR, read_rows_of
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_vectors_are_read_faster_than_from_chunks_of_one_row(tmp_path):
    attempts = iter(range(9))
    rows = until_held(
        lambda: read_rows_of(tmp_path / str(next(attempts)), tiles=4000, dim=768, rounds=3, bar=SHARE * BAR)
    )
    assert all(row["ok"] for row in rows), rows
