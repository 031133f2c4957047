"""Hierarchies on the command line: what is refused, what is recorded, what a report and a cohort show of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import tilestream as ts
from tests.pipelines.conftest import Embed, Run
from tilestream.cli import app
from tilestream.pipelines.train_bags import region_bags
from tilestream.testing.slide import write_slide
from tilestream.types import Shape, TileStatus

STAGES = "tests.models.gridstages"
ENCODER = ("--encoder", "tests.pipelines.faults.faulty:mean", "--tile", "64")
REGIONS = (*ENCODER, "--region", "256", "--super-tile", "512")


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small slide, no multiple of anything."""
    return write_slide(tmp_path_factory.mktemp("slide") / "made.svs", Shape(y=500, x=600), seed=2)


def refused(*arguments: object) -> str:
    """What the command line says, and that it says so before anything is made."""
    result = CliRunner().invoke(app, ["embed", *map(str, arguments)])
    assert result.exit_code == 2, result.output
    return result.stderr


def region_of(run: Run) -> tuple[dict, dict]:
    tree = run.tree("made.svs")
    return tree["region"].ds, tree["slide"].ds


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--region-stage", "vit4k"), "weights of `vit4k`: got none.*mahmoodlab/HIPT.*--weights-4k FILE"),
        (("--region-stage", "vit4"), "`vit4`: got an unknown name.*Did you mean `vit4k`"),
        (("--region-stage", f"{STAGES}:nothing"), "no attribute 'nothing'"),
        (("--slide-stage", "abmil"), "weights of `abmil`: got none.*--slide-stage NAME=FILE"),
        (("--slide-stage", "abmil=nowhere.pt"), "`--slide-stage`: got `nowhere.pt`, which is no file"),
        (("--weights-4k", __file__), "`--weights-4k`: got no region stage that takes it"),
        (("--region", "300"), "`--region`: got 300 px, expected a multiple of the tile, 64 px. Give 320"),
    ],
)
def test_what_no_image_could_do_is_refused_first(
    options: tuple[str, ...], words: str, slide: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    told = refused(slide, "--out", tmp_path / "out", *ENCODER, *options)
    assert re.search(words, told), told
    assert not (tmp_path / "out").exists()


def test_a_stage_for_other_vectors_is_refused_before_the_first_pixel(embed: Embed, slide: Path, tmp_path: Path) -> None:
    run = embed(slide, *REGIONS, "--region-stage", f"{STAGES}:Only4")
    assert run.exit_code == 3
    row = run.rows["made.svs"]
    assert "region stage" in row["reason"]
    assert "vectors of 3 values" in row["reason"]
    assert row["supertiles"]["total"] == 0
    assert not (run.out / "made.svs.features.zarr").exists()


def test_channels_that_a_model_does_not_take_are_refused(embed: Embed, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    import tifffile

    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 4), np.uint8)
    tifffile.imwrite(tmp_path / "four.tif", pixels, photometric="minisblack", planarconfig="contig", tile=(128, 128))
    run = embed(tmp_path / "four.tif", "--encoder", "tests.pipelines.smallmodel:SmallModel", "--where", "all")
    row = run.rows["four.tif"]
    assert row["status"] == "failed"
    assert "got 4 channels" in row["reason"]
    assert "expected 3" in row["reason"]


def test_regions_on_which_a_stage_fails_are_in_report_and_last_line(embed: Embed, slide: Path) -> None:
    run = embed(slide, *REGIONS, "--where", "all", "--region-stage", f"{STAGES}:nan_where_damaged")
    assert run.exit_code == 0
    region, whole = region_of(run)
    # 8 x 10 tiles of 64 px in regions of 4 x 4, those of a super-tile together: the last two have holes
    assert region["mean_status"].values.tolist() == [0, 0, 0, 0, 3, 3]
    row = run.rows["made.svs"]
    assert (row["regions"], row["regions_failed"], row["tiles_failed"]) == (6, 2, 0)
    assert "region stage of `mean`: values that are not finite, on 2 of 6 regions" in row["notes"]
    assert "6 regions, 2 without a vector;" in run.stdout
    assert "note region stage of `mean`: values that are not finite, on 2 of 6 regions" in run.stdout
    assert run.report["totals"]["regions"] == 6
    html = (run.out / "report.html").read_text()
    assert "6 regions" in html
    assert "Regions without a vector" in html
    mean = region["mean"].values[:4].astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(whole["mean"], mean)
    # nor does a head learn from them
    cohort = ts.open_cohort(run.out)
    (bag,) = region_bags(run.out, cohort, "mean").vectors
    np.testing.assert_array_equal(bag, region["mean"].values[:4])


def test_no_tissue_is_a_row_with_nothing(embed: Embed, tmp_path: Path) -> None:
    import tifffile

    white = np.full((600, 600, 3), 245, np.uint8)
    tifffile.imwrite(tmp_path / "white.tif", white, tile=(128, 128), resolution=(20000, 20000), resolutionunit=3)
    run = embed(tmp_path / "white.tif", *REGIONS, "--region-stage", f"{STAGES}:corner_weighted")
    assert run.exit_code == 0
    row = run.rows["white.tif"]
    assert (row["status"], row["tiles"], row["regions"]) == ("done", 0, 0)
    assert any("tissue" in note for note in row["notes"]), row["notes"]
    whole = run.tree("white.tif")["slide"].ds
    assert int(whole["mean_status"]) == TileStatus.EMPTY
    assert np.isnan(whole["mean"]).all()


