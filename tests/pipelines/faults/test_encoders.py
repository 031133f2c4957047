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
        ("one_too_few", "shape (0, 3)"),
        ("grows", "got shape (1, 4), expected (1, 3)"),
        ("breaks", "ZeroDivisionError: broken for good"),
        ("never_bright", "ValueError: too bright (30 of 30 tiles)"),
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
    assert words in row.reason, row.reason
    assert "Traceback" not in row.reason
    assert not (tmp_path / "made.svs.features.zarr").exists()


def test_a_batch_that_fails_once_is_tried_again(
    slide: Path, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faulty, "_calls", iter(range(1, 1000)))
    outcome = embed(
        client,
        slide,
        tmp_path,
        encoder="tests.pipelines.faults.faulty:raises_once_in_a_while",
        super_tile_px=2048,
        batch=4,
    )
    assert outcome.exit_code() == 0
    assert outcome.rows[0].tiles_failed == 0


def test_tiles_on_which_the_encoder_raises_are_told_by_row(slide: Path, client: Client, tmp_path: Path) -> None:
    (row,) = embed(client, slide, tmp_path, encoder="tests.pipelines.faults.faulty:no_dark", super_tile_px=512).rows
    assert row.status == "done"
    ((reason, rows),) = row.failed.items()
    assert reason == "`no_dark`: ValueError: too dark"
    assert 0 < len(rows) == row.tiles_failed < UNITS
    with xr.open_datatree(tmp_path / "made.svs.features.zarr", engine="zarr") as tree:
        assert tuple(np.flatnonzero(tree["tile"]["no_dark_status"].values == 3)) == rows


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
