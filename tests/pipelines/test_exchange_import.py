"""Vectors that TRIDENT, CLAM and AtlasPatch have stored, written here from their layouts, as feature stores."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

import tilestream as ts
from tilestream.errors import ConfigError, SourceError
from tilestream.pipelines.chain import ChainChoice
from tilestream.pipelines.exchange import exchange_config, run_exchange
from tilestream.pipelines.exchange_import import ImportConfig, run_import
from tilestream.pipelines.restage import RestageConfig, run_restage
from tilestream.pipelines.train_grids import StoredGrids, find_regions
from tilestream.pipelines.train_labels import match_labels, read_labels

N, D = 30, 5
RNG = np.random.default_rng(0)
XY = np.stack([RNG.integers(0, 3000, N), RNG.integers(0, 2000, N)], axis=1)
ATTRIBUTES = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "s",
    "savetodir": "None",
    "level0_width": 4000,
    "level0_height": 3000,
}


def vectors(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, D)).astype(np.float32)


def trident(job: Path, slide: str = "s", encoder: str = "uni_v1", *, seed=0, coords=XY, drop=(), values=None) -> Path:
    """One file of features as TRIDENT writes it: chunks of one row."""
    path = job / "20x_256px_0px_overlap" / f"features_{encoder}" / f"{slide}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = vectors(seed) if values is None else values
        features = file.create_dataset("features", data=data, chunks=(1, *data.shape[1:]), maxshape=(None, D))
        features.attrs.update({"name": slide, "savetodir": str(path.parent), "encoder": encoder})
        found = file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
        found.attrs.update({name: value for name, value in ATTRIBUTES.items() if name not in drop})
    return path


def clam(folder: Path, slide: str = "s", *, h5=True, level=1) -> None:
    """CLAM's patches and features."""
    import torch

    for name in ("patches", "FEAT/h5_files", "FEAT/pt_files"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "patches" / f"{slide}.h5", "w") as file:
        coords = file.create_dataset("coords", data=XY, chunks=(1, 2), maxshape=(None, 2))
        coords.attrs.update({"patch_size": 256, "patch_level": level, "downsample": (4.0, 4.0), "name": slide})
    if h5:
        with h5py.File(folder / "FEAT" / "h5_files" / f"{slide}.h5", "w") as file:
            file.create_dataset("features", data=vectors(), chunks=(1, D), maxshape=(None, D))
            file.create_dataset("coords", data=XY.astype(np.int32), chunks=(1, 2), maxshape=(None, 2))
    torch.save(torch.from_numpy(vectors()), folder / "FEAT" / "pt_files" / f"{slide}.pt")


def atlaspatch(folder: Path, slide: str = "s") -> None:
    (folder / "patches").mkdir(parents=True)
    with h5py.File(folder / "patches" / f"{slide}.h5", "w") as file:
        rest = np.tile([512, 512, 0], (N, 1))
        file.create_dataset("coords", data=np.concatenate([XY, rest], axis=1).astype(np.int32))
        for number, encoder in enumerate(("uni_v1", "conch v1")):
            file.create_dataset(f"features/{encoder}", data=vectors(number))
        file.attrs.update({**ATTRIBUTES, "wsi_path": "/somewhere/s.svs"})


def importing(tmp_path: Path, *sources: Path, **options):
    return run_import([str(source) for source in sources], ImportConfig(out=tmp_path / "out", **options))


def check(tmp_path: Path, encoder: str, *, size: float, slide: str = "s", seed: int = 0) -> None:
    cohort = ts.open_cohort(tmp_path / "out", encoder=encoder).sel(slide=slide).load()
    np.testing.assert_array_equal(cohort[encoder], vectors(seed))  # in the order of the file
    np.testing.assert_array_equal(np.stack([cohort.x, cohort.y], axis=1), XY)
    np.testing.assert_allclose(cohort[f"{encoder}_mean"], vectors(seed).mean(axis=0), rtol=1e-5, atol=1e-6)
    assert cohort["size"].item() == size
    assert (cohort["status"].values == 0).all()


