"""What stores of fields are promised, on a small picture, at 70 % of the bar."""

from itertools import count
from pathlib import Path

import pytest

from tests.bench.bench_compress import ENGINE_BAR, engine_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE
from tilestream.types import Shape


@pytest.mark.slow
def test_the_engine_beside_a_bare_loop_of_fits(tmp_path: Path) -> None:
    turns = count()

    def measure() -> object:
        folder = tmp_path / f"{next(turns)}"
        folder.mkdir()
        shape = Shape(y=256, x=384)
        return engine_row(folder, shape=shape, tile_px=128, steps=60, rounds=1, bar=SHARE * ENGINE_BAR)

    row = until_held(measure)
    assert row["ok"], row
