"""Tiles are copied at the speed of memory; how that compares with a disk's is for `make bench`."""

from __future__ import annotations

import pytest

from tests.bench.bench_archive import SAVED_BAR, copy_row, jpegxl_rows, splice_row, write_whole_slide
from tests.bench.gigapixel import shape_of
from tests.bench.table import until_held


@pytest.mark.slow
def test_tiles_are_spliced_at_the_speed_of_memory(tmp_path):
    slide = write_whole_slide(tmp_path / "slide.svs", shape_of(0.2))
    row = until_held(lambda: splice_row(slide, rounds=1))
    assert row["ok"], row


def test_the_row_of_copied_tiles_is_made(tmp_path):
    row = copy_row(write_whole_slide(tmp_path / "slide.svs", shape_of(0.01)), tmp_path, rounds=1, bar=0)
    assert row["ok"]
    assert row["ratio"] > 0


def test_jpeg_xl_saves_what_is_said_of_a_real_slide(shared_data):
    saved, *rates = jpegxl_rows(shared_data / "slides" / "CMU-1-Small-Region.svs", rounds=1)
    assert saved["bar"][0] == SAVED_BAR
    assert saved["ok"], saved
    assert all(row["value"] > 0 for row in rates)
