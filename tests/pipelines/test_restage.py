"""Other regions and slides from stored tiles: what `embed` would make with them, without a pixel."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.pipelines.conftest import Embed, Run
from tests.sinks.build import make_image, make_sink, tree_bytes, write_all
from tilestream.cli import app
from tilestream.errors import ConfigError
from tilestream.pipelines.chain import ChainChoice
from tilestream.pipelines.restage import RestageConfig, run_restage
from tilestream.sinks.facts import image_facts
from tilestream.sinks.factsread import image_of, plan_of
from tilestream.sinks.featureread import StoredFeatures
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Channel, ClassBand, Shape

STAGES = "tests.models.gridstages"
OPTIONS = ("--encoder", "tests.pipelines.faults.faulty:mean", "--tile", "64", "--super-tile", "512")


@pytest.fixture
def plain(embed: Embed, tmp_path: Path) -> Run:
    """A run that has pooled only."""
    (tmp_path / "in").mkdir()
    slide = write_slide(tmp_path / "in" / "made.svs", Shape(y=500, x=1100), seed=2)
    return embed(slide.parent, *OPTIONS, out="plain")


@pytest.mark.parametrize("slide_stage", [None, f"{STAGES}:greatest"])
def test_equal_to_the_byte_to_what_embed_makes(
    plain: Run, embed: Embed, tmp_path: Path, slide_stage: str | None
) -> None:
    words = ("--region-stage", f"{STAGES}:corner_weighted", "--region", "256")
    words += ("--slide-stage", slide_stage) if slide_stage else ()
    whole = embed(tmp_path / "in", *OPTIONS, *words, out="whole")
    chain = ChainChoice(region=f"{STAGES}:corner_weighted", slide=slide_stage)
    config = RestageConfig(out=tmp_path / "anew", chain=chain, region_px=256)
    (row,) = run_restage([str(plain.out)], config)
    assert (row.key, row.reason, row.is_reused) == ("made.svs", "", False)
    assert row.regions == whole.rows["made.svs"]["regions"] > 0
    assert tree_bytes(row.store) == tree_bytes(whole.out / "made.svs.features.zarr")
    assert [path.name for path in (tmp_path / "anew").iterdir()] == ["made.svs.features.zarr"]
    # there already; and back to what was pooled
    assert run_restage([str(plain.out)], config)[0].is_reused
    back = RestageConfig(out=tmp_path / "back", chain=ChainChoice())
    (row,) = run_restage([str(row.store)], back)
    assert tree_bytes(row.store) == tree_bytes(plain.out / "made.svs.features.zarr")


def test_a_head_over_regions_of_a_stage(plain: Run, tmp_path: Path) -> None:
    """Of the encoder that it names, and of other regions than it was trained on."""
    pytest.importorskip("torch")
    from tilestream.models.head import HeadRecord, new_head, save_head

    made = new_head("mean", {}, dim=3, classes=2)
    for encoder, region_px, said in (("mean", 256, ""), ("mean", 512, "region_px 256"), ("other", 256, "by `other`")):
        features = {"recipe": {"chain": {"region_px": region_px}}}
        record = HeadRecord(
            aggregator="mean", params={}, dim=3, labels=("a", "b"), level="region", encoder=encoder, features=features
        )
        save_head(tmp_path / "head.safetensors", made, record)
        choice = ChainChoice(
            region=f"{STAGES}:corner_weighted",
            slide="head",
            slide_params={"weights": str(tmp_path / "head.safetensors")},
        )
        (row,) = run_restage([str(plain.out)], RestageConfig(out=tmp_path / "out", chain=choice, region_px=256))
        assert (said in row.reason) if said else not row.reason


def test_patches_off_the_grid_stay_where_they_were(embed: Embed, tmp_path: Path) -> None:
    """Of CLAM, which begins a grid at each contour: each patch stands for the nearest square of the plan's."""
    (tmp_path / "in").mkdir()
    write_slide(tmp_path / "in" / "made.svs", Shape(y=500, x=1100), seed=2)
    corners = [(100 + 64 * x, 50 + 64 * y) for x in range(4) for y in range(3)]
    corners += [(722 + 64 * x, 202 + 64 * y) for x in range(4) for y in range(3)]
    with h5py.File(tmp_path / "made.h5", "w") as file:
        file.create_dataset("coords", data=np.array(corners)).attrs.update({"patch_size": 64, "patch_level": 0})
    options = (*OPTIONS[:4], "--super-tile", "128", "--region", "128", "--where", str(tmp_path / "made.h5"))
    plain = embed(tmp_path / "in", *options, out="plain")
    whole = embed(tmp_path / "in", *options, "--slide-stage", f"{STAGES}:greatest", out="whole")
    config = {"out": tmp_path / "anew", "region_px": 128}
    (row,) = run_restage([str(plain.out)], RestageConfig(**config, chain=ChainChoice(slide=f"{STAGES}:greatest")))
    assert tree_bytes(row.store) == tree_bytes(whole.out / "made.svs.features.zarr")
    chain = ChainChoice(region=f"{STAGES}:corner_weighted")
    (row,) = run_restage([str(plain.out)], RestageConfig(**{**config, "out": tmp_path / "grid"}, chain=chain))
    assert "no common grid" in row.reason


