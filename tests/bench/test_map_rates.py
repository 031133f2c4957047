"""What maps are promised, on a smaller slide, at 70 % of their bars."""

from itertools import count
from pathlib import Path

import pytest

from tests.bench.bench_map import MAP_BAR, map_row
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE


@pytest.mark.slow
def test_a_filter_beside_a_bare_loop(tmp_path: Path) -> None:
    slide = write_gigapixel(tmp_path / "slide.svs", shape_of(0.2))
    turns = count()

    def measure() -> object:
        folder = tmp_path / f"{next(turns)}"  # in the same one the map would be there already
        folder.mkdir()
        return map_row(slide, folder, stage="green", rounds=2, bar=SHARE * MAP_BAR)

    row = until_held(measure)
    assert row["ok"], row
