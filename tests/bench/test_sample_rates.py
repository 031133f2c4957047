"""The token gather at 70 % of its bar, on a small pyramid: below that is no noise."""

import pytest

from tests.bench.bench_sample import BAR, gather_row, tissue_pyramid
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_gather_against_torch() -> None:
    row = until_held(lambda: gather_row(tissue_pyramid(1024), between=True, dtype="float32", rounds=9, bar=SHARE * BAR))
    assert row["ok"], row
