"""That a short fit of the pyramid codec is ahead of JPEG XL on tissue, at 70 % of what was measured."""

from pathlib import Path

import pytest

from tests.bench.bench_pyramid_rd import GAIN_BAR, short_rows
from tests.bench.rd_pictures import CROPS, read_crop

SHARE = 0.7


@pytest.mark.slow
def test_a_short_fit_is_ahead_of_jpeg_xl(shared_data: Path) -> None:
    pytest.importorskip("torch")
    pixels = next(read_crop(crop, shared_data).pixels for crop in CROPS if crop.name == "cmu-small")
    rows = short_rows(pixels, quality=50, steps=300, bar=SHARE * GAIN_BAR)
    assert all(row["ok"] for row in rows), rows
