"""The ratios of cohorts and of the training feed, small and at 70 % of their bars: below that is no noise."""

from __future__ import annotations

import pytest

from tests.bench.bench_cohort import FEED_BAR, OPEN_BAR, OPEN_MB, feed_row, open_row, process_rows
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE
from tests.madecohort import make_many


@pytest.mark.slow
def test_a_cohort_is_opened_at_once_and_stays_small(tmp_path):
    folder = make_many(tmp_path / "out", 300, tiles=2500, dim=256)
    row = until_held(lambda: open_row(folder, rounds=1, bar=SHARE * OPEN_BAR, looped=10))
    assert row["ok"], row
    _, memory = process_rows(folder)
    assert memory["value"] < OPEN_MB, memory


@pytest.mark.slow
def test_the_training_feed_against_a_data_loader(tmp_path):
    slide = write_gigapixel(tmp_path / "slide.svs", shape_of(0.1))
    row = until_held(lambda: feed_row(slide, tiles=768, rounds=1, bar=SHARE * FEED_BAR))
    assert row["ok"], row
