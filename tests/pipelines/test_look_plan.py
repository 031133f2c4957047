"""Plans of a cohort: drawn, listed and counted as `embed` would read them."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import xarray as xr

from tests.pipelines.recording import Described, Recording
from tilestream.errors import ConfigError
from tilestream.pipelines.attend_figure import recipe_of
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.look_figure import LINE_PX, WARN
from tilestream.pipelines.look_plan import run_plan
from tilestream.pipelines.tokens import TokenChoice
from tilestream.pyramid import Pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


def config_of(out, budget=40, tile_px=64, where="all", **choice):
    return EmbedConfig(out=out, tile_px=tile_px, where=where, tokens=TokenChoice(budget=budget, **choice))


def run(paths, config):
    return run_plan(read_cohort([str(path) for path in paths], out=config.out), config)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("look") / "made.svs", Shape(y=1200, x=1500), seed=3)


def test_the_tokens_that_are_listed_are_those_that_embed_stores(slide, tmp_path):
    config = config_of(tmp_path, fixations_yx=((600.0, 400.0),), relevance="entropy")
    (row,) = run([slide], config).rows
    assert row.status == "done", row.reason
    assert list(row.outputs) == [f"{tmp_path}/made.svs{end}" for end in (".plan.png", ".tokens.geojson", ".tokens.csv")]
    assert run_embed(read_cohort([str(slide)], out=tmp_path), config).exit_code() == 0
    table = np.genfromtxt(row.outputs[2], delimiter=",", names=True)
    with xr.open_datatree(tmp_path / "made.svs.features.zarr", engine="zarr") as tree:
        tile = tree["tile"].ds.load()
    assert len(table) == tile.sizes["tile"] == row.facts["tokens"]
    for name, stored in (("x", "x"), ("y", "y"), ("width", "size"), ("stored", "level")):
        np.testing.assert_array_equal(table[name], tile[stored])
    np.testing.assert_allclose(table["relevance"], tile["relevance"], rtol=1e-5)
    features = json.loads(Path(row.outputs[1]).read_text())["features"]
    assert len(features) == len(table)


def test_what_is_said_of_levels_adds_up(slide, tmp_path):
    config = config_of(tmp_path)
    (row,) = run([slide], config).rows
    levels = row.facts["levels"]
    assert sum(level["tokens"] for level in levels) == row.facts["tokens"] <= 40
    assert sum(level["area_share"] for level in levels) == pytest.approx(1)
    assert [level["size_px"] for level in levels] == [64 * 2 ** level["level"] for level in levels]
    assert row.facts["share"] == row.facts["tokens"] / (19 * 24)
    assert json.loads(recipe_of(row.outputs[0]))["plan"] == row.facts["digest"]
    assert f"{row.facts['tokens']} tokens of 64 px" in row.words


def test_what_is_wanted_everywhere_has_no_legend_of_what_is_not_read(slide, tmp_path):
    figures, levels = [], []
    for where, white in (("all", None), ("mask", 1.0), ("part", 0.5)):
        mask = tmp_path / f"{where}.png"
        if white is not None:
            wanted = np.zeros((120, 150), np.uint8)
            wanted[:, : int(150 * white)] = 255
            mask.write_bytes(imagecodecs.png_encode(wanted))
        config = config_of(tmp_path / where, where="all" if white is None else str(mask))
        (row,) = run([slide], config).rows
        assert row.status == "done", row.reason
        figures.append(imagecodecs.png_decode(Path(row.outputs[0]).read_bytes()))
        levels.append(len(row.facts["levels"]))
    whole, masked, part = figures
    np.testing.assert_array_equal(whole, masked)
    assert part.shape[0] - whole.shape[0] == LINE_PX * (levels[2] + 1 - levels[0])  # a row a level, and one more


def test_a_slide_without_tissue_has_no_token_and_says_so(tmp_path):
    from PIL import Image

    Image.new("RGB", (600, 500), (244, 243, 245)).save(tmp_path / "glass.png")
    outcome = run([tmp_path / "glass.png"], config_of(tmp_path / "out", where="tissue"))
    (row,) = outcome.rows
    assert (row.status, outcome.exit_code()) == ("done", 0)
    assert row.words == "0 tokens of 64 px: nothing is selected"
    figure = imagecodecs.png_decode(Path(row.outputs[0]).read_bytes())
    assert (figure == WARN).all(axis=-1).any()
    assert json.loads(Path(row.outputs[1]).read_text())["features"] == []


def test_what_one_image_cannot_meet_stops_no_other(slide, tmp_path):
    small = write_slide(tmp_path / "small.svs", Shape(y=300, x=300))
    outcome = run([slide, small], config_of(tmp_path / "out", fixations_yx=((900.0, 900.0),)))
    assert [row.status for row in outcome.rows] == ["done", "failed"]
    assert "fixation" in outcome.rows[1].reason
    assert outcome.exit_code() == 3
    (row,) = run([slide], config_of(tmp_path / "out", budget=2, levels=(0, 1))).rows
    assert "the wanted squares of the coarsest level" in row.reason


def test_of_a_large_slide_only_coarse_levels_are_read(monkeypatch, tmp_path):
    """4.3 Gpx, of which a thousandth is decoded."""
    source = Recording(Described(1 << 16, levels=8))
    monkeypatch.setattr("tilestream.pipelines.look.open_pyramid", lambda url: Pyramid(source=source, cache_bytes=0))
    (tmp_path / "large.svs").write_bytes(b"")
    config = config_of(tmp_path / "out", budget=500, tile_px=256, where="tissue", relevance="entropy,gradient")
    (row,) = run([tmp_path / "large.svs"], config).rows
    assert row.status == "done", row.reason
    assert {level for level, _, _ in source.blocks} == {5, 6}  # 8 µm a pixel, and the picture of 720 px
    assert len(source.blocks) * 512**2 < 2**32 / 500
    assert row.facts["tokens"] <= 500
    assert row.facts["full_tokens"] > 4_000
    assert row.facts["share"] < 0.13


def test_without_a_budget_there_is_no_plan(slide, tmp_path):
    with pytest.raises(ConfigError, match="Give --budget"):
        run([slide], EmbedConfig(out=tmp_path / "out"))
