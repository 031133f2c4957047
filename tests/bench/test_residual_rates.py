"""A residual takes no more bytes than the usual way, on two small tiles; the whole panel is for `make bench`."""

from __future__ import annotations

import pytest

from tests.bench.bench_residual import BAR, ERRORS, SMALL, size_row, tiles


@pytest.mark.parametrize("max_error", ERRORS)
def test_a_residual_is_no_larger_than_steps_and_jpeg_xl(shared_data, max_error):
    row = size_row(SMALL, tiles(SMALL, most=2), max_error)
    assert tuple(row["bar"]) == BAR
    assert row["ok"], row
