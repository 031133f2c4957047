"""What the engine may cost a network, on few tiles and at 70 % of its bar: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.table import until_held

pytest.importorskip("torch")


@pytest.mark.slow
def test_hipt_through_the_engine_against_the_bare_model(tmp_path: Path) -> None:
    from tests.bench.bench_hipt import THROUGHPUT_BAR, throughput_row

    turns = iter(range(10))

    def measure() -> object:
        folder = tmp_path / f"{next(turns)}"
        folder.mkdir()
        return throughput_row(folder, tiles=4, rounds=1, bar=0.7 * THROUGHPUT_BAR)

    row = until_held(measure)
    assert row["ok"], row
