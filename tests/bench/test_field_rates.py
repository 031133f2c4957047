"""The rate that a fit is promised at, at 70 % of its bar, and its bytes beside JPEG: below that is no noise."""

import numpy as np
import pytest

from tests.bench.bench_field import FIT_BAR, fit_row, rate_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_a_step_of_a_fit_beside_torch() -> None:
    row = until_held(lambda: fit_row(batch_px=1 << 14, rounds=1, bar=SHARE * FIT_BAR))
    assert row["ok"], row


def test_bytes_of_a_field_beside_jpeg() -> None:
    """On a picture that JPEG is good at, so that what is asked for is no more than to be near."""
    y, x = np.mgrid[:64, :64] / 64
    noise = np.random.default_rng(0).normal(0, 0.02, (3, 64, 64))
    pixels = np.clip(0.5 + 0.3 * np.sin(9 * x + 4 * y) * np.cos(7 * y) + noise, 0, 1)
    row = rate_row(np.rint(pixels * 255).astype(np.uint8), 55, steps=120, bar=-6.0)
    assert row["ok"], row
