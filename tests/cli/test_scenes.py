"""Scenes on the command line: classes that do not count, decibels, what info shows, and what is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from tests.sources.madescene import noise, save_band
from tests.sources.test_radar import save_grd
from tests.sources.test_stac import band, save_item


@pytest.fixture
def scene(tmp_path):
    """Red and infrared; the upper left quarter is cloud, with values that would be seen in any mean."""
    path = save_item(tmp_path / "s", {"red": band("red"), "nir": band("nir"), "scl": {"href": "./scl.tif"}})
    scl = np.full((128, 128), 4, np.uint8)
    scl[:64, :64] = 9
    save_band(tmp_path / "s" / "scl.tif", scl)
    for seed, name in enumerate(("red", "nir")):
        pixels = noise(128, seed, high=500)
        pixels[:64, :64] = 60_000
        save_band(tmp_path / "s" / f"{name}.tif", pixels, nodata=None)
    return path


def run(call, *arguments):
    result = call(*arguments, "--json")
    return result.exit_code, json.loads(result.stdout)


def embed(call, scene, out, *options):
    options = ("--where", "all", "--tile", 64, "--value-range", "0,10000", *options)
    return run(call, "embed", scene, "--out", out, *options)


def test_pixels_of_a_class_enter_no_statistic(call, scene, tmp_path):
    out = tmp_path / "out"
    code, document = embed(call, scene, out, "--invalid", "SCL=cloud_high_probability,8")
    assert code == 0
    assert document["inputs"][0]["tiles_empty"] == 1
    tile = xr.open_datatree(out / "s.features.zarr", engine="zarr")["tile"].to_dataset()
    np.testing.assert_array_equal(tile["status"].values, [2, 0, 0, 0])
    np.testing.assert_array_equal(tile["valid"].values, [0, 1, 1, 1])
    report = json.loads((out / "report.json").read_text())
    assert report["options"]["invalid"] == {"SCL": ["cloud_high_probability", "8"]}


def test_other_classes_are_another_set_of_options(call, scene, tmp_path):
    out = tmp_path / "out"
    assert embed(call, scene, out, "--invalid", "SCL=9")[0] == 0
    again, _ = embed(call, scene, out, "--invalid", "SCL=cloud_high_probability")  # the same in other words
    assert again == 0
    code, document = embed(call, scene, out, "--invalid", "SCL=4")
    assert code == 3
    assert "--no-resume" in document["inputs"][0]["reason"]


def test_check_and_embed_say_alike_that_a_layer_is_not_there(call, scene, tmp_path):
    for command in ("check", "embed"):
        code, document = run(call, command, scene, "--out", tmp_path / command, "--invalid", "QA_PIXEL=cloud")
        assert code == 3
        assert "class layer `QA_PIXEL`" in document["inputs"][0]["reason"]
        assert "one of SCL" in document["inputs"][0]["reason"]


@pytest.mark.parametrize(("option", "value"), [("--invalid", "SCL"), ("--db", "loud")])
def test_an_option_that_is_not_understood_is_usage(call, scene, tmp_path, option, value):
    result = call("check", scene, option, value)
    assert result.exit_code == 2
    assert value in result.output


def test_radar_in_decibels(call, tmp_path):
    path = save_grd(tmp_path / "grd")
    options = ("--where", "all", "--tile", 32, "--value-range", "0,100", "--db", "amplitude")
    code, _ = run(call, "embed", path, "--out", tmp_path / "out", *options)
    assert code == 0
    store = xr.open_datatree(tmp_path / "out" / "grd.features.zarr", engine="zarr")
    assert store.attrs["image"]["derived"] == ["decibels of amplitude"]


def test_info_shows_date_layers_and_what_is_absent(call, scene, tmp_path):
    item = json.loads((tmp_path / "s" / "item.json").read_text())
    item["properties"] = {"datetime": "2020-02-19T11:34:25Z"}
    item["assets"]["swir16"] = band("swir16")
    (tmp_path / "s" / "item.json").write_text(json.dumps(item))
    printed = call("info", scene).stdout
    assert "taken           2020-02-19T11:34:25Z" in printed
    assert "class layers    SCL" in printed
    assert "left out: swir16" in printed
    facts = json.loads(call("info", f"{scene}#classes=SCL", "--json").stdout)
    assert (facts["kind"], facts["classes"][0]["values"]["9"]) == ("labels", "cloud_high_probability")
    assert json.loads(call("info", f"{scene}#invalid=SCL=9", "--json").stdout)["derived"] == ["invalid SCL=9"]
