"""Plans of tokens beside the kernel's cut alone at 70 % of the bar: below that is no noise."""

import pytest

from tests.bench.bench_plan import CUT_BAR, cut_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE

pytestmark = [pytest.mark.alone, pytest.mark.slow]


def test_a_plan_is_little_more_than_its_cut() -> None:
    row = until_held(lambda: cut_row(bar=SHARE * CUT_BAR, rounds=3))
    assert row["ok"], row
