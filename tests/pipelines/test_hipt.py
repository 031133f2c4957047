"""HIPT's first stage in the main job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.pipelines.faults.runs import embed
from tilestream.cluster.client import open_client
from tilestream.pipelines.chain import ChainChoice
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape

torch = pytest.importorskip("torch")

SEED = 5


def in_memory(slide: Path, region_tiles: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the tiles and regions of a slide that is one big array, by torch alone, row by row."""
    from tilestream.models.hipt import vit4k, vit256
    from tilestream.models.runners import one_torch_thread
    from tilestream.models.weights import random_weights

    pyramid = open_pyramid(slide)
    size = pyramid.levels[0].shape
    array = torch.from_numpy(pyramid.read(Box(level=0, y=0, x=0, height=size.y, width=size.x)).copy())
    cut = array.unfold(1, 256, 256).unfold(2, 256, 256).permute(1, 2, 0, 3, 4)  # rows, columns, 3, 256, 256
    first, second = vit256().eval(), vit4k().eval()
    for network in (first, second):
        random_weights(network, seed=SEED)
    with torch.inference_mode(), one_torch_thread():
        tiles = first((cut.flatten(0, 1).float() * float(np.float32(1 / 255)) - 0.5) / 0.5)
        grid = tiles.reshape(*cut.shape[:2], 384).permute(2, 0, 1)
        parts = grid.unfold(1, region_tiles, region_tiles).unfold(2, region_tiles, region_tiles)
        regions = second(parts.permute(1, 2, 0, 3, 4).flatten(0, 1))
    return np.asarray(tiles.numpy()), np.asarray(regions.numpy())


def in_order(tree: xr.DataTree, group: str) -> np.ndarray:
    """The vectors of a group row by row."""
    found = tree[group].to_dataset()
    return np.asarray(found["hipt"].values[np.lexsort((found["x"].values, found["y"].values))])


def test_streamed_features_are_those_of_one_big_array_to_the_bit(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "made.svs", Shape(y=512, x=1024), seed=3)
    encoders = (EncoderChoice(name="hipt", params={"random_weights": SEED}),)
    options = {"encoders": encoders, "chain": ChainChoice(random_weights=SEED), "tile_px": None, "region_px": 512}
    tiles, regions = in_memory(slide, region_tiles=2)
    assert (tiles.shape, regions.shape) == ((8, 384), (2, 192))
    assert len(np.unique(tiles[:, 0])) == 8
    for profile, batch, super_tile_px in (("threads:2", 64, 1024), ("threads:1", 3, 512)):
        out = tmp_path / profile.replace(":", "-")
        with open_client(profile) as client:
            outcome = embed(client, slide, out, **options, batch=batch, super_tile_px=super_tile_px)
        assert outcome.exit_code(strict=True) == 0, outcome.rows[0].reason
        assert outcome.rows[0].notes == (
            "weights of `hipt` are random (seed 5): its vectors have no meaning",
            "weights of the region stage `vit4k` of `hipt` are random (seed 5): its vectors have no meaning",
        )
        with xr.open_datatree(out / "made.svs.features.zarr", engine="zarr") as tree:
            np.testing.assert_array_equal(in_order(tree, "tile"), tiles)
            np.testing.assert_array_equal(in_order(tree, "region"), regions)


def test_a_slide_of_another_resolution_is_read_at_its_own(tmp_path: Path) -> None:
    """20x is 0.5 µm: a tile of a slide at 0.25 µm covers 512 of its pixels."""
    slide = write_slide(tmp_path / "made.svs", Shape(y=512, x=512), seed=3, mpp=0.25)
    encoders = (EncoderChoice(name="hipt", params={"random_weights": SEED}),)
    chain = ChainChoice(region="mean")
    with open_client("threads:1") as client:
        outcome = embed(client, slide, tmp_path / "out", encoders=encoders, chain=chain, tile_px=None)
    assert outcome.exit_code(strict=True) == 0, outcome.rows[0].reason
    with xr.open_datatree(tmp_path / "out" / "made.svs.features.zarr", engine="zarr") as tree:
        assert tree["tile"]["size"].values.tolist() == [512]


def test_weights_that_are_none_stop_the_run_before_the_first_image(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "made.svs", Shape(y=256, x=256))
    from typer.testing import CliRunner

    from tilestream.cli.app import app

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(app, ["embed", str(slide), "--out", str(tmp_path / "out"), "--encoder", *arguments])
        assert found.exit_code == 2, found.output
        assert not (tmp_path / "out").exists()
        return " ".join(found.output.split())

    assert "mahmoodlab/HIPT" in run("hipt")
    pointer = tmp_path / "vit256_small_dino.pth"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 704238867\n")
    assert "git lfs pull" in run("hipt", "--weights", str(pointer))
