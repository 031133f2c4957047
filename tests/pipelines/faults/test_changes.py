"""Images that change while they are read, or between two runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
from distributed import Client

from tests.pipelines.faults.runs import embed
from tilestream.sources.stamps import stamps_of
from tilestream.stream.engine import Event
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


def test_an_image_that_changes_during_the_run_fails(
    slide: Path, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.svs"
    mine.write_bytes(slide.read_bytes())
    monkeypatch.setenv("FAULTY_IMAGE", str(mine))
    rows = embed(
        client, [mine, slide], tmp_path / "out", encoder="tests.pipelines.faults.faulty:changes_the_image"
    ).rows
    row = next(row for row in rows if row.path == "mine.svs")
    assert row.status == "failed"
    assert "changed during the run" in row.reason
    assert not (tmp_path / "out" / "mine.svs.features.zarr").exists()
    assert next(row for row in rows if row.path == "made.svs").status == "done"


@pytest.mark.parametrize("how", ["renamed over", "rewritten", "removed"])
def test_another_image_in_its_place_is_no_mixture(slide: Path, client: Client, tmp_path: Path, how: str) -> None:
    mine, other = tmp_path / "mine.svs", write_slide(tmp_path / "other.svs", Shape(y=1200, x=1500), seed=4)
    mine.write_bytes(slide.read_bytes())

    def swap(event: Event) -> None:
        if event.kind != "unit" or not other.exists():
            return
        if how == "renamed over":
            other.rename(mine)
        elif how == "rewritten":
            mine.write_bytes(other.read_bytes())
            other.unlink()
        else:
            mine.unlink()
            other.unlink()

    (row,) = embed(client, mine, tmp_path / "out", on_event=swap).rows
    assert row.status == "failed"
    assert not row.tiles_damaged
    assert "changed" in row.reason or "no such file" in row.reason
    assert not (tmp_path / "out" / "mine.svs.features.zarr").exists()
    if how != "removed":  # the receipts of the old image must not be mixed with tiles of the new one
        (row,) = embed(client, mine, tmp_path / "out").rows
        assert row.status == "failed"
        assert "image.fingerprint" in row.reason
        assert embed(client, mine, tmp_path / "out", resume=False).rows[0].status == "done"


def test_a_replaced_image_is_read_anew_by_a_process_that_had_it_open(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for value in (10, 200):
        tifffile.imwrite(tmp_path / "new.tif", np.full((512, 512, 3), value, np.uint8), tile=(256, 256))
        (tmp_path / "new.tif").rename(path)
        out = tmp_path / str(value)
        assert embed(client, path, out).rows[0].status == "done"
        with xr.open_datatree(out / "a.tif.features.zarr", engine="zarr") as tree:
            assert (tree["tile"]["mean"].values == value).all()


def test_stamps_of_a_folder_are_those_of_its_files(shared_data: Path) -> None:
    from tilestream.pyramid.pyramid import open_pyramid

    folder = shared_data / "slides" / "dicom-cmu-1-small-region"
    stamps = stamps_of(open_pyramid(str(folder)).source)
    assert {Path(stamp.path).name for stamp in stamps} == {path.name for path in folder.iterdir()}
