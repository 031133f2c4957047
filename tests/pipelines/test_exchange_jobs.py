"""Feature stores in TRIDENT's and CLAM's layouts: opened by readers of theirs, resumed, and never written over."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from tests.madecohort import OUTPUTS, make_store
from tests.pipelines.foreign import clam_features, clam_patches, trident_features, trident_patches
from tests.sinks.build import make_image, make_plan, make_sink, write_all
from tilestream.errors import ConfigError, OutputError, SourceError
from tilestream.pipelines import exchange
from tilestream.pipelines.exchange import exchange_config, run_exchange
from tilestream.sinks.jobfiles import stem_of
from tilestream.sinks.trident import magnification

TWO = (("uni", OUTPUTS), ("conch", OUTPUTS[:2]))
KIND = "20x_64px_0px_overlap"


def export(source: Path, out: Path, to: str, **options):
    return run_exchange([str(source)], exchange_config(out=str(out), to=to, **options))


def store_of(folder: Path, key: str, *, mpp=0.25, ratio=Fraction(2), damaged=(), **grid) -> zarr.Group:
    image = make_image(height=600, width=900, mpp=mpp, fingerprint=key)
    plan = make_plan(image, ratio=ratio, **grid)
    sink = make_sink(folder, image=image, plan=plan, rel=key, encoders=TWO)
    sink.finish(write_all(sink, damaged=damaged))
    return zarr.open_group(sink.root, mode="r")["tile"]


@pytest.fixture
def tile(tmp_path: Path) -> zarr.Group:
    return store_of(tmp_path / "in", "a/s.svs", damaged=(1, 7))


def test_trident_opens_it(tile, tmp_path):
    (row,) = export(tmp_path / "in", tmp_path / "job", "trident").rows
    assert row.status == "done"
    assert len(row.notes) == 2
    job = tmp_path / "job" / KIND
    coords, level0, patch = trident_patches(job / "patches" / "s_patches.h5")
    assert (coords.dtype, level0, patch) == (np.int64, 128, 64)
    np.testing.assert_array_equal(coords, np.stack([tile["x"][:], tile["y"][:]], axis=1))
    ok = tile["status"][:] == 0
    for encoder in ("uni", "conch"):
        features, own, level0 = trident_features(job / f"features_{encoder}" / "s.h5")
        np.testing.assert_array_equal(features, tile[encoder][:][ok])
        np.testing.assert_array_equal(own, coords[ok])
        assert level0 == 128
        with h5py.File(job / f"slide_features_{encoder}" / "s.h5") as file:
            np.testing.assert_allclose(file["features"][:], tile[encoder][:][ok].mean(axis=0), rtol=1e-5)
            assert file["coords"].shape == own.shape


def test_attributes_are_those_of_trident_and_the_true_resolution(tile, tmp_path):
    export(tmp_path / "in", tmp_path / "job", "trident")
    with h5py.File(tmp_path / "job" / KIND / "features_uni" / "s.h5") as file:
        coords, features = dict(file["coords"].attrs), dict(file["features"].attrs)
        assert file["features"].maxshape == (None, 3)
        assert file["features"].dtype == np.float32
    assert features == {"name": "s", "savetodir": f"{KIND}/features_uni", "encoder": "uni"}
    assert coords == {
        "patch_size": 64,
        "patch_size_level0": 128,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": "s",
        "savetodir": f"{KIND}/patches",
        "level0_width": 900,
        "level0_height": 600,
        "mpp_level0": 0.25,
        "mpp_effective": 0.5,
    }


@pytest.mark.parametrize(
    ("mpp", "ratio", "level0", "folder"),
    [
        (0.2527, Fraction(127, 64), 127, "20x_64px_0px_overlap"),  # no objective's resolution: a fraction reads back
        (0.5, Fraction(3), 192, "6.67x_64px_0px_overlap"),
        (0.5, Fraction(8), 512, "2.5x_64px_0px_overlap"),
        (0.2201, Fraction(1), 64, "40x_64px_0px_overlap"),
    ],
)
def test_sizes_read_back_exactly_at_any_resolution(tmp_path, mpp, ratio, level0, folder):
    store_of(tmp_path / "in", "s.svs", mpp=mpp, ratio=ratio)
    export(tmp_path / "in", tmp_path / "job", "trident")
    assert trident_patches(tmp_path / "job" / folder / "patches" / "s_patches.h5")[1:] == (level0, 64)


def test_overlap_is_told(tmp_path):
    store_of(tmp_path / "in", "s.svs", step_px=32)
    export(tmp_path / "in", tmp_path / "job", "trident")
    assert (tmp_path / "job" / "20x_64px_32px_overlap" / "patches" / "s_patches.h5").exists()


def test_clam_opens_it(tile, tmp_path):
    pytest.importorskip("torch")
    (row,) = export(tmp_path / "in", tmp_path / "clam", "clam").rows
    assert row.status == "done"
    coords, level, size = clam_patches(tmp_path / "clam" / "patches" / "s.h5")
    assert (coords.dtype, level, size) == (np.int64, 0, 128)
    ok = tile["status"][:] == 0
    tensor, features, own = clam_features(tmp_path / "clam" / "features_uni", "s")
    np.testing.assert_array_equal(tensor, tile["uni"][:][ok])
    np.testing.assert_array_equal(features, tensor)
    assert own.dtype == np.int32
    np.testing.assert_array_equal(own, coords[ok])


def test_a_slide_without_tiles(tmp_path):
    image = make_image(height=100, width=100)
    plan = make_plan(image, rows=0)
    sink = make_sink(tmp_path / "in", image=image, plan=plan, rel="empty.svs", encoders=TWO)
    sink.finish([])
    (row,) = export(tmp_path / "in", tmp_path / "job", "trident").rows
    assert row.status == "done"
    features, coords, _ = trident_features(tmp_path / "job" / KIND / "features_uni" / "empty.h5")
    assert (features.shape, coords.shape) == ((0, 3), (0, 2))
    (row,) = export(tmp_path / "in", tmp_path / "clam", "clam").rows
    assert (row.status, row.notes) == ("done", ("no tiles: CLAM has no files for such a slide",))
    assert not list((tmp_path / "clam").iterdir())


def test_names_that_clash_are_refused_and_the_rest_is_done(tmp_path):
    for key in ("a/s.svs", "b/S.ndpi", "c/t.ome.tif"):
        make_store(tmp_path / "in", key, height=64, width=64)
    rows = {row.path: row for row in export(tmp_path / "in", tmp_path / "job", "trident").rows}
    assert [row.status for row in rows.values()] == ["failed", "failed", "done"]
    assert "the name `s`, which `b/S.ndpi` has too" in rows["a/s.svs"].reason
    assert [path.name for path in (tmp_path / "job" / KIND / "features_uni").iterdir()] == ["t.h5"]
    one = export(tmp_path / "in" / "b", tmp_path / "job", "trident")
    assert [row.status for row in one.rows] == ["done"]


def test_vectors_of_two_contracts_are_not_put_into_one_folder(tmp_path):
    make_store(tmp_path / "in", "a.svs", height=64, width=64)
    other = {"stages": {"uni": {"target": "uni", "source": "edited"}}, "plan": {"mpp": 0.5, "tile_px": 64}}
    make_store(tmp_path / "in", "b.svs", height=64, width=64, recipe=other)
    with pytest.raises(ConfigError, match=r"features of `uni`: got stage.*in `a.svs`.*in `b.svs`.*by themselves"):
        export(tmp_path / "in", tmp_path / "job", "trident")
    assert not (tmp_path / "job").exists()
    assert [row.status for row in export(tmp_path / "in", tmp_path / "out", "parquet").rows] == ["done", "done"]


def test_what_is_there_is_kept_and_what_is_missing_is_made(tile, tmp_path):
    pytest.importorskip("torch")
    for to in ("trident", "clam"):
        out = tmp_path / to
        export(tmp_path / "in", out, to)
        files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
        assert [row.status for row in export(tmp_path / "in", out, to).rows] == ["kept"]
        lost = next(path for path in files if path.suffix in (".h5", ".pt"))
        lost.unlink()
        assert [row.status for row in export(tmp_path / "in", out, to).rows] == ["done"]
        assert {path: path.stat().st_mtime_ns for path in files if path != lost} == {
            path: at for path, at in files.items() if path != lost
        }
        assert lost.exists()
        assert not list(out.rglob(".*"))


@pytest.mark.parametrize("to", ["trident", "clam"])
def test_files_of_others_and_of_other_features_are_not_written_over(tile, tmp_path, to):
    pytest.importorskip("torch")
    out = tmp_path / "job"
    export(tmp_path / "in", out, to)
    shutil.rmtree(tmp_path / "in")
    store_of(tmp_path / "in", "a/s.svs", damaged=(2,))
    (row,) = export(tmp_path / "in", out, to).rows
    assert "the file of other features" in row.reason
    assert [row.status for row in export(tmp_path / "in", out, to, resume=False).rows] == ["done"]
    assert [row.status for row in export(tmp_path / "in", out, to).rows] == ["kept"]
    for path in out.rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"a file of somebody")
    for resume in (True, False):
        (row,) = export(tmp_path / "in", out, to, resume=resume).rows
        assert "has not written" in row.reason
    assert {path.read_bytes() for path in out.rglob("*") if path.is_file()} == {b"a file of somebody"}


def test_a_writer_that_dies_leaves_nothing(tile, tmp_path, monkeypatch):
    monkeypatch.setattr("tilestream.sinks.trident.put_coords", lambda *args: 1 / 0)
    (row,) = export(tmp_path / "in", tmp_path / "job", "trident").rows
    assert row.reason == "ZeroDivisionError: division by zero"
    assert not [path for path in (tmp_path / "job").rglob("*") if path.is_file()]


def test_what_cannot_be_written_is_told(tile, tmp_path, monkeypatch):
    store_of(tmp_path / "unknown", "u.svs", mpp=None)
    (row,) = export(tmp_path / "unknown", tmp_path / "job", "trident").rows
    assert "micrometres per pixel" in row.reason
    assert "manifest" in row.reason
    (row,) = export(tmp_path / "in", tmp_path / "job", "trident", encoders=["uni", "gigapath"]).rows
    assert "got conch, uni, expected gigapath" in row.reason
    monkeypatch.setattr(exchange.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OutputError, match="1 bytes free"):
        export(tmp_path / "in", tmp_path / "job", "trident")


def test_inputs_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "slide.svs").touch()
    for path in ("empty", "slide.svs"):
        with pytest.raises(ConfigError, match="no feature store"):
            export(tmp_path / path, tmp_path / "job", "trident")
    with pytest.raises(SourceError, match="nothing there"):
        export(tmp_path / "typo", tmp_path / "job", "trident")
    with pytest.raises(ConfigError, match="a URL"):
        exchange_config(out="s3://bucket/x", to="trident")


def test_a_store_that_is_cut_fails_alone(tile, tmp_path):
    store_of(tmp_path / "in", "b/cut.svs")
    (tmp_path / "in" / "b" / "cut.svs.features.zarr" / "zarr.json").write_text('{"attributes": {}}')
    rows = export(tmp_path / "in", tmp_path / "job", "trident").rows
    assert [row.status for row in rows] == ["done", "failed"]
    assert "no metadata of a feature store" in rows[1].reason


def test_without_h5py_the_extra_is_named(tile, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (row,) = export(tmp_path / "in", tmp_path / "job", "trident").rows
    assert "'.[h5]'" in row.reason


@pytest.mark.parametrize(
    ("key", "stem"), [("a/b.svs", "b"), ("b.ome.tif", "b"), ("c.v1.svs", "c.v1"), ("d", "d"), ("e.svs@t=3", "e")]
)
def test_stems(key, stem):
    assert stem_of(key) == stem


def test_magnifications():
    assert [magnification(mpp) for mpp in (0.25, 0.2201, 0.499, 0.4416, 1, 4, 1.5)] == [40, 40, 20, 20, 10, 2.5, 6.67]
