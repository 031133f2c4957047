"""The rate that decoding a field is promised at, at 70 % of its bar: below that is no noise."""

import pytest

from tests.bench.bench_hash import DECODE_BAR, decode_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_decoding_beside_torch() -> None:
    row = until_held(lambda: decode_row(edge_px=512, bar=SHARE * DECODE_BAR, is_brief=True))
    assert row["ok"], row
