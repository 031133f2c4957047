"""`ts.open_cohort`: which folders it opens, what it says of those that it does not, and the index under many hands."""

from __future__ import annotations

import multiprocessing
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr

import tilestream as ts
from tests.madecohort import OUTPUTS, SLIDES, expected, make_store, stage_recipe
from tests.pipelines.conftest import Embed
from tilestream.errors import ConfigError, OutputError, SourceError
from tilestream.pipelines import cohort_index
from tilestream.pipelines.cohort_index import LEASE, save_index
from tilestream.sinks.catalogue import INDEX, Given, read_catalogue
from tilestream.stream.leases import claim
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture
def folder(made_cohort, tmp_path):
    return shutil.copytree(made_cohort, tmp_path / "out")


def test_opened_with_and_without_an_index_it_is_the_same(folder):
    first = ts.open_cohort(folder)
    stamp = (folder / INDEX).stat().st_mtime_ns
    second = ts.open_cohort(str(folder))
    assert (folder / INDEX).stat().st_mtime_ns == stamp
    assert first.identical(second)
    np.testing.assert_array_equal(second.sel(slide="z.svs").uni.values, expected(folder, "uni")[-second.n.values[-1] :])


def test_chunks_are_slides(folder):
    chunked = ts.open_cohort(folder, chunks="slide")
    assert chunked.chunks["tile"] == tuple(chunked.n.values)
    assert ts.open_cohort(folder, chunks={"tile": 50}).chunks["tile"][0] == 50


def test_a_folder_without_stores_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"got no feature store.*Make them: `tilestream embed"):
        ts.open_cohort(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_pyramids_is_refused(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 64, 64), dtype="uint8")
    with pytest.raises(ConfigError, match=r"got 1 Zarr stores such as `a.zarr`, none with features"):
        ts.open_cohort(tmp_path)


def test_what_is_no_folder_of_a_run_is_refused(folder, tmp_path):
    with pytest.raises(SourceError, match="got nothing there"):
        ts.open_cohort(tmp_path / "typo")
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="got a file"):
        ts.open_cohort(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"got one store.*xr.open_datatree"):
        ts.open_cohort(folder / "z.svs.features.zarr")
    with pytest.raises(ConfigError, match="got a URL"):
        ts.open_cohort("s3://bucket/out")


def test_several_encoders_are_never_mixed(folder):
    make_store(folder, "other.svs", encoders=(("conch", OUTPUTS[:2]),), height=100, width=100)
    with pytest.raises(ConfigError, match=r"`uni` on 4 slides \(3 values, .*\); `conch` on 1 slides \(2 values,"):
        ts.open_cohort(folder)
    assert ts.open_cohort(folder, encoder="conch").conch.shape == (4, 2)
    assert list(ts.open_cohort(folder, encoder="uni").slide.values) == list(SLIDES)
    with pytest.raises(ConfigError, match=r"encoder `virchow`.*`uni` on 4 slides.*expected one of these sets"):
        ts.open_cohort(folder, encoder="virchow")


@pytest.mark.parametrize(
    "odd",
    [
        {"encoders": (("uni", OUTPUTS[:2]),)},
        {"recipe": stage_recipe("uni", mpp=1.0)},
        {"recipe": {**stage_recipe("uni"), "stages": {"uni": {"target": "uni", "source": "edited"}}}},
    ],
)
def test_one_encoder_used_in_two_ways_is_two_sets(folder, odd):
    make_store(folder, "odd.svs", height=100, width=100, **odd)
    with pytest.raises(ConfigError, match="`uni@") as caught:
        ts.open_cohort(folder)
    names = [word for word in str(caught.value).split("`") if word.startswith("uni@")]
    found = [list(ts.open_cohort(folder, encoder=name).slide.values) for name in names]
    assert found == [list(SLIDES), ["odd.svs"]]


def test_a_store_that_is_gone_is_left_out_with_a_warning_once(folder):
    ts.open_cohort(folder)
    shutil.rmtree(folder / "z.svs.features.zarr")
    with pytest.warns(UserWarning, match="1 feature stores of an earlier run are not there any more: z.svs"):
        cohort = ts.open_cohort(folder)
    assert list(cohort.slide.values) == list(SLIDES)[:-1]
    assert "z.svs" in cohort.attrs["notes"][0]
    ts.open_cohort(folder)  # warnings are errors here


def test_a_damaged_store_is_named_each_time(folder):
    (folder / "z.svs.features.zarr" / "zarr.json").write_text("{}")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"`z.svs.features.zarr` is left out"):
            assert ts.open_cohort(folder).sizes["slide"] == 3


def test_new_stores_are_there_though_the_index_is_older(folder):
    ts.open_cohort(folder)
    make_store(folder, "b/new.svs", height=64, width=64)
    assert "b/new.svs" in ts.open_cohort(folder).slide.values


