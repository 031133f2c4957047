"""What a budget saves, on a small slide and at 70 % of its bars: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.bench_budget import budget_rows
from tests.bench.table import until_held
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.mark.slow
def test_a_budget_beside_the_whole_slide(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "slide.svs", Shape(y=5000, x=5000), seed=3)
    turns = iter(range(10))

    def measure() -> list[dict[str, object]]:
        folder = tmp_path / f"{next(turns)}"
        folder.mkdir()
        return budget_rows(slide, folder, rounds=1, slack=0.7)

    for row in until_held(measure):
        assert row["ok"], row
