"""What a budget saves, on small slides and at 70 % of its bars: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.bench_budget import read_rows, speed_rows
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import until_held
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.mark.slow
def test_a_budget_saves_time(tmp_path: Path) -> None:
    slide = write_gigapixel(tmp_path / "slide.svs", shape_of(0.2))
    turns = iter(range(10))
    found = until_held(lambda: speed_rows(slide, tmp_path / f"{next(turns)}", rounds=1, slack=0.7))
    for row in found:
        assert row["ok"], row


@pytest.mark.slow
def test_a_budget_saves_bytes(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.svs", Shape(y=3000, x=3000), seed=3)
    for row in read_rows(slide, tmp_path / "out", slack=0.7):
        assert row["ok"], row
