"""What quantised fields are promised to lose at most, on a small picture, with bars 1/0.7 as wide."""

import numpy as np
import pytest

from tests.bench.bench_quantised import bytes_rows, loss_rows
from tests.bench.test_ratios import SHARE


def picture(edge_px: int) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(3, edge_px + 4, edge_px + 4))
    means = np.lib.stride_tricks.sliding_window_view(noise, (5, 5), axis=(1, 2)).mean((3, 4))
    return np.clip(128 + 200 * means, 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_bits_that_are_missing() -> None:
    for row in loss_rows(picture(64), steps=150, log2_table=10, slack=SHARE):
        assert row["ok"], row


@pytest.mark.slow
def test_bytes_beside_zstd() -> None:
    for row in bytes_rows(picture(128), steps=60, slack=SHARE):
        assert row["ok"], row