def test_trident(tmp_path):
    for slide in ("s", "t"):
        trident(tmp_path / "job", slide)
        trident(tmp_path / "job", slide, "conch_v15", seed=1)
    slide_level = tmp_path / "job" / "20x_256px_0px_overlap" / "slide_features_titan"
    slide_level.mkdir()
    with h5py.File(slide_level / "s.h5", "w") as file:
        file["features"] = np.zeros(7, np.float32)
    rows = importing(tmp_path, tmp_path / "job").rows
    assert [(row.path, row.status) for row in rows] == [("s", "done"), ("t", "done")]
    assert rows[0].notes == ("micrometres per pixel are not known: these files state a magnification at most",)
    check(tmp_path, "uni_v1", size=512)
    check(tmp_path, "conch_v15", size=512, slide="t", seed=1)
    assert [row.status for row in importing(tmp_path, tmp_path / "job").rows] == ["kept", "kept"]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    trident(tmp_path / "job", "s", seed=2)
    changed = importing(tmp_path, tmp_path / "job").rows
    assert [row.status for row in changed] == ["failed", "kept"]
    assert "--no-resume" in changed[0].reason
    assert [row.status for row in importing(tmp_path, tmp_path / "job", resume=False).rows] == ["done", "done"]
    check(tmp_path, "uni_v1", size=512, seed=2)


def test_labels_of_files_are_those_of_slides_without_an_ending(tmp_path):
    for slide in ("s", "t"):
        trident(tmp_path / "job", slide)
    importing(tmp_path, tmp_path / "job")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nslides/s.svs,tumour\nslides/t.svs,normal\n")
    cohort = ts.open_cohort(tmp_path / "out", manifest=table)
    assert dict(zip(cohort.slide.values, cohort.label.values, strict=True)) == {"s": "tumour", "t": "normal"}
    matched = match_labels(read_labels(table), ["s", "t"], ["", ""])
    assert {number: row.label for number, row in matched.rows.items()} == {0: "tumour", 1: "normal"}


def test_regions_of_patches_on_one_grid_and_of_others(tmp_path):
    """TRIDENT cuts on one grid, whose squares a region stage may see; patches between its lines are refused."""
    on_grid = np.array([(512 * k, 512 * j) for k in range(7) for j in range(5)])[:N]
    trident(tmp_path / "job", coords=on_grid)
    trident(tmp_path / "other", coords=on_grid + [[0, 100 * (k > 9)] for k in range(N)])
    chain = ChainChoice(region="tests.models.gridstages:corner_weighted")
    for job, reason in (("job", ""), ("other", "no common grid")):
        importing(tmp_path / job, tmp_path / job)
        config = RestageConfig(out=tmp_path / f"{job}-regions", chain=chain, region_px=3 * 256)
        (row,) = run_restage([str(tmp_path / job / "out")], config)
        assert (reason in row.reason) if reason else not row.reason
    cohort = ts.open_cohort(tmp_path / "job" / "out")
    regions = find_regions(tmp_path / "job" / "out", cohort, "uni_v1", cells=3, least_share=0.1)
    grids, mask = StoredGrids(cohort, encoder="uni_v1", regions=regions, cells=3, keep_bytes=0).read(np.array([0]))
    at = [[int(np.flatnonzero((on_grid == (512 * x, 512 * y)).all(1))[0]) for x in range(3)] for y in range(3)]
    assert mask.all()
    assert np.array_equal(grids[0].transpose(1, 2, 0), vectors()[at])
    cohort = ts.open_cohort(tmp_path / "other" / "out")
    with pytest.raises(ConfigError, match="no common grid"):
        find_regions(tmp_path / "other" / "out", cohort, "uni_v1", cells=3, least_share=0.1)


def test_one_folder_of_features_is_enough(tmp_path):
    path = trident(tmp_path / "job", drop=("patch_size_level0",))
    importing(tmp_path, path.parent)
    check(tmp_path, "uni_v1", size=512)


def test_clam(tmp_path):
    pytest.importorskip("torch")
    clam(tmp_path / "clam")
    (row,) = importing(tmp_path, tmp_path / "clam").rows
    assert "as far as its patches reach" in row.notes[0]
    check(tmp_path, "FEAT", size=1024)


def test_patches_are_those_of_the_same_run_of_clam(tmp_path):
    """Patches of level 0 beside its features, and a later run that cut larger ones from level 1."""
    pytest.importorskip("torch")
    clam(tmp_path / "clam" / "a", level=0)
    clam(tmp_path / "clam" / "b")
    (tmp_path / "clam" / "b" / "FEAT").rename(tmp_path / "clam" / "b" / "OTHER")
    importing(tmp_path, tmp_path / "clam", encoders=("FEAT",))
    check(tmp_path, "FEAT", size=256)
    # those of two runs, neither of which is that of the features
    (tmp_path / "clam" / "a" / "FEAT").rename(tmp_path / "FEAT")
    (row,) = importing(tmp_path, tmp_path / "FEAT", tmp_path / "clam", encoders=("FEAT",), resume=False).rows
    assert "do not say how large patches are" in row.reason


