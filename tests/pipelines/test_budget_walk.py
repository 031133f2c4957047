"""Walks from coarse to fine through slides and scenes: what is not opened is never decoded."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr

from tests.pipelines import bags
from tests.pipelines.conftest import Embed, Run, run_embed_command
from tilestream.cache.blocks import forget_blocks
from tilestream.pipelines import walks
from tilestream.pipelines.encoder import encoder_spec
from tilestream.pyramid import keeping
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.features import FeatureSink
from tilestream.types import Array, Block, Level, Region

BUDGET = 60
OPTIONS = ("--budget", BUDGET, "--progressive", "--tile", 32, "--where", "all", "--cluster", "threads:2")
KEYS = ("slide1.svs", "scene1.tif")


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
def run(four_images: Path, decoded: dict[str, Blocks], tmp_path_factory: pytest.TempPathFactory) -> Run:
    forget_blocks()  # what other tests have decoded would not be decoded again
    found = run_embed_command(
        *(four_images / key for key in KEYS), *OPTIONS, out=tmp_path_factory.mktemp("walk") / "out"
    )
    assert found.exit_code == 0, found.stderr
    return found


def tiles(run: Run, key: str) -> xr.Dataset:
    return run.tree(key)["tile"].to_dataset()


@pytest.mark.parametrize("key", KEYS)
def test_only_what_was_opened_is_decoded(four_images: Path, run: Run, decoded: dict[str, Blocks], key: str) -> None:
    tile, pyramid = tiles(run, key), open_pyramid(str(four_images / key))
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


def require_a_walk(tile: xr.Dataset) -> None:
    """Check that tokens lie under opened ones, which scored best on their level."""
    edges = np.rint(tile["size"].values / tile["size"].values.min()).astype(int)
    at = np.stack([tile.y.values, tile.x.values], 1)
    opened = {(edge, *yx) for edge, yx, is_open in zip(edges, at.tolist(), tile.opened.values, strict=True) if is_open}
    assert opened
    size, steps = tile["size"].values, np.unique(edges).tolist()
    above = dict(itertools.pairwise(steps))  # of each edge the next larger one
    parents = set()
    for edge, own, (y, x) in zip(edges.tolist(), size.tolist(), at.tolist(), strict=True):
        if edge in above:
            around = own * above[edge] / edge
            parents.add((above[edge], y // around * around, x // around * around))
    assert parents == opened
    # what was opened scored at least as much as what was not, level by level
    score = tile.relevance.values
    for edge in np.unique(edges)[1:]:
        here = edges == edge
        is_open = tile.opened.values[here] > 0
        if is_open.any() and not is_open.all():
            assert score[here][is_open].min() >= np.nanmax(score[here][~is_open])


@pytest.mark.parametrize("key", KEYS)
def test_children_lie_under_what_is_opened(run: Run, key: str) -> None:
    tile = tiles(run, key)
    require_a_walk(tile)
    np.testing.assert_array_equal(tile.relevance.values, tile.entropy.values)


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


def test_another_order_changes_no_bit(four_images: Path, run: Run, embed: Embed) -> None:
    again = embed(
        *(four_images / key for key in KEYS), *OPTIONS[:-2], "--cluster", "threads:1", "--batch", 5, "--super-tile", 256
    )
    assert again.stores() != run.stores()  # another cut into units is another recipe
    again = embed(
        *(four_images / key for key in KEYS), *OPTIONS[:-2], "--cluster", "threads:1", "--batch", 5, out="again"
    )
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
def test_refused(four_images: Path, embed: Embed, options: tuple[object, ...], code: int, said: str) -> None:
    run = embed(four_images / "slide1.svs", *options, "--tile", 32)
    assert run.exit_code == code
    assert said in (run.stderr if code == 2 else run.rows["slide1.svs"]["reason"])


def scored_by(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiles of walks be scored by a callable of the tests, whatever the relevance is."""
    spec = encoder_spec(f"tests.pipelines.bags:{name}", {"name": "relevance"}, tile_px=32)
    monkeypatch.setattr(walks, "DEFAULT_RELEVANCE", "")
    monkeypatch.setattr(walks, "require_scorer", lambda *_, **__: None)
    monkeypatch.setattr(walks, "scoring_spec", lambda *_, **__: spec)


