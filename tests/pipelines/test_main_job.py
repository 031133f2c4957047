"""The main job over all real images: what is done, what fails and why, and that nothing else changes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.conftest import FOLDERS, Run, run_embed_command
from tilestream.types import TileStatus

FAILED = {
    "random-text.svs": ["1,001 bytes of text", ".svs", "error page"],
    "not_enough_data.jp2": ["JP2 file is cut", "beyond its end", "Copy it again"],
    "truncated_jpeg.jpg": ["6,698 bytes", "no end marker", "cut"],
    "crash-0e16d3bfb83be87356d026d66919deaefca44dac.tif": ["bytes 4048..4909 of 4567", "copied whole"],
    "crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif": ["of 3728", "copied whole"],
    "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": ["of 88", "copied whole"],
    "lfs-pointers.zarr": ["Git LFS pointer", "git lfs pull"],
}
"""Damaged file → what its reason has to say, the remedy included."""
READABLE_IN_BROKEN = {"corrupt.tif", "tiff_overflow_rows_per_strip.tif", "total-pages-zero.tif"}
LABELLED = {
    "almost-white-1": 0,
    "diagnostic-slide-thumb-rgb": 4,
    "high-nuclei-score-level0": 16,
    "low-nuclei-score-level0": 4,
    "medium-nuclei-score-level1": 4,
    "no-tissue": 0,
    "no-tissue-red-pen": 0,
    "no-tissue2": 0,
    "tcga-red-pen": 4,
    "very-low-nuclei-score-level0": 16,
}
"""Labelled tile → tiles of 256 px that are chosen, its resolution being unknown."""
DONE = {
    "CMU-1-Small-Region.svs",
    "OS-1-detail.ome.tif",
    "OS-2-ndpi.ome.tif",
    "camelyon-jpeg2000.dcm",
    "dicom-annotated/sm_image_control.dcm",
    "dicom-cmu-1-small-region",
    *(f"labelled-tiles/{name}.png" for name in LABELLED),
    "test3-DAPI-2-387.ndpi",
    "Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif",
    "LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF",
    "RGB.byte.tif",
    "S2A_29RKH_20200219_0_L2A",
    "S2_L2A_19UDP_20170729_TCI.jp2",
    "cog_nodata.tif",
    "cog_nodata_nan.tif",
    "cog_scale_epsg4326.tif",
    "cog_world.tif",
    "cogeo.tif",
    "colorado_15cm_mask.tif",
    "pix4d_alpha_nodata.tif",
    "blobs_multiscale_image.v05.ome.zarr",
    "exemplar-001.crop.image.ome.zarr",
    "exemplar-001.crop.segmentations.ome.zarr",
    "skimage-2dt.image.ome.zarr",
    "skimage-2dt.segmentation.ome.zarr",
}
IGNORED = {
    "slides/OS-2-ndpi-results.tsv": "no image",
    "slides/dicom-annotated/seg_image_sm_control.dcm": "no image of a slide",
    "slides/dicom-annotated/sm_annotations.dcm": "no image of a slide",
    "satellite/LC08_L1TP_016037_20170813_20170814_01_RT_B8.TIF.ovr": "overviews of LC08_L1TP_016037",
}


def test_with_damaged_files_it_ends_with_3(everything: Run) -> None:
    assert everything.exit_code == 3
    assert everything.paths("done") == DONE | READABLE_IN_BROKEN
    assert everything.paths("failed") == set(FAILED)
    last = everything.stdout.splitlines()[-1]
    assert last.startswith(f"{len(DONE) + 3} done, 7 failed, 4 ignored; ")
    assert " tiles, 4 damaged; " in last
    assert last.endswith(f"report: {everything.out / 'report.html'}")


@pytest.mark.parametrize("name", FAILED)
def test_each_damaged_file_is_named_with_what_is_wrong(everything: Run, name: str) -> None:
    row = everything.rows[name]
    assert row["tiles"] == 0
    assert row["outputs"] == []
    assert all(word in row["reason"] for word in [*FAILED[name], "got", "expected"]), row["reason"]
    (line,) = [line for line in everything.stderr.splitlines() if line.startswith(f"failed {name}: ")]
    assert all(word in line for word in FAILED[name]), line
    assert name in (everything.out / "report.html").read_text()
    assert not list(everything.out.glob(f"{name}*")), "nothing that looks finished"


@pytest.mark.parametrize("name", IGNORED)
def test_other_files_are_listed_once_as_ignored(everything: Run, name: str, shared_data: Path) -> None:
    row = everything.rows[str(shared_data / name)]
    assert row["status"] == "ignored"
    assert IGNORED[name] in row["reason"]
    assert everything.stdout.count(name) + everything.stderr.count(name) == 1


def test_no_other_file_is_mentioned(everything: Run) -> None:
    assert len(everything.rows) == len(DONE | READABLE_IN_BROKEN) + len(FAILED) + len(IGNORED)


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_tiles_of_unknown_resolution(everything: Run, name: str) -> None:
    row = everything.rows[f"labelled-tiles/{name}.png"]
    assert row["tiles"] == LABELLED[name]
    assert row["mpp"] is None
    assert any("native resolution instead of 0.5 um/px" in note for note in row["notes"])
    empty = ("no tissue found", "no tile of which 0.1 is selected")
    assert (row["notes"][-1] in empty) == (not LABELLED[name])


def test_one_bad_tile_costs_its_own_tiles(everything: Run) -> None:
    """Block (1, 1) of 512 px of `corrupt.tif` lies outside the file: four tiles of 256 px."""
    tile = everything.tree("corrupt.tif")["tile"]
    inside = (tile.y.values >= 512) & (tile.x.values >= 512)
    assert inside.sum() == 4
    np.testing.assert_array_equal(tile.status.values, np.where(inside, TileStatus.DAMAGED, TileStatus.OK))
    np.testing.assert_array_equal(tile.handcrafted_status.values, tile.status.values)
    assert np.isnan(tile.handcrafted.values[inside]).all()
    assert np.isnan(tile.entropy.values[inside]).all()
    assert np.isfinite(tile.handcrafted.values[~inside]).all()
    good = everything.tree("cogeo.tif")["tile"]
    np.testing.assert_array_equal(tile.handcrafted.values[~inside], good.handcrafted.values[~inside])
    row = everything.rows["corrupt.tif"]
    assert (row["status"], row["tiles"], row["tiles_damaged"]) == ("done", 16, 4)
    (damage,) = row["damaged"]["listed"]
    assert damage["rows"] == np.flatnonzero(inside).tolist()
    assert "lie outside the file of 298232 bytes" in damage["reason"]


def test_nothing_but_outputs_in_the_folder(everything: Run) -> None:
    kinds = (".features.zarr", ".entropy.zarr", ".tissue.geojson")
    expected = {f"{path}{kind}" for path in everything.paths("done") for kind in kinds}
    expected |= {"receipts", "report.html", "report.json", "metrics.prom", "cohort.csv", "cohort.npz"}
    expected |= {"cohort.parquet"} if find_spec("pyarrow") else set()
    folders = {"labelled-tiles", "dicom-annotated"}
    found = {path.name for path in everything.out.iterdir() if path.name not in folders}
    found |= {f"{folder}/{path.name}" for folder in folders for path in (everything.out / folder).iterdir()}
    assert found == expected
    for path in everything.paths("done"):
        assert set(everything.rows[path]["outputs"]) == {f"{path}{kind}" for kind in kinds}


def test_a_few_dozen_files_a_slide(everything: Run) -> None:
    """The largest has 3967 tiles; small ones have no fewer files."""
    for path in everything.paths("done"):
        store = [p for p in (everything.out / f"{path}.features.zarr").rglob("*") if p.is_file()]
        receipts = [p for p in (everything.out / "receipts" / path).rglob("*") if p.is_file()]
        assert 20 < len(store) + len(receipts) < 80, path


@pytest.mark.slow
def test_damaged_files_change_nothing_in_the_others(everything: Run, shared_data: Path, tmp_path: Path) -> None:
    good = run_embed_command(*(shared_data / name for name in FOLDERS), out=tmp_path)
    assert good.exit_code == 0, good.stderr
    assert good.paths("done") == DONE
    assert not good.paths("failed")
    stores, beside = good.stores(), everything.stores()
    assert len(stores) > 37 * 20
    bad = tuple(READABLE_IN_BROKEN)
    assert set(beside) - set(stores) == {path for path in beside if path.startswith(bad)}
    changed = [path for path in stores if stores[path] != beside[path]]
    assert not changed
    again = run_embed_command(*(shared_data / name for name in FOLDERS), out=tmp_path)
    assert again.exit_code == 0
    assert again.report["totals"]["supertiles_reused"] == again.report["totals"]["supertiles"]
    assert again.stores() == stores
