"""What the allocator is promised to do, at 70 % of its bars: below that is no noise."""

import pytest

from tests.bench.bench_allocate import (
    HEAP_BAR,
    QUALITY_BAR,
    heap_row,
    quality_row,
)
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_against_a_heap() -> None:
    row = until_held(lambda: heap_row(rounds=3, bar=SHARE * HEAP_BAR))
    assert row["ok"], row


@pytest.mark.slow
def test_near_the_optimum() -> None:
    row = quality_row("relevance", bar=QUALITY_BAR)  # no matter of speed
    assert row["ok"], row