def test_a_scorer_leads_the_walk(four_images: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    scored_by("mean_score", monkeypatch)
    run = embed(four_images / "slide1.svs", *OPTIONS, "--super-tile", 64, "--relevance", "entropy")
    tile = tiles(run, "slide1.svs")
    assert tile.relevance.values.min() > 1
    assert tile.opened.values.any()
    assert "relevance" in run.rows["slide1.svs"]["seconds"]


def test_scores_that_come_out_otherwise_make_another_walk(
    four_images: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an interrupted walk has left was decided by another machine, and all parts but the finest are lost."""
    scored_by("rounded_score", monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureSink, "finish", lambda *_: 1 / 0)
        begun = embed(four_images / "slide1.svs", *OPTIONS, "--super-tile", 64, "--relevance", "entropy")
    assert begun.exit_code == 3
    journal = begun.out / "receipts" / "slide1.svs"
    for part in sorted((journal / "parts").iterdir())[:-1]:
        part.unlink()
    monkeypatch.setattr(bags.Rounding, "sign", -1.0)
    run = embed(four_images / "slide1.svs", *OPTIONS, "--super-tile", 64, "--relevance", "entropy")
    assert run.exit_code == 0, run.rows
    tile = tiles(run, "slide1.svs")
    require_a_walk(tile)
    finest = tile["size"].values == tile["size"].values.min()
    assert (tile.relevance.values[~finest] < 0).all()
    assert not [path.name for path in journal.iterdir() if path.name.startswith(("T", "parts"))]


def test_tiles_without_a_score_stay_closed(four_images: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    scored_by("some_nan", monkeypatch)
    run = embed(four_images / "slide1.svs", *OPTIONS, "--super-tile", 64, "--relevance", "entropy")
    tile = tiles(run, "slide1.svs")
    unknown = np.isnan(tile.relevance.values)
    assert unknown.any()
    assert not tile.opened.values[unknown].any()
    assert run.rows["slide1.svs"]["tiles_failed"] == unknown.sum()
    assert (tile.handcrafted_status.values == 0).all()  # the encoder has done them all the same


@pytest.mark.parametrize(("name", "said"), [("nan_score", "not finite"), ("two_scores", "one number a tile")])
def test_what_is_no_scorer_is_refused(
    name: str, said: str, four_images: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_by(name, monkeypatch)
    run = embed(four_images / "slide1.svs", *OPTIONS, "--super-tile", 64, "--relevance", "entropy")
    assert run.exit_code == 3
    assert said in run.rows["slide1.svs"]["reason"]


def test_glass_is_done_without_tokens(tmp_path: Path, embed: Embed) -> None:
    glass = np.full((700, 900, 3), 244, np.uint8)
    tifffile.imwrite(tmp_path / "glass.tif", glass, tile=(128, 128), photometric="rgb", compression="jpeg")
    run = embed(tmp_path / "glass.tif", "--budget", BUDGET, "--progressive", "--tile", 32)
    (row,) = run.rows.values()
    assert (run.exit_code, row["status"], row["tiles"]) == (0, "done", 0)
    assert any("tissue" in note for note in row["notes"])


def test_one_damaged_block_does_not_hide_the_image(tmp_path: Path, embed: Embed) -> None:
    """It lies under a tile of each level, the one that covers the whole image among them."""
    pixels = np.random.default_rng(0).integers(0, 200, (1024, 1024, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(128, 128), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        start, nbytes = (int(found[9]) for found in (tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts))
    with (tmp_path / "a.tif").open("r+b") as file:
        file.seek(start + nbytes // 2)
        file.write(bytes(nbytes - nbytes // 2))
    run = embed(tmp_path / "a.tif", "--budget", 120, "--progressive", "--tile", 64, "--where", "all")
    tile = tiles(run, "a.tif")
    damaged = tile.status.values == 1
    assert damaged[0]
    assert tile.opened.values[0]
    assert np.isnan(tile.relevance.values[damaged]).all()
    leaf = tile.opened.values == 0
    seen = (tile["size"].values[leaf & ~damaged] ** 2).sum() / 1024**2
    assert 0.9 < seen < 1
