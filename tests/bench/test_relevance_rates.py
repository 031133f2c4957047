"""The rate that relevance is promised at, at 70 % of its bar: below that is no noise."""

import pytest

from tests.bench.bench_entropy import tissue
from tests.bench.bench_relevance import ENTROPY_BAR, entropy_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_entropy_of_a_look_against_its_kernel() -> None:
    image = tissue(1024)
    row = until_held(lambda: entropy_row(image, rounds=3, bar=SHARE * ENTROPY_BAR))
    assert row["ok"], row
