"""What learned downsampling gains and how fast filters are, at 70 % of their bars: below that is no noise."""

import pytest

from tests.bench.bench_downsample import filter_rows, has_slides, learned_rows
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
@pytest.mark.skipif(not has_slides(), reason="the slides are not here")
def test_a_short_training_beats_lanczos_already() -> None:
    gain, _, small, _ = learned_rows(1, steps=1200, share=SHARE)  # 25 s of one core: no time is judged
    assert gain["ok"], gain
    assert small["ok"], small


@pytest.mark.slow
def test_a_lanczos_level_against_pillow() -> None:
    rows = until_held(lambda: filter_rows(2048, share=SHARE))
    assert all(row["ok"] is not False for row in rows), rows
