"""Relevance of a cohort: a figure and a raster an image, each in its place."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import tilestream as ts
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.attend_figure import bar_px, recipe_of
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.look_figure import Words
from tilestream.pipelines.look_panels import Ground
from tilestream.pipelines.look_relevance import RelevanceConfig, draw_map, examples_on_image, run_relevance
from tilestream.pipelines.relevance import relevance_of
from tilestream.relevance import Relevance
from tilestream.sources.discovery import find_inputs
from tilestream.testing.scene import write_scene
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape


def run(paths, out, terms="entropy,gradient", **options):
    cohort = read_cohort([str(path) for path in paths], out=out)
    return run_relevance(cohort, RelevanceConfig(out=out, terms=terms, **options))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("look") / "made.svs", Shape(y=1200, x=1500), seed=3)


def test_a_map_is_stored_where_the_image_says(slide, tmp_path):
    outcome = run([slide], tmp_path, each=True)
    (row,) = outcome.rows
    assert (row.status, outcome.exit_code()) == ("done", 0)
    assert row.bytes_read > 0
    names = ["", ".entropy", ".gradient"]
    wanted = [str(tmp_path / f"made.svs{name}.relevance.{kind}") for name in names for kind in ("png", "zarr")]
    assert list(row.outputs) == wanted
    pyramid = ts.open_pyramid(slide)
    relevance = Relevance.of("entropy,gradient")
    whole, maps = relevance.seen(pyramid)
    for part, scores in zip(names, (whole, *maps.values()), strict=True):
        with xr.open_datatree(tmp_path / f"made.svs{part}.relevance.zarr", engine="zarr") as tree:
            stored = tree["0"]["image"].load()
            np.testing.assert_array_equal(stored[0], np.where(scores.valid, scores.values, np.nan))
            step = scores.cell_yx[0] * pyramid.mpp
            # the first cell's centre, from the centre of the image's first pixel
            assert float(stored.y[0]) == pytest.approx(step / 2 - pyramid.mpp / 2)
            assert float(stored.y[1] - stored.y[0]) == pytest.approx(step)
    assert json.loads(recipe_of(tmp_path / "made.svs.relevance.png")) == relevance.recipe
    assert row.facts["terms"] == {"entropy": 0.5, "gradient": 0.5}


def test_a_scene_keeps_its_place_on_the_map(tmp_path):
    scene = write_scene(tmp_path / "made.tif", Shape(y=700, x=900))
    assert run([scene], tmp_path / "out").exit_code() == 0
    made, pyramid = ts.open_pyramid(tmp_path / "out" / "made.tif.relevance.zarr"), ts.open_pyramid(scene)
    assert made.crs == pyramid.crs
    assert made.affine[2] == pytest.approx(pyramid.affine[2])
    assert made.affine[5] == pytest.approx(pyramid.affine[5])
    step = Relevance.of("entropy,gradient")(pyramid).cell_yx[1]
    assert made.affine[0] == pytest.approx(step * pyramid.affine[0])


def test_one_bad_file_stops_nobody_and_outputs_are_no_inputs(slide, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.svs").write_bytes(slide.read_bytes())
    (folder / "bad.svs").write_text("no slide")
    for _ in range(2):  # the second time over its own outputs
        outcome = run([folder], folder)
        assert [(row.path, row.status) for row in outcome.rows] == [("bad.svs", "failed"), ("good.svs", "done")]
        assert outcome.exit_code() == 3
    assert [one.relative for one in find_inputs([folder]) if one.state == "input"] == ["bad.svs", "good.svs"]
    assert not list(folder.glob("bad.svs.*"))


def test_an_empty_slide_says_that_nothing_stands_out(tmp_path):
    from PIL import Image

    Image.new("RGB", (600, 500), (244, 243, 245)).save(tmp_path / "glass.png")
    outcome = run([tmp_path / "glass.png"], tmp_path / "out")
    assert outcome.exit_code() == 0
    assert any("nothing stands out" in note for note in outcome.rows[0].notes)
    assert outcome.rows[0].facts["mean"] == 0.0


def test_damage_is_told_once(shared_data, tmp_path):
    outcome = run([shared_data / "broken" / "corrupt.tif"], tmp_path)
    (row,) = outcome.rows
    assert len(row.damage) == 1
    assert not [note for note in row.notes if "block" in note]
    assert (outcome.exit_code(), outcome.exit_code(strict=True)) == (0, 3)


def test_what_is_not_ours_is_left_alone(slide, tmp_path):
    (tmp_path / "made.svs.relevance.zarr").mkdir()
    (tmp_path / "made.svs.relevance.zarr" / "mine.txt").write_text("keep")
    outcome = run([slide], tmp_path)
    assert outcome.rows[0].status == "failed"
    assert (tmp_path / "made.svs.relevance.zarr" / "mine.txt").read_text() == "keep"
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file of that name"):
        run([slide], tmp_path / "file")


def test_examples_of_a_query_are_outlined_and_named(slide, tmp_path):
    terms = 'entropy,query:"box=400,300,256,200;-box=0,0,90,80"'
    handcrafted = (EncoderChoice(name="handcrafted"),)
    wanted, unwanted = examples_on_image(list(relevance_of(terms, encoders=handcrafted).terms.values()))
    assert wanted == [Box(y=400, x=300, height=256, width=200)]
    assert unwanted == [Box(y=0, x=0, height=90, width=80)]
    (row,) = run([slide], tmp_path, terms=terms, encoders=handcrafted).rows
    assert row.status == "done", row.reason
    pyramid = ts.open_pyramid(slide)
    scores = Relevance.of("entropy")(pyramid)
    parts = Ground.of(pyramid), scores, np.ones((1, 1), np.bool_)
    with_boxes, bare = (
        draw_map(*parts, words=Words(title="made.svs", facts=("entropy",)), examples=examples)
        for examples in ((wanted, unwanted), ((), ()))
    )
    assert with_boxes.shape[0] == bare.shape[0] + 2 * 22  # two rows of the legend
    assert (with_boxes[: bare.shape[0]] != bare).any()


def test_unknown_terms_are_refused_before_an_image_is_open(slide, tmp_path):
    with pytest.raises(ConfigError, match="unknown name"):
        run([slide], tmp_path / "out", terms="entrpy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("width_px", "um_per_px", "label"),
    [(2000, 0.5, "200 µm"), (50_000, 0.5, "5 mm"), (10_980, 1e7, "20 km"), (2000, 3e5, "100 m"), (300, None, "50 px")],
)
def test_scale_bars_have_round_lengths(width_px, um_per_px, label):
    assert bar_px(width_px, um_per_px)[1] == label