def test_regions_are_taken_whole_where_the_stage_was_trained_so(embed: Embed, slide: Path) -> None:
    pytest.importorskip("torch")
    region_stage = ("--region-stage", f"{STAGES}_torch:SmallViT")  # its contract: 4 x 4 tiles, all of them there
    whole = embed(slide, *ENCODER, *region_stage, out="whole").tree("made.svs")
    some = embed(slide, *ENCODER, *region_stage, "--no-whole-regions", out="some").tree("made.svs")
    inside = {"n": [16, 16, 8, 16, 16, 8]}
    assert set(whole["region"]["n"].values) <= set(inside["n"])
    assert some["tile"].sizes["tile"] < whole["tile"].sizes["tile"]
    assert float(whole["region"]["size"][0]) == 256
    assert (whole["tile"]["tissue"].values < 0.1).any()  # tiles of regions, not of tissue


def test_another_file_of_weights_is_another_recipe_and_a_moved_one_is_not(
    embed: Embed, slide: Path, tmp_path: Path
) -> None:
    weights, moved = tmp_path / "w.npy", tmp_path / "elsewhere" / "other.npy"
    moved.parent.mkdir()
    np.save(weights, np.float32([2.0]))
    moved.write_bytes(weights.read_bytes())
    options = (slide, *REGIONS, "--where", "all", "--region-stage", f"{STAGES}:Scaled", "--weights-4k")
    first = embed(*options, weights)
    assert first.exit_code == 0
    assert str(tmp_path).encode() not in (first.out / "made.svs.features.zarr" / "zarr.json").read_bytes()
    assert embed(*options, moved).rows["made.svs"]["supertiles"]["computed"] == 0
    np.save(weights, np.float32([3.0, 3.0]))
    again = embed(*options, weights)
    assert again.exit_code == 3
    assert "a store of the same recipe" in again.rows["made.svs"]["reason"]
    anew = embed(*options, weights, "--no-resume")
    assert anew.exit_code == 0
    region = anew.tree("made.svs")["region"].isel(region=slice(4))  # the whole ones
    np.testing.assert_allclose(region["mean"], region["mean_mean"] * 3, rtol=1e-5)


def test_a_cohort_has_the_vectors_of_slides(embed: Embed, slide: Path) -> None:
    run = embed(slide, *REGIONS, "--where", "all", "--region-stage", f"{STAGES}:corner_weighted", "--slide-stage",
                f"{STAGES}:greatest")  # fmt: skip
    cohort = ts.open_cohort(run.out)
    _, whole = region_of(run)
    assert cohort["mean_slide"].dims == ("slide", "slide_feature_mean")
    np.testing.assert_array_equal(cohort["mean_slide"][0], whole["mean"])
    np.testing.assert_array_equal(cohort["mean_mean"][0], whole["mean_mean"])
    recipe = json.loads((run.out / "made.svs.features.zarr" / "zarr.json").read_text())["attributes"]["recipe"]
    assert set(recipe["chains"]["mean"]) == {"region", "slide"}


def test_several_encoders_have_a_region_stage_each(embed: Embed, slide: Path) -> None:
    second = ("--encoder", "tests.pipelines.faults.faulty:spread")
    run = embed(slide, *REGIONS, *second, "--where", "all", "--region-stage", f"{STAGES}:made_for")
    region, whole = region_of(run)
    for name, dim in (("mean", 3), ("spread", 6)):
        tiles = run.tree("made.svs")["tile"][name]
        assert tiles.shape[1] == dim
        assert region[name].dims == ("region", f"region_feature_{name}")
        assert np.isfinite(region[name]).all()
        assert whole[name].dims == (f"slide_feature_{name}",)
    assert run.rows["made.svs"]["regions"] == 6


def test_hipt_of_the_real_size_from_pixels_to_slide(embed: Embed, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tilestream.models.hipt import vit4k
    from tilestream.models.weights import random_weights

    slide = write_slide(tmp_path / "made.svs", Shape(y=300, x=500), seed=2)
    run = embed(slide, "--encoder", "hipt", "--random-weights", "7", "--where", "all", "--cluster", "threads:1")
    assert run.exit_code == 0, run.stderr
    region, whole = region_of(run)
    tiles = run.tree("made.svs")["tile"]["hipt"].values
    assert (tiles.shape, region["hipt"].shape, whole["hipt"].shape) == ((4, 384), (1, 192), (192,))
    assert float(region["size"][0]) == 4096
    grid, mask = np.zeros((1, 384, 16, 16), np.float32), np.zeros((1, 16, 16), bool)
    grid[0, :, :2, :2], mask[0, :2, :2] = tiles.T.reshape(384, 2, 2), True
    network = vit4k().eval()
    random_weights(network, seed=7)
    with torch.inference_mode():
        expected = network(torch.from_numpy(grid), torch.from_numpy(mask)).numpy()
    np.testing.assert_allclose(region["hipt"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole["hipt"], region["hipt"].values[0])
