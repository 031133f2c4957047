"""The rate that stain separation is promised at, at 70 % of its bar: below that is no noise."""

import pytest

from tests.bench.bench_stain import SEPARATION_BAR, picture, separation_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_stain_separation_beside_numpy() -> None:
    row = until_held(lambda: separation_row(picture(1024), rounds=3, bar=SHARE * SEPARATION_BAR))
    assert row["ok"], row
