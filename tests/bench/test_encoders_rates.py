"""What several encoders in one pass may cost, on few tiles and at 70 % of the bar: below that is no noise."""

from pathlib import Path

import pytest

from tests.bench.table import until_held

pytest.importorskip("torch")


@pytest.mark.slow
def test_two_encoders_in_one_pass_against_their_computation(tmp_path: Path) -> None:
    from tests.bench.bench_encoders import ONE_PASS_BAR, one_pass_row

    turns = iter(range(10))

    def measure() -> object:
        folder = tmp_path / f"{next(turns)}"
        folder.mkdir()
        return one_pass_row(folder, tiles=4, rounds=1, bar=0.7 * ONE_PASS_BAR)

    row = until_held(measure)
    assert row["ok"], row
