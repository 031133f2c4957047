"""The ratios that export is promised at, at 70 % of their bars: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench import bench_export
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_export_against_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_export, "EDGE_PX", 3072)
    slide = write_slide(tmp_path / "slide.svs", Shape(y=3072, x=3072), tile_px=256)
    rows = until_held(lambda: bench_export.export_rows(slide, tmp_path, rounds=2, share=SHARE))
    assert all(row["ok"] is not False for row in rows), rows
