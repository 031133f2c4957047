"""Receipts, parts and outputs that somebody has touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from distributed import Client

from tests.pipelines.faults.runs import UNITS, embed, stopped_after, stores


@pytest.mark.parametrize("harm", ["receipt cut", "receipt edited", "part missing", "part altered", "recipe cut"])
def test_what_was_harmed_by_hand_is_computed_again(
    client: Client, slide: Path, whole: dict[str, bytes], tmp_path: Path, harm: str
) -> None:
    stopped_after(12, client, slide, tmp_path)
    journal = tmp_path / "receipts" / slide.name
    done = sorted(journal.glob("L*.json"))
    part = journal / "parts" / next(iter(json.loads(done[3].read_text())["outputs"]))
    if harm == "receipt cut":
        done[3].write_bytes(done[3].read_bytes()[:70])
    elif harm == "receipt edited":
        done[3].write_text(done[3].read_text().replace('"tiles":1', '"tiles":2'))
    elif harm == "part missing":
        part.unlink()
    elif harm == "part altered":
        part.write_bytes(part.read_bytes()[:-9] + bytes(9))
    else:
        (journal / "recipe.json").write_text('{"digest":')
    (row,) = embed(client, slide, tmp_path).rows
    assert row.status == "done", row.reason
    again = 0 if harm == "recipe cut" else 1
    assert (row.supertiles_computed, row.supertiles_reused) == (UNITS - len(done) + again, len(done) - again)
    assert stores(tmp_path) == whole


@pytest.mark.parametrize("name", ["made.svs.features.zarr", "made.svs.entropy.zarr", "receipts/made.svs/receipts.json"])
def test_a_finished_output_that_was_removed_is_made_again(
    client: Client, slide: Path, whole: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    embed(client, slide, tmp_path)
    path = tmp_path / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (row,) = embed(client, slide, tmp_path).rows
    assert row.status == "done", row.reason
    assert row.supertiles_computed == (0 if "entropy" in name else UNITS)
    assert stores(tmp_path) == whole
    assert embed(client, slide, tmp_path).rows[0].supertiles_computed == 0
