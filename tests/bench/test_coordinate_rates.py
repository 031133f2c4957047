"""The rate that networks of coordinates are decoded at beside torch, at 70 % of its bar, and what int8 costs them."""

import numpy as np
import pytest

from tests.bench.bench_coordinate import DECODE_BAR, compared, decode_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE
from tilestream.codecs.fields.sirenfield import SirenField


@pytest.mark.slow
def test_decoding_beside_torch() -> None:
    row = until_held(lambda: decode_row(SirenField(), edge_px=128, rounds=1, bar=SHARE * DECODE_BAR))
    assert row["ok"], row


def test_fields_are_compared_at_equal_bytes() -> None:
    y, x = np.mgrid[:32, :32] / 32
    pixels = np.stack([120 + 90 * np.sin(9 * x + 4 * y + c) * np.cos(7 * y) for c in range(3)]).astype(np.uint8)
    first, *others = compared(pixels, 0.05)
    assert len(others) == 4
    rates = [float(row["note"].partition(" bpp")[0]) for row in (first, *others)]
    assert all(np.isfinite(row["value"]) for row in (first, *others))
    # the least network there is takes more than a hash field of a picture this small
    assert max(rates[1:]) / min(rates[1:]) < 2.5
