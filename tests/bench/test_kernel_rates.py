"""The rate that kernels are promised at, at 70 % of its bar: below that is no noise."""

import pytest

from tests.bench.bench_kernels import DESCRIPTORS_BAR, descriptors_row, tissue_batch
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_descriptors_on_two_threads() -> None:
    row = until_held(lambda: descriptors_row(tissue_batch(), threads=2, rounds=3, bar=SHARE * DESCRIPTORS_BAR))
    assert row["ok"], row