def test_clam_with_tensors_alone(tmp_path):
    pytest.importorskip("torch")
    clam(tmp_path / "clam", h5=False, level=0)
    (row,) = importing(tmp_path, tmp_path / "clam" / "FEAT").rows
    assert "do not say where patches lie" in row.reason
    assert "Name the folder `patches` too" in row.reason
    importing(tmp_path, tmp_path / "clam" / "FEAT" / "pt_files", tmp_path / "clam" / "patches")
    check(tmp_path, "FEAT", size=256)


def test_atlaspatch(tmp_path):
    atlaspatch(tmp_path / "atlas")
    importing(tmp_path, tmp_path / "atlas")
    check(tmp_path, "uni_v1", size=512)
    check(tmp_path, "conch_v1", size=512, seed=1)


def test_there_and_back(tmp_path):
    trident(tmp_path / "job")
    importing(tmp_path, tmp_path / "job")
    (row,) = run_exchange([str(tmp_path / "out")], exchange_config(out=str(tmp_path / "clam"), to="parquet")).rows
    assert row.status == "done"
    (row,) = run_exchange([str(tmp_path / "out")], exchange_config(out=str(tmp_path / "t"), to="trident")).rows
    assert "micrometres per pixel" in row.reason


def test_vectors_that_are_no_numbers_do_not_count(tmp_path):
    values = vectors()
    values[3, 2] = np.nan
    trident(tmp_path / "job", values=values)
    (row,) = importing(tmp_path, tmp_path / "job").rows
    assert "1 of 30 vectors of uni_v1 are not numbers" in row.notes[-1]
    cohort = ts.open_cohort(tmp_path / "out").load()
    assert list(np.flatnonzero(cohort.uni_v1_status)) == [3]
    np.testing.assert_allclose(cohort.uni_v1_mean[0], np.delete(values, 3, 0).mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_slide_without_patches(tmp_path):
    trident(tmp_path / "job", values=np.empty((0, D), np.float32), coords=np.empty((0, 2), np.int64))
    (row,) = importing(tmp_path, tmp_path / "job").rows
    assert row.status == "done", row.reason
    assert ts.open_cohort(tmp_path / "out").sizes["tile"] == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1500])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, "no whole HDF5 file"),
        (lambda path: path.write_bytes(b""), "no whole HDF5 file"),
        ({"drop": ("patch_size_level0", "patch_size")}, "attributes level0_height"),
        ({"drop": ("patch_size_level0", "level0_magnification")}, "without the level or magnifications"),
        ({"coords": XY[:-1]}, r"shape \(30, 5\), float32, and 29 patches"),
        ({"coords": XY[:, :1]}, r"`coords` of shape \(30, 1\)"),
        ({"coords": XY + 0.5}, "no whole pixels"),
        ({"values": np.zeros((N, D, 1), np.float32)}, r"shape \(30, 5, 1\)"),
    ],
)
def test_what_is_malformed_is_told_and_the_rest_is_done(tmp_path, spoil, said):
    trident(tmp_path / "job", "good")
    if callable(spoil):
        spoil(trident(tmp_path / "job", "bad"))
    elif spoil.get("values") is not None:
        path = trident(tmp_path / "job", "bad")
        with h5py.File(path, "a") as file:
            del file["features"]
            file["features"] = spoil["values"]
    else:
        trident(tmp_path / "job", "bad", **spoil)
    bad, good = importing(tmp_path, tmp_path / "job").rows
    assert good.status == "done"
    assert bad.status == "failed"
    assert pytest.importorskip("re").search(said, bad.reason), bad.reason


def test_patches_that_differ_and_slides_in_two_folders_are_told(tmp_path):
    trident(tmp_path / "job")
    trident(tmp_path / "job", encoder="conch", coords=XY[::-1])
    (row,) = importing(tmp_path, tmp_path / "job").rows
    assert "other patches for uni_v1 than for conch" in row.reason
    (row,) = importing(tmp_path, tmp_path / "job", encoders=("conch",)).rows
    assert row.status == "done"
    trident(tmp_path / "job2", encoder="conch")
    (row,) = importing(tmp_path, tmp_path / "job", tmp_path / "job2", encoders=("conch",)).rows
    assert "Name one of these folders" in row.reason


def test_inputs_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="got no features"):
        importing(tmp_path, tmp_path / "empty")
    with pytest.raises(SourceError, match="nothing there"):
        importing(tmp_path, tmp_path / "typo")
    trident(tmp_path / "job")
    with pytest.raises(ConfigError, match="got features of uni_v1, expected those of gigapath"):
        importing(tmp_path, tmp_path / "job", encoders=("gigapath",))
