"""Scenes that went into a store: class layers, their meanings and the date come out of it again."""

from __future__ import annotations

import numpy as np
import pytest

import tilestream as ts
from tests.sources.madescene import save_landsat, save_safe
from tests.sources.test_radar import save_grd
from tilestream.errors import ConfigError
from tilestream.sources.storelayers import band_of_flags
from tilestream.types import ClassBand


@pytest.mark.parametrize("classes", [["cloud"], ["bits8-9:3"], ["fill"], ["cloud_confidence:1", "bit0"]])
@pytest.mark.parametrize("profile", ["portable", "gdal"])
def test_bit_fields_of_a_store_mean_what_they_meant(tmp_path, profile, classes):
    path, _ = save_landsat(tmp_path / "s", {"4": "SR_B4", "5": "SR_B5"})
    scene = ts.open_pyramid(path)
    ts.build_pyramid(path, tmp_path / "s.zarr", profile=profile)
    store = ts.open_pyramid(tmp_path / "s.zarr")
    assert store.info.datetime == scene.info.datetime
    assert store.info.classes == scene.info.classes
    box = scene.levels[0].box
    np.testing.assert_array_equal(store.classes("QA_PIXEL").read(box), scene.classes("QA_PIXEL").read(box))
    rule = {"QA_PIXEL": classes}
    found, expected = (one.choose(invalid=rule).read_region(box) for one in (store, scene))
    np.testing.assert_array_equal(found.valid, expected.valid)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert not found.valid.all()


def test_classes_of_a_store_at_each_level(tmp_path):
    path, _ = save_safe(tmp_path / "p", {"B02": 10, "B03": 10, "SCL": 20})
    ts.build_pyramid(path, tmp_path / "s.zarr", profile="portable")
    store = ts.open_pyramid(tmp_path / "s.zarr")
    layer = store.classes("SCL")
    assert (layer.kind, layer.info.classes) == ("labels", ts.open_pyramid(path).info.classes)
    for level in store.levels:
        region = store.choose(invalid={"SCL": ("cloud_shadow", 8)}).read_region(level.box)
        numbers = layer.read(level.box)[0]
        np.testing.assert_array_equal(region.valid, store.read_region(level.box).valid & ~np.isin(numbers, (3, 8)))


def test_decibels_of_a_store_are_not_taken_twice(tmp_path):
    path = save_grd(tmp_path / "p")
    ts.build_pyramid(f"{path}#db=amplitude", tmp_path / "s.zarr", profile="portable")
    scene, store = ts.open_pyramid(f"{path}#db=amplitude"), ts.open_pyramid(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.read(store.levels[0].box), scene.read(scene.levels[0].box))
    assert (store.info.derived, store.info.gcps) == (("decibels of amplitude",), scene.info.gcps)
    with pytest.raises(ConfigError, match="in decibels already"):
        store.choose(decibels="amplitude")


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({}, {}),
        ({"flag_meanings": "a b", "flag_values": [1, 2]}, {"values": {1: "a", 2: "b"}}),
        ({"flag_meanings": "a b", "flag_values": [1]}, {}),
        ({"flag_meanings": "a", "flag_values": ["1"]}, {}),
        ({"flag_meanings": "a b", "flag_masks": [1, 8]}, {"bits": {"a": (0, 1), "b": (3, 1)}}),
        ({"flag_meanings": "a_0 a_1", "flag_masks": [6, 6], "flag_values": [0, 2]}, {"bits": {"a": (1, 2)}}),
        ({"flag_meanings": "a", "flag_masks": [0]}, {}),
    ],
)
def test_flags_that_are_whole_and_those_that_are_not(attrs, expected):
    assert band_of_flags("x", attrs) == ClassBand(name="x", **expected)
