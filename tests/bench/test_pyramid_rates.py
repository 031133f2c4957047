"""The rates that decoding a pyramid is promised at beside torch, at 70 % of their bars: below that is no noise."""

import pytest

from tests.bench.bench_pyramid import grids_rows, synthesis_rows
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
@pytest.mark.parametrize("measure", [grids_rows, synthesis_rows])
def test_decoding_beside_torch(measure) -> None:
    row = until_held(lambda: measure(edge_px=256, rounds=1, share=SHARE)[1])
    assert row["ratio"] is not None
    assert row["ok"], row
