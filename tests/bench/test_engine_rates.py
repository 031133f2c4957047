"""What the engine may cost, on a small slide and at 70 % of its bar: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.bench_engine import OVERHEAD_BAR, overhead_row, whole_tiles
from tests.bench.gigapixel import write_gigapixel
from tests.bench.table import until_held


@pytest.mark.slow
def test_the_engine_against_a_bare_loop(tmp_path: Path) -> None:
    slide = write_gigapixel(tmp_path / "slide.svs", whole_tiles(0.06))
    turns = iter(range(10))

    def measure() -> object:
        folder = tmp_path / f"{next(turns)}"
        folder.mkdir()
        return overhead_row(slide, folder, rounds=2, bar=0.7 * OVERHEAD_BAR)

    row = until_held(measure)
    assert row["ok"], row
