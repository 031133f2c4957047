"""What ingest is promised beside the peers' own packages, on smaller slides, at 70 % of its bars."""

from pathlib import Path

import pytest

from tests.bench.bench_archive import write_whole_slide
from tests.bench.bench_ingest import archive_rows, open_rows, portable_rows, update_row
from tests.bench.table import until_held
from tests.bench.test_ratios import SHARE
from tilestream.types import Shape


def make_slide(folder: Path, px: int) -> Path:
    return write_whole_slide(folder / "slide.svs", Shape(y=px, x=px))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the peers
def test_portable_stores_beside_the_peers(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, 8000)
    rows = until_held(lambda: portable_rows(slide, tmp_path, px=8000, share=SHARE))
    assert all(row["ok"] is not False for row in rows), rows


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_archives_beside_a_peer(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, 20_000)  # a smaller one is stored in 0.2 s, most of it opening, planning and receipts
    # beside `cp` it is too small still; for the peer 2 x 2 of its shards are enough
    rows = until_held(lambda: archive_rows(slide, tmp_path, px=20_000, share=SHARE, copy=False, peer_px=8192))
    assert all(row["ok"] for row in rows), rows


@pytest.mark.slow
def test_an_update_beside_a_rebuild(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, 20_000)  # of a smaller one the changed shard is more than a hundredth
    row = until_held(lambda: update_row(slide, tmp_path, px=20_000, share=SHARE))
    assert row["ok"], row


@pytest.mark.slow
def test_a_slide_is_opened_at_once(tmp_path: Path) -> None:
    slide = make_slide(tmp_path, 12_000)
    rows = until_held(lambda: open_rows(slide, tmp_path))
    assert all(row["ok"] for row in rows), rows
