"""Metadata of labels, held against a validator of OME-Zarr 0.5 and against what CF says of flags."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from tilestream.sinks.ome import CellGrid, ome_attributes, ome_channel
from tilestream.sinks.omelabels import COLORS, VALID, flag_attributes, image_label, labels_attributes
from tilestream.sources.opening import open_source
from tilestream.types import ClassBand, Shape

SCL = ClassBand(name="SCL", values={number: f"class {number}" for number in range(12)})
QA = ClassBand(name="QA_PIXEL", bits={"fill": (0, 1), "cloud": (3, 1), "cloud_confidence": (8, 2)})
UNKNOWN = ClassBand(name="thing")


def save(path, band):
    """Write an image with one label image beside it."""
    grid = CellGrid(shape=Shape(y=8, x=8), size_yx=(1.0, 1.0), corner_yx=(0.0, 0.0))
    root = zarr.open_group(path, mode="w", zarr_format=3)
    channels = [ome_channel("x", window=(0, 1))]
    root.attrs["ome"] = ome_attributes("x", grid, [(1, 1)], channels=channels, method=("mean", ""))
    root.create_array("0/image", data=np.zeros((1, 8, 8), np.uint8), dimension_names=["c", "y", "x"])
    root.create_group("labels").attrs.update(labels_attributes([band.name]))
    group = root.create_group(f"labels/{band.name}")
    ome = ome_attributes(band.name, grid, [(1, 1)], channels=[], method=("mode", ""))
    group.attrs["ome"] = {**ome, "image-label": image_label(band)}
    array = group.create_array("0/image", data=np.arange(64, dtype=np.uint8).reshape(8, 8), dimension_names=[*"yx"])
    array.attrs.update(flag_attributes(band))
    return path


@pytest.mark.parametrize("band", [SCL, QA, VALID, UNKNOWN], ids=lambda band: band.name)
def test_a_validator_takes_it(tmp_path, band):
    yaozarrs = pytest.importorskip("yaozarrs")
    path = save(tmp_path / "a.zarr", band)
    yaozarrs.validate_zarr_store(str(path))
    yaozarrs.validate_zarr_store(str(path / "labels"))
    yaozarrs.validate_zarr_store(str(path / "labels" / band.name))


@pytest.mark.parametrize("band", [SCL, QA, VALID, UNKNOWN], ids=lambda band: band.name)
def test_we_know_it_as_labels_again(tmp_path, band):
    path = save(tmp_path / "a.zarr", band)
    assert open_source(str(path / "labels" / band.name)).info.kind == "labels"
    assert open_source(str(path)).info.kind == "intensity"
    assert open_source(str(path / "labels")).info.axes["label"] == 1


def test_classes_of_sentinel_2():
    found = image_label(SCL)
    assert found["source"] == {"image": "../../"}
    assert [entry["label-value"] for entry in found["colors"]] == list(range(12))
    colors = {entry["label-value"]: entry["rgba"] for entry in found["colors"]}
    assert (colors[0], colors[4], colors[6]) == ([0, 0, 0, 0], [0, 160, 0, 255], [0, 0, 255, 255])
    assert found["properties"][3] == {"label-value": 3, "class": "class 3"}
    assert len(COLORS["scl"]) == 12


def test_colours_only_of_classes_that_are_there():
    found = image_label(ClassBand(name="scl", values={6: "water", 300: "new"}))
    assert [entry["label-value"] for entry in found["colors"]] == [6]
    assert [entry["label-value"] for entry in found["properties"]] == [6, 300]
    assert image_label(UNKNOWN) == {"version": "0.5", "source": {"image": "../../"}}


def test_flags_of_cf():
    assert flag_attributes(VALID) == {"flag_values": [0, 1], "flag_meanings": "not_measured measured"}
    assert flag_attributes(ClassBand(name="q", bits={"a": (0, 1), "b c": (4, 1)})) == {
        "flag_masks": [1, 16],
        "flag_meanings": "a b_c",
    }
    assert flag_attributes(QA) == {
        "flag_masks": [1, 8, 768, 768, 768, 768],
        "flag_values": [1, 8, 0, 256, 512, 768],
        "flag_meanings": "fill cloud cloud_confidence_0 cloud_confidence_1 cloud_confidence_2 cloud_confidence_3",
    }
    assert flag_attributes(UNKNOWN) == {}
