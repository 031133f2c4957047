"""`--where` with coordinates of TRIDENT and CLAM: one file, a folder of them, on a grid and off it, for maps too."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tilestream.cli import app
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

SHAPE = Shape(y=900, x=1300)
OFF = np.array([(13, 7), (301, 555), (600, 129), (601, 130), (1200, 850)])
ON = np.array([(0, 0), (256, 0), (512, 256)])
FEW = ("--encoder", "handcrafted", "--tile", "64", "--super-tile", "512")


@pytest.fixture(scope="module")
def slides(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    for number, name in enumerate(("a.svs", "b.svs")):
        write_slide(folder / name, SHAPE, seed=number)
    return folder


def put(path: Path, xy, **attributes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        coords = file.create_dataset("coords", data=xy)
        coords.attrs.update({"patch_size": 64, "patch_size_level0": 128} | attributes)
    return path


def corners(embed_run, key: str) -> set:
    tile = embed_run.tree(key)["tile"]
    return set(zip(tile["x"].values.astype(int).tolist(), tile["y"].values.astype(int).tolist(), strict=True))


def test_one_file_is_the_plan_of_one_slide(slides, tmp_path, embed):
    run = embed(slides / "a.svs", "--where", put(tmp_path / "any.h5", OFF), *FEW)
    assert run.exit_code == 0, run.stdout
    assert corners(run, "a.svs") == set(map(tuple, OFF.tolist()))
    tree = run.tree("a.svs")
    assert tree["tile"]["size"].values[0] == 128
    assert (tree["tile"]["handcrafted_status"].values == 0).all()
    assert tree["region"]["n"].values.sum() == len(OFF)
    heat = zarr.open_group(run.out / "a.svs.entropy.zarr", mode="r")["0/image"][:]
    assert 4 <= np.isfinite(heat).sum() <= len(OFF)  # neighbours may share a square of the raster
    cohort = ts.open_cohort(run.out)
    assert cohort.sizes["tile"] == len(OFF)
    again = embed(slides / "a.svs", "--where", tmp_path / "any.h5", *FEW)
    assert again.rows["a.svs"]["status"] == "done"


def test_a_folder_has_one_for_each_slide(slides, tmp_path, embed):
    put(tmp_path / "20x" / "patches" / "a_patches.h5", OFF)
    put(tmp_path / "20x" / "patches" / "b_patches.h5", ON)
    for where in (tmp_path / "20x", tmp_path / "20x" / "patches"):
        run = embed(slides, "--where", where, *FEW, out=where.name)
        assert run.exit_code == 0, run.stdout
        assert corners(run, "a.svs") == set(map(tuple, OFF.tolist()))
        assert corners(run, "b.svs") == set(map(tuple, ON.tolist()))


def test_a_slide_without_a_file_fails_alone(slides, tmp_path, embed):
    put(tmp_path / "clam" / "patches" / "b.h5", OFF)
    run = embed(slides, "--where", tmp_path / "clam", *FEW)
    assert run.exit_code == 3
    assert run.rows["b.svs"]["status"] == "done"
    assert "a_patches.h5`: got nothing there" in run.rows["a.svs"]["reason"]


def test_check_counts_the_patches(slides, tmp_path):
    put(tmp_path / "p" / "patches" / "a_patches.h5", OFF)
    put(tmp_path / "p" / "patches" / "b_patches.h5", ON)
    words = ["check", slides, "--out", tmp_path / "o", "--where", tmp_path / "p", *FEW, "--json"]
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    inputs = {row["path"]: row for row in json.loads(result.stdout)["inputs"]}
    assert [inputs[name]["forecast"]["tiles"] for name in ("a.svs", "b.svs")] == [len(OFF), len(ON)]


def test_a_manifest_names_files_too(slides, tmp_path, embed):
    put(tmp_path / "p" / "one.h5", ON)
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"path,mask\n{slides}/a.svs,{tmp_path}/p/one.h5\n")
    run = embed("--manifest", manifest, *FEW)
    key = next(iter(run.rows))
    assert corners(run, key) == set(map(tuple, ON.tolist()))


def test_coordinates_of_other_slides_are_refused(slides, tmp_path, embed):
    put(tmp_path / "p" / "other.h5", ON)
    run = embed(slides, "--where", tmp_path / "p", *FEW)
    assert run.exit_code == 2
    assert "none of which is an input (such as `other.h5`)" in run.stderr
    run = embed(slides, "--where", tmp_path / "p" / "other.h5", *FEW)
    assert run.exit_code == 2
    assert "one file for 2 images" in run.stderr
    wrong = put(tmp_path / "wrong.h5", ON, level0_width=77, level0_height=88)
    run = embed(slides / "a.svs", "--where", wrong, *FEW)
    assert run.exit_code == 3
    assert "Name the file of this very slide" in run.rows["a.svs"]["reason"]


def test_a_map_covers_the_area_of_the_patches(slides, tmp_path):
    where = put(tmp_path / "p.h5", ON)
    words = [
        "map",
        slides / "a.svs",
        "--out",
        tmp_path / "maps",
        "--stage",
        "gradient",
        "--where",
        where,
        "--tile",
        "64",
    ]
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.stdout
    (store,) = (tmp_path / "maps").glob("*.zarr")
    made = ts.open_pyramid(str(store))
    region = made.read_region(made.levels[0].box)
    rows, columns = np.nonzero(region.valid)
    scale = SHAPE.x / made.levels[0].shape.x
    assert 0 < rows.max() * scale < 400
    assert 0 < columns.max() * scale < 700
