"""Encoders that raise, lie or return no numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from tests.pipelines.faults import faulty
from tests.pipelines.faults.runs import UNITS, embed


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("raises_once_in_a_while", "ZeroDivisionError: the third batch"),
        ("one_too_few", "shape"),
        ("grows", "values"),
    ],
)
def test_an_encoder_that_raises_or_lies_fails_its_image(
    slide: Path, client: Client, tmp_path: Path, encoder: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faulty, "_calls", iter(range(1, 1000)))
    outcome = embed(
        client, slide, tmp_path, encoder=f"tests.pipelines.faults.faulty:{encoder}", super_tile_px=2048, batch=4
    )
    (row,) = outcome.rows
    assert outcome.exit_code() == 3
    assert words in row.reason
    assert "Traceback" not in row.reason
    assert not (tmp_path / "made.svs.features.zarr").exists()


def test_values_that_are_no_numbers_are_tiles_that_failed(slide: Path, client: Client, tmp_path: Path) -> None:
    (row,) = embed(client, slide, tmp_path, encoder="tests.pipelines.faults.faulty:nan_where_dark").rows
    assert row.status == "done"
    assert 0 < row.tiles_failed < UNITS
    with xr.open_datatree(tmp_path / "made.svs.features.zarr", engine="zarr") as tree:
        status = tree["tile"]["nan_where_dark_status"].values
        vectors = tree["tile"]["nan_where_dark"].values
        assert int((status == 3).sum()) == row.tiles_failed
        assert np.isnan(vectors[status == 3]).all()
        assert np.isfinite(vectors[status == 0]).all()
