"""The ratios that users are promised, on a small slide, at 70 % of their bars: below that is no noise."""

from itertools import count
from pathlib import Path

import pytest

from tests.bench.bench_supply import NULL_BAR, SUPPLY_BAR, null_row, supply_row
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import until_held

SHARE = 0.7


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gigapixel(tmp_path_factory.mktemp("ratios") / "slide.svs", shape_of(0.25))


@pytest.mark.slow
def test_supply_against_openslide(slide: Path) -> None:
    row = until_held(lambda: supply_row(slide, units=2, rounds=3, bar=SHARE * SUPPLY_BAR))
    assert row["ok"], row


@pytest.mark.slow
def test_null_pipeline_against_the_bare_decoder(slide: Path) -> None:
    row = until_held(lambda: null_row(slide, rounds=3, bar=SHARE * NULL_BAR))
    assert row["ok"], row


@pytest.mark.slow
def test_embed_against_the_null_pipeline(slide: Path, tmp_path: Path) -> None:
    from tests.bench.bench_embed import EMBED_BAR, embed_row

    turns = count()

    def measure() -> object:
        folder = tmp_path / f"{next(turns)}"
        folder.mkdir()
        return embed_row(slide, folder, rounds=2, bar=SHARE * EMBED_BAR)

    row = until_held(measure)
    assert row["ok"], row
