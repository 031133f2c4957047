"""Walks from coarse to fine through slides and scenes: what is not opened is never decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.pipelines.conftest import Embed, Run, run_embed_command
from tilestream.pyramid import keeping
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.testing.scene import write_scene
from tilestream.testing.slide import write_slide
from tilestream.types import Array, Block, Level, Region, Shape

BUDGET = 60
OPTIONS = ("--budget", BUDGET, "--progressive", "--tile", 32, "--where", "all", "--cluster", "threads:2")
KEYS = ("slide.svs", "scene.tif")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_slide(folder / "slide.svs", Shape(y=1400, x=1600), seed=4, tile_px=64)
    write_scene(folder / "scene.tif", Shape(y=900, x=800), seed=4)
    return folder


Blocks = set[tuple[int, int, int]]


@pytest.fixture(scope="module")
def decoded() -> Iterator[dict[str, Blocks]]:
    """Level, row and column of each block that an image has given but for its thumbnail, by the name of its file."""
    found: dict[str, Blocks] = {}
    decode, thumbnail, drawing = keeping._decoded, Pyramid.thumbnail, threading.local()

    def noted(pyramid: Pyramid, level: Level, at: tuple[int, int], out: Array | None = None) -> Block | None:
        if not getattr(drawing, "now", False):
            found.setdefault(Path(pyramid.address).name, set()).add((level.index, *at))
        return decode(pyramid, level, at, out)

    def drawn(pyramid: Pyramid, max_px: int) -> Region:
        drawing.now = True
        try:
            return thumbnail(pyramid, max_px)
        finally:
            drawing.now = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeping, "_decoded", noted)
        patch.setattr(Pyramid, "thumbnail", drawn)
        yield found


@pytest.fixture(scope="module")
def run(images: Path, decoded: dict[str, Blocks], tmp_path_factory: pytest.TempPathFactory) -> Run:
    found = run_embed_command(images, *OPTIONS, out=tmp_path_factory.mktemp("walk") / "out")
    assert found.exit_code == 0, found.stderr
    return found


def tiles(run: Run, key: str) -> xr.Dataset:
    return run.tree(key)["tile"].to_dataset()


@pytest.mark.parametrize("key", KEYS)
def test_only_what_was_opened_is_decoded(images: Path, run: Run, decoded: dict[str, Blocks], key: str) -> None:
    tile, pyramid = tiles(run, key), open_pyramid(str(images / key))
    row = run.rows[key]
    assert BUDGET - 10 < row["tiles"] <= BUDGET
    allowed: Blocks = set()
    for y, x, size, level in zip(tile.y.values, tile.x.values, tile["size"].values, tile.level.values, strict=True):
        stored = pyramid.levels[level]
        scale_y, scale_x = stored.scale_yx
        height, width = stored.block.yx
        y_stop, x_stop = min((y + size) / scale_y, stored.shape.y), min((x + size) / scale_x, stored.shape.x)
        rows = range(int(y / scale_y) // height, int(np.ceil(y_stop / height - 1e-6)))
        columns = range(int(x / scale_x) // width, int(np.ceil(x_stop / width - 1e-6)))
        allowed |= {(int(level), iy, ix) for iy in rows for ix in columns}
    assert decoded[key] == allowed
    everything = {(0, iy, ix) for iy in range(pyramid.levels[0].blocks.y) for ix in range(pyramid.levels[0].blocks.x)}
    assert len(decoded[key] & everything) < len(everything) / 2
    by_level = {str(number): 0 for number in range(len(pyramid.levels))}
    for level, iy, ix in decoded[key]:
        stored = pyramid.levels[level]
        height, width = (
            min(block, size - at * block)
            for block, size, at in zip(stored.block.yx, stored.shape.yx, (iy, ix), strict=True)
        )
        by_level[str(level)] += height * width
    # the report counts a block again where two units have decoded it, and never less than was decoded
    assert all(row["pixels_decoded"].get(level, 0) >= pixels for level, pixels in by_level.items())


@pytest.mark.parametrize("key", KEYS)
def test_children_lie_under_what_is_opened(run: Run, key: str) -> None:
    tile = tiles(run, key)
    edges = np.rint(tile["size"].values / tile["size"].values.min()).astype(int)
    at = np.stack([tile.y.values, tile.x.values], 1)
    opened = {(edge, *yx) for edge, yx, is_open in zip(edges, at.tolist(), tile.opened.values, strict=True) if is_open}
    assert opened
    coarsest = edges.max()
    size = tile["size"].values
    parents = {
        (edge * 2, y // (2 * own) * 2 * own, x // (2 * own) * 2 * own)
        for edge, own, (y, x) in zip(edges, size, at.tolist(), strict=True)
        if edge < coarsest
    }
    assert parents == opened
    # what was opened scored at least as much as what was not, level by level
    score = tile.relevance.values
    for edge in np.unique(edges)[1:]:
        here = edges == edge
        is_open = tile.opened.values[here] > 0
        if is_open.any() and not is_open.all():
            assert score[here][is_open].min() >= score[here][~is_open].max()
    np.testing.assert_array_equal(score, tile.entropy.values)


@pytest.mark.parametrize("key", KEYS)
def test_the_slide_is_made_of_leaves(run: Run, key: str) -> None:
    tree, tile = run.tree(key), tiles(run, key)
    leaf = (tile.handcrafted_status.values == 0) & (tile.opened.values == 0)
    weights = tile["size"].values[leaf] ** 2 * tile.valid.values[leaf].astype(np.float64)
    mean = np.average(tile.handcrafted.values[leaf].astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(tree["slide"].handcrafted.values, mean, rtol=1e-5, atol=1e-6)
    assert int(tree["slide"].handcrafted_n_ok) == leaf.sum()
    assert int(tree["slide"].n) == len(leaf)
    assert sum(depth["leaves"] for depth in tree.attrs["plan"]["depths"]) == (tile.opened.values == 0).sum()


def test_another_order_changes_no_bit(images: Path, run: Run, embed: Embed) -> None:
    again = embed(images, *OPTIONS[:-2], "--cluster", "threads:1", "--batch", 5, "--super-tile", 256)
    assert again.stores() != run.stores()  # another cut into units is another recipe
    again = embed(images, *OPTIONS[:-2], "--cluster", "threads:1", "--batch", 5, out="again")
    assert again.stores() == run.stores()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--progressive",), 2, "no --budget"),
        (("--budget", 9, "--progressive", "--fovea", "9,9"), 2, "led by what it sees"),
        (("--budget", 2, "--progressive", "--levels", "0,1"), 3, "coarsest level"),
        (("--budget", 9, "--progressive", "--relevance", "gradient"), 2, "one term"),
        (("--budget", 9, "--progressive", "--super-tile", 4096), 3, "in its receipt"),
    ],
)
def test_refused(images: Path, embed: Embed, options: tuple[object, ...], code: int, said: str) -> None:
    run = embed(images / "slide.svs", *options, "--tile", 32)
    assert run.exit_code == code
    assert said in (run.stderr if code == 2 else run.rows["slide.svs"]["reason"])
