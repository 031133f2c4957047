"""`tilestream train dino` on stores: regions as they were cut, what it writes, says and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import tilestream as ts
from tests.madebags import write_bag
from tests.madecohort import stage_recipe
from tilestream.cli import app
from tilestream.errors import ConfigError
from tilestream.models.vit import GridEmbed, VisionTransformer
from tilestream.models.weights import load_weights
from tilestream.pipelines.train_grids import StoredGrids, find_regions

SHAPE = ("--dim", 8, "--depth", 1, "--heads", 2, "--large", 3, "--small", 2, "--prototypes", 8, "--hidden", 8)
QUICK = (*SHAPE, "--region-tiles", 4, "--epochs", 2, "--batch", 2)
COLUMNS, BAD = 10, (5, 7)


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Path:
    """Two slides, of 5 x 10 and 2 x 2 tiles; each vector says where it is."""
    folder = tmp_path_factory.mktemp("grids")
    vectors = np.stack([np.full(50, 1), *np.divmod(np.arange(50), COLUMNS)], 1)
    write_bag(folder, "a.svs", vectors, columns=COLUMNS, bad=BAD)
    write_bag(folder, "b.svs", np.full((4, 3), 7), columns=2)
    return folder


@pytest.fixture
def train(tmp_path):
    def run(features, *options, out="out"):
        arguments = [str(one) for one in ("train", "dino", features, "--out", tmp_path / out, *QUICK, *options)]
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return run


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_grids_hold_each_tile_where_it_lay(stores, keep_bytes):
    cohort = ts.open_cohort(stores)
    regions = find_regions(stores, cohort, "uni", cells=4, least_share=0.25)
    grids = StoredGrids(cohort, encoder="uni", regions=regions, cells=4, keep_bytes=keep_bytes)
    # of 2 x 3 regions of the first slide that of a row of two tiles is too empty; the second slide is a quarter
    assert (regions.count, regions.left_out) == (6, 1)
    for _ in range(2):
        found, mask = grids.read(np.array([5, 1, 0, 2]))
        assert found.shape == (4, 3, 4, 4)
        assert mask.sum((1, 2)).tolist() == [4, 14, 16, 8]
        assert (found.transpose(0, 2, 3, 1)[~mask] == 0).all()
        y, x = np.mgrid[:4, :4]
        for place, left in ((1, 4), (2, 0), (3, 8)):
            own = mask[place]
            assert (found[place, 1][own] == y[own]).all()
            assert (found[place, 2][own] == (left + x)[own]).all()
        assert not mask[1][0, 1]  # damaged
        assert not mask[1][0, 3]
        assert mask[0, :2, :2].all()


def test_regions_that_cannot_be_made_are_told(stores):
    cohort = ts.open_cohort(stores)
    with pytest.raises(ConfigError, match=r"got none with vectors in 90% of its cells; 2 with fewer"):
        find_regions(stores, cohort, "uni", cells=16, least_share=0.9)


def test_what_it_writes_and_says(stores, train, tmp_path):
    done = train(stores)
    assert done.exit_code == 0, done.output
    said = done.stdout.replace("\n", " ")
    assert "6 regions of 4 x 4 tiles on 2 slides; `uni`, 3 values a tile; " in said
    assert "left out 1 with too few tiles" in said
    assert "after 2 epochs" in said
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["regions"], metrics["steps"], metrics["last"]["epoch"]) == (6, 6, 2)
    assert metrics["features"]["recipe"]["tile_px"] == 64
    assert len((out / "metrics.csv").read_text().splitlines()) == 3
    assert (out / "metrics.png").read_bytes().startswith(b"\x89PNG")
    backbone = VisionTransformer(GridEmbed(channels=3, dim=8), dim=8, depth=1, heads=2, grid_yx=(3, 3))
    load_weights(backbone, out / "checkpoint.pth", model="vit4k")
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert str(tmp_path).encode() not in b"".join(files.values())
    train(stores)
    train(stores, "--memory", 1, out="other")
    for again in (out, tmp_path / "other"):
        assert {path.name: path.read_bytes() for path in again.iterdir()} == files
    assert "another training" in train(stores, "--seed", 1).stderr.replace("\n", " ")
    assert train(stores, "--seed", 1, "--no-resume").exit_code == 0
    assert torch.load(out / "checkpoint.pth", weights_only=True)["args"]["seed"] == 1


def test_weights_of_any_shape_are_a_region_stage(stores, train, tmp_path):
    trained = train(stores)
    weights = tmp_path / "out" / "checkpoint.pth"
    options = ["--region-stage", "vit", "--weights-4k", str(weights), "--region", "256"]  # 4 tiles of 64 px
    assert f"for `embed` and `regions`: {' '.join(options)}" in trained.stdout.replace("\n", " ").replace("  ", " ")
    arguments = ["regions", str(stores), "--out", str(tmp_path / "regions"), *options]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    cohort = ts.open_cohort(stores)
    regions = find_regions(stores, cohort, "uni", cells=4, least_share=0.25)
    grids = StoredGrids(cohort, encoder="uni", regions=regions, cells=4, keep_bytes=0)
    values, mask = grids.read(np.array([0]))
    backbone = VisionTransformer(GridEmbed(channels=3, dim=8), dim=8, depth=1, heads=2, grid_yx=(3, 3)).eval()
    load_weights(backbone, weights, model="vit4k")
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(values), torch.from_numpy(mask)).numpy()
    with xr.open_datatree(tmp_path / "regions" / "a.svs.features.zarr", engine="zarr") as tree:
        found = tree["region"]["uni"].values
    assert found.shape == (6, 8)
    np.testing.assert_allclose(found[:1], expected, rtol=1e-5, atol=1e-6)


def test_vectors_of_random_weights_are_told(train, tmp_path):
    recipe = stage_recipe("uni", tile_px=64)
    recipe["stages"]["uni"]["contract"] = {"weights": "random:3"}
    write_bag(tmp_path / "in", "a.svs", np.ones((50, 3)), columns=COLUMNS, recipe=recipe)
    done = train(tmp_path / "in")
    assert done.exit_code == 0, done.output
    assert "note weights of `uni` were random (random:3)" in done.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--large", 5), "squares of a region: got 5 and 2 tiles of 4"),
        (("--lr", 0), "`--lr`: got 0.0, expected a step above 0"),
        (("--heads", 3), "`--dim`: got 8, expected a multiple of 3 heads"),
        (("--encoder", "conch"), "encoder `conch`"),
        (("--region-tiles", 40), "got none with vectors in 25% of its cells; 2 with fewer"),
    ],
)
def test_what_cannot_be_trained_is_told(stores, train, options, words):
    done = train(stores, *options)
    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")
