"""The index of a folder of stores: what it says, what it notices, and what it takes no notice of."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import zarr

from tests.madecohort import OUTPUTS, SLIDES, make_store
from tests.madecohort import made_cohort as made_cohort
from tilestream.errors import DamagedError
from tilestream.sinks.catalogue import (
    INDEX,
    Catalogue,
    Given,
    find_stores,
    read_catalogue,
    refresh,
    with_given,
    write_catalogue,
)
from tilestream.sinks.rowsread import RowLayout, read_rows, read_texts
from tilestream.sinks.storerecord import SUFFIX


@pytest.fixture
def made(made_cohort):
    return made_cohort


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def keys(catalogue):
    return [record.key for record in catalogue.records]


def test_stores_are_found_wherever_they_lie_and_nothing_else_is(folder):
    (folder / "half.svs.features.zarr").mkdir()  # nothing committed in it
    shutil.copytree(folder / f"z.svs{SUFFIX}", folder / f".z.svs{SUFFIX}.partial")
    shutil.copytree(folder / f"z.svs{SUFFIX}", folder / "other.zarr" / f"z.svs{SUFFIX}")
    shutil.copytree(folder / f"z.svs{SUFFIX}", folder / "receipts" / "b" / f"z.svs{SUFFIX}")
    shutil.copytree(folder / f"z.svs{SUFFIX}", folder / "b" / "receipts" / f"z.svs{SUFFIX}")
    (folder / "receipts" / "a" / "one.svs" / f"no.svs{SUFFIX}").mkdir(parents=True)
    (folder / "receipts" / "a" / "one.svs" / f"no.svs{SUFFIX}" / "zarr.json").touch()  # receipts are not looked through
    assert list(find_stores(folder)) == sorted([*SLIDES, "b/receipts/z.svs", "receipts/b/z.svs"])


def test_what_is_known_is_what_the_stores_hold(made):
    found = refresh(made, Catalogue())
    assert keys(found.catalogue) == list(SLIDES)
    assert found.is_changed
    assert found.notes == ()
    ((digest, one),) = found.catalogue.sets.items()
    assert (one.encoder, one.outputs, one.statistics) == ("uni", OUTPUTS, ("mean", "std"))
    for place, record in enumerate(found.catalogue.records):
        store = zarr.open_group(made / f"{record.key}{SUFFIX}", mode="r")
        assert record.n == store["tile/status"].shape[0]
        assert record.sets == {digest: int(store["slide/uni_n_ok"][()])}
        assert record.n_ok == int(store["slide/n_ok"][()])
        assert record.size_yx == (64.0, 64.0)
        for statistic, name in (("mean", "uni"), ("std", "uni_std")):
            np.testing.assert_array_equal(
                found.catalogue.vectors[digest][statistic][place], store[f"slide/{name}"][:], strict=True
            )
    assert found.catalogue.records[-1].datetime == "2024-05-17T10:30:00Z"


def test_the_index_gives_back_what_was_written(folder):
    found = with_given(refresh(folder, Catalogue()).catalogue, {"z.svs": Given(label="µ", extra={"split": "test"})})
    assert write_catalogue(folder, found) == folder / INDEX
    again = read_catalogue(folder)
    assert again.records == found.records
    assert again.given == found.given
    assert again.sets == found.sets
    for digest, tables in found.vectors.items():
        for statistic, table in tables.items():
            np.testing.assert_array_equal(again.vectors[digest][statistic], table, strict=True)
    assert not refresh(folder, again).is_changed


def test_only_what_is_new_changed_or_gone_is_noticed(folder):
    known = refresh(folder, Catalogue()).catalogue
    shutil.rmtree(folder / f"a/one.svs{SUFFIX}")
    make_store(folder, "a/new.svs", number=9)
    os.utime(folder / f"z.svs{SUFFIX}" / "zarr.json", ns=(1, 1))
    fresh = refresh(folder, known)
    assert fresh.read == ("a/new.svs", "z.svs")
    assert fresh.gone == ("a/one.svs",)
    assert "1 feature stores of an earlier run are not there any more: a/one.svs" in fresh.notes[0]
    assert keys(fresh.catalogue) == ["a/new.svs", "a/two.svs", "three ü.tif", "z.svs"]
    (tables,) = fresh.catalogue.vectors.values()
    first = [int(mean) // 10_000 for mean in tables["mean"][:, 0]]
    assert first == [9, 1, 2, 3]  # each vector still belongs to its slide


@pytest.mark.parametrize("nbytes", [0, 10, 4000])
def test_a_store_whose_metadata_are_cut_is_left_out_and_named(folder, nbytes):
    metadata = folder / f"z.svs{SUFFIX}" / "zarr.json"
    metadata.write_bytes(metadata.read_bytes()[:nbytes])
    fresh = refresh(folder, Catalogue())
    assert keys(fresh.catalogue) == list(SLIDES)[:-1]
    assert "`z.svs.features.zarr` is left out: no metadata of a feature store" in fresh.notes[0]


def test_a_store_of_another_kind_is_left_out_and_named(folder):
    metadata = folder / f"z.svs{SUFFIX}" / "zarr.json"
    document = json.loads(metadata.read_text())
    document["attributes"]["tilestream"]["store"] = "pyramid"
    metadata.write_text(json.dumps(document))
    assert "a store of another kind" in refresh(folder, Catalogue()).notes[0]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive at all"])
def test_an_index_that_cannot_be_read_is_none(folder, content):
    (folder / INDEX).write_bytes(content)
    assert read_catalogue(folder) == Catalogue()


def test_an_index_cut_anywhere_is_none_or_whole(folder):
    write_catalogue(folder, refresh(folder, Catalogue()).catalogue)
    data = (folder / INDEX).read_bytes()
    for nbytes in range(0, len(data), max(1, len(data) // 50)):
        (folder / INDEX).write_bytes(data[:nbytes])
        assert read_catalogue(folder) == Catalogue()


def test_vectors_that_are_altered_are_damage(folder):
    file = folder / f"z.svs{SUFFIX}" / "slide" / "uni" / "c" / "0"
    data = bytearray(file.read_bytes())
    data[9] ^= 0xFF
    file.write_bytes(bytes(data))
    fresh = refresh(folder, Catalogue())
    assert "z.svs" not in keys(fresh.catalogue)
    assert "slide/uni/c/0" in fresh.notes[0]
    names = folder / f"z.svs{SUFFIX}" / "tile" / "feature_uni"
    (names / "c" / "0").write_bytes(b"no zstd")
    with pytest.raises(DamagedError, match="feature_uni"):
        read_texts(names)


def test_small_variables_are_read_as_zarr_reads_them(made):
    for key in SLIDES:
        folder = made / f"{key}{SUFFIX}"
        nodes = json.loads((folder / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
        store = zarr.open_group(folder, mode="r")
        for path in ("tile/uni", "tile/x", "tile/size", "tile/status", "region/uni_std", "slide/uni"):
            np.testing.assert_array_equal(read_rows(folder / path, RowLayout.of(nodes[path])), store[path][:])
        assert read_texts(folder / "tile/feature_uni") == OUTPUTS