def test_a_folder_that_cannot_be_written_is_opened_with_a_note(folder, monkeypatch):
    def refuse(root, catalogue):
        raise OutputError("a read-only file system")

    monkeypatch.setattr(cohort_index, "write_catalogue", refuse)
    with pytest.warns(UserWarning, match=r"the index was not written.*a read-only file system"):
        assert ts.open_cohort(folder).sizes["slide"] == 4


def test_an_index_that_another_writes_does_not_hold_anybody_up(folder):
    lease = claim(folder / LEASE)
    assert lease is not None
    with lease:
        with pytest.warns(UserWarning, match=r"the index was not written.*another run that is writing it"):
            assert ts.open_cohort(folder).sizes["slide"] == 4
        with pytest.raises(OutputError, match="another run that is writing it"):
            save_index(folder, wait_s=0.05)
    save_index(folder)
    assert not (folder / LEASE).exists()


def _save(folder: Path, number: int) -> None:
    for turn in range(3):
        save_index(folder, {f"{number}-{turn}.svs": Given(label=str(number))})


def test_of_many_that_write_the_index_at_once_none_loses_what_another_says(folder):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_save, args=(folder, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    given = read_catalogue(folder).given
    assert {key: one.label for key, one in given.items()} == {
        f"{n}-{turn}.svs": str(n) for n in range(3) for turn in range(3)
    }
    assert ts.open_cohort(folder).sizes["slide"] == 4


def test_labels_come_from_a_manifest_given_later(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label,stage\n/elsewhere/a/one.svs,tumour,II\na/two.svs,normal,I\nz.svs,tumour,I\n")
    cohort = ts.open_cohort(folder, manifest=table)
    assert list(cohort.label.values) == ["tumour", "normal", "", "tumour"]
    assert list(cohort.sel(stage="I", label="tumour").slide.values) == ["z.svs"]
    assert not any(ts.open_cohort(folder).label.values)  # nothing is kept of it


def test_one_image_under_several_names_is_told_each_time(folder):
    make_store(folder, "slides/z.svs", fingerprint="z.svs", height=500, width=130)
    make_store(folder, "z.png", fingerprint="z.svs", selection={"page": 1}, height=500, width=130)
    make_store(folder, "z.tif", fingerprint="z.svs", encoders=(("conch", OUTPUTS),), height=64, width=64)
    for _ in range(2):  # from the stores, then from the index
        with pytest.warns(UserWarning, match=r"^images under several names.*: `slides/z.svs` and `z.svs`\. ") as caught:
            cohort = ts.open_cohort(folder, encoder="uni")
        assert len(caught) == 1
        assert cohort.attrs["notes"] == [str(caught[0].message)]
    for name in SLIDES:
        make_store(folder, f"again/{name}", fingerprint=name, **SLIDES[name])
    with pytest.warns(UserWarning, match=r"`three ü.tif`; and 1 more\. "):
        ts.open_cohort(folder, encoder="uni")


@pytest.mark.parametrize("labels", [{"label": "tumour"}, {"date": "2024"}, {"date": slice("2024", None)}])
def test_what_nobody_has_said_of_a_cohort_cannot_be_selected_by(tmp_path, labels):
    make_store(tmp_path, "a.svs", height=64, width=64)
    cohort = ts.open_cohort(tmp_path)
    (name,) = labels
    with pytest.raises(ConfigError, match=rf"no `{name}`: got .* \(`slide`\)\. Give a manifest with a column `{name}`"):
        cohort.sel(labels)


def test_a_manifest_that_names_nothing_or_too_much_is_refused(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nx.svs,tumour\n")
    with pytest.raises(ConfigError, match=r"no row that names a slide.*paths such as `a/one.svs`"):
        ts.open_cohort(folder, manifest=table)
    make_store(folder, "b/one.svs", height=64, width=64)
    table.write_text("path,label\none.svs,tumour\n")
    with pytest.raises(ConfigError, match=r"line 2: got `one.svs`, which fits 2 slides"):
        ts.open_cohort(folder, manifest=table)


def test_a_run_leaves_an_index_with_what_its_manifest_said(embed: Embed, tmp_path):
    (tmp_path / "in").mkdir()
    for name, edge in {"a.svs": 600, "b.svs": 620}.items():
        write_slide(tmp_path / "in" / name, Shape(y=edge, x=edge), mpp=0.5)
    table = tmp_path / "in" / "table.csv"
    table.write_text("path,label,date\na.svs,tumour,2024-05-02\nb.svs,normal,2024-06-01\n")
    assert embed("--manifest", table, "--where", "all").exit_code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cohort = ts.open_cohort(tmp_path / "out")
    assert list(cohort.label.values) == ["tumour", "normal"]
    assert list(cohort.sel(date="2024-05").slide.values) == ["a.svs"]
    # a later run of one of them, without the manifest, forgets nothing
    assert embed(tmp_path / "in" / "a.svs", "--where", "all").exit_code == 0
    assert list(ts.open_cohort(tmp_path / "out").label.values) == ["tumour", "normal"]
    tiles = ts.open_cohort(tmp_path / "out").sel(label="normal")
    assert np.isfinite(tiles.handcrafted.values).all()
