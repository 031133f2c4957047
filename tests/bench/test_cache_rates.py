"""What the caches promise, on small images, at 70 % of their bars: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.bench_caches import PEER_BAR, SECOND_BAR, second_row, slow_rows
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import until_held

SHARE = 0.7


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gigapixel(tmp_path_factory.mktemp("caches") / "slide.svs", shape_of(0.03))


@pytest.mark.slow
def test_a_second_encoder_over_the_same_slide(slide: Path) -> None:
    row = until_held(lambda: second_row(slide, rounds=2, bar=SHARE * SECOND_BAR))
    assert row["ok"], row


@pytest.mark.slow
def test_peers_against_a_slow_source(tmp_path: Path) -> None:
    row = until_held(lambda: slow_rows(tmp_path, edge_px=1536, rounds=1, bar=SHARE * PEER_BAR, with_disk=False)[0])
    assert row["ok"], row
