"""That a coarser level of a field costs its pixels, at 70 % of the bar of the benchmark."""

import pytest

from tests.bench.bench_fieldstore import LEVEL_BAR, level_rows, save_field_store
from tests.bench.table import until_held

SHARE = 0.7


@pytest.mark.alone
def test_a_coarser_level_costs_its_pixels(tmp_path):
    save_field_store(tmp_path / "a.zarr", tile_px=128, repeats=2, steps=1)
    rows = until_held(lambda: level_rows(tmp_path / "a.zarr", rounds=1, bar=SHARE * LEVEL_BAR))
    assert all(row["ok"] for row in rows), rows