def test_a_store_of_another_recipe_is_replaced_only_when_told(plain: Run, tmp_path: Path) -> None:
    store = plain.out / "made.svs.features.zarr"
    before = tree_bytes(store)
    config = {"out": plain.out, "chain": ChainChoice(region=f"{STAGES}:corner_weighted"), "region_px": 256}
    (row,) = run_restage([str(plain.out)], RestageConfig(**config))
    assert "give `--no-resume` to replace it" in row.reason
    assert tree_bytes(store) == before
    (row,) = run_restage([str(plain.out)], RestageConfig(**config, resume=False))
    assert row.reason == ""
    assert tree_bytes(store) != before


def test_what_cannot_be_done_is_a_row_or_an_error(plain: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="feature stores: got none in"):
        run_restage([str(tmp_path / "in")], RestageConfig(out=tmp_path / "out", chain=ChainChoice()))
    (plain.out / "made.svs.features.zarr" / "tile" / "mean" / "c" / "0" / "0").write_bytes(b"short")
    (plain.out / "other.features.zarr").mkdir()
    config = RestageConfig(out=tmp_path / "out", chain=ChainChoice(region=f"{STAGES}:Only4"), region_px=256)
    rows = run_restage([str(plain.out)], config)
    assert [row.key for row in rows] == ["made.svs", "other"]
    assert "vectors of 3 values" in rows[0].reason
    assert "zarr.json" in rows[1].reason
    (row, _) = run_restage([str(plain.out)], RestageConfig(out=tmp_path / "out", chain=ChainChoice()))
    assert "cut or altered" in row.reason


def test_tiles_chosen_one_by_one_are_told_to_stages_that_have_seen_whole_regions(plain: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    chain = ChainChoice(region=f"{STAGES}_torch:SmallViT")
    (row,) = run_restage([str(plain.out)], RestageConfig(out=tmp_path / "out", chain=chain))
    assert row.notes == ("its tiles were chosen one by one, and the region stage has only seen whole regions",)


def test_the_command_prints_what_it_has_made(plain: Run, tmp_path: Path) -> None:
    words = ["regions", str(plain.out), "--out", str(tmp_path / "out"), "--region-stage"]
    result = CliRunner().invoke(app, [*words, f"{STAGES}:nan_where_few", "--region", "256"])
    assert result.exit_code == 0, result.output
    *notes, last = result.stdout.strip().splitlines()
    assert len(notes) == 1
    assert notes[0].startswith("note made.svs: region stage of `mean`: values that are not finite, on ")
    assert re.match(r"1 done, 0 failed; \d+ regions, \d+ without a vector; ", last), last
    result = CliRunner().invoke(app, [*words, f"{STAGES}:Only4", "--region", "256", "--json", "--no-resume"])
    assert result.exit_code == 3
    (store,) = json.loads(result.stdout)["stores"]
    assert "vectors of 3 values" in store["reason"]
    result = CliRunner().invoke(app, [*words, "vit4k"])
    assert result.exit_code == 2
    assert "--weights-4k FILE" in result.stderr
    result = CliRunner().invoke(app, [*words, "mean", "--slide-stage", "head"])
    assert result.exit_code == 2
    assert "--slide-stage head=FILE" in result.stderr
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["regions", str(plain.out), "--out", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "expected a folder" in result.stderr.replace("\n", " ")


def test_a_head_of_regions_makes_the_vector_of_the_slide(plain: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tilestream.models.head import HeadRecord, new_head, save_head

    stages, dim = {"region": f"{STAGES}:corner_weighted"}, 3
    record = HeadRecord(
        aggregator="abmil",
        params={"hidden": 4},
        dim=dim,
        labels=("a", "b"),
        level="region",
        encoder="mean",
        features={},
    )
    save_head(tmp_path / "head.safetensors", new_head("abmil", {"hidden": 4}, dim=dim, classes=2), record)
    chain = ChainChoice(**stages, slide="head", slide_params={"weights": str(tmp_path / "head.safetensors")})
    (row,) = run_restage([str(plain.out)], RestageConfig(out=tmp_path / "anew", chain=chain, region_px=256))
    assert (row.key, row.reason) == ("made.svs", "")


def test_an_image_is_known_again_from_its_store(tmp_path: Path) -> None:
    image = make_image(
        nodata=float("nan"), notes=("one", "two"), selection={"z": 0}, axes={"z": 3}, crs="EPSG:32633",
        affine=(10.0, 0, 5e5, 0, -10.0, 5e6), gcps=((0, 0, 1.5, 2, 0),), content=Box(y=1, x=2, height=3, width=4),
        classes=(ClassBand(name="SCL", values={3: "shadow"}, bits={"cloud": (3, 1)}),), absent={"B1": "not there"},
        datetime="2024-05-17T10:30:00Z", derived=("decibels of power",), modality="scene",
    )  # fmt: skip
    assert isinstance(image.channels[0], Channel)
    sink = make_sink(tmp_path, image=image, recipe={"stages": {"handcrafted": {"target": "handcrafted"}}, "plan": {}})
    sink.finish(write_all(sink, damaged=[3], failed=[5]))
    stored = StoredFeatures.open(sink.root, "any")
    assert image_facts(image_of(stored.image)) == image_facts(image)
    assert plan_of(stored.plan, region_px=sink.plan.region_px) == sink.plan
