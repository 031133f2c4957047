"""The rates that networks are promised at, at 70 % of their bars: below that is no noise."""

import pytest

from tests.bench.bench_networks import TIMM_BAR, WINDOW_BAR, mvit_row, windowed_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE

pytest.importorskip("torch")


@pytest.mark.slow
def test_mvit_beside_timms() -> None:
    row = until_held(lambda: mvit_row(1, rounds=3, bar=SHARE * TIMM_BAR))
    assert row["ok"] is not False, row


@pytest.mark.slow
def test_windows_beside_attention_over_all() -> None:
    row = until_held(lambda: windowed_row(48, rounds=3, bar=SHARE * WINDOW_BAR))
    assert row["ok"], row
