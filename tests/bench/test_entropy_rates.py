"""The rate that tile entropy is promised at, at 70 % of its bar: below that is no noise."""

import numpy as np
import pytest

from tests.bench.bench_entropy import ENTROPY_BAR, entropy_row, tissue
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_tile_entropy_against_bincount() -> None:
    plane = np.ascontiguousarray(tissue(2048)[..., 1])
    row = until_held(lambda: entropy_row("one channel of tissue", plane, threads=None, bar=SHARE * ENTROPY_BAR))
    assert row["ok"], row
