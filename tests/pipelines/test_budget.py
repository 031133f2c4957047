"""Reading less: a budget of tokens on slides and scenes, and what of the images it reads."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr

from tests.pipelines.conftest import Embed, Run, run_embed_command
from tilestream.cache.blocks import forget_blocks
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.tokens import TokenChoice

BUDGET = 80
CUT = ("--tile", 32, "--super-tile", 512, "--cluster", "threads:2")


class Counted:
    """Bytes of files as the operating system gives them, by name."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.nbytes: Counter[str] = Counter()
        self.counts = False
        lock, read = threading.Lock(), os.pread

        def pread(descriptor: int, nbytes: int, offset: int) -> bytes:
            data = read(descriptor, nbytes, offset)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if self.counts and path.parent == folder:
                with lock:
                    self.nbytes[path.name] += len(data)
            return data

        patch.setattr(os, "pread", pread)


@pytest.fixture(scope="module")
def counted(four_images: Path) -> Iterator[Counted]:
    """What is read of the images from the start of a run on; what finds the inputs has looked at their heads before."""
    from tilestream.pipelines import embed as module

    with pytest.MonkeyPatch.context() as patch:
        found, run = Counted(four_images, patch), module.run_embed

        def counting(*arguments: Any, **options: Any) -> Any:
            found.counts = True
            return run(*arguments, **options)

        patch.setattr(module, "run_embed", counting)
        yield found


@pytest.fixture(scope="module")
def run(four_images: Path, counted: Counted, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The four images under a budget."""
    forget_blocks()  # what other tests have decoded would not be read again
    found = run_embed_command(four_images, "--budget", BUDGET, *CUT, out=tmp_path_factory.mktemp("budget") / "out")
    counted.counts = False
    assert found.exit_code == 0, found.stderr
    return found


KEYS = ("slide1.svs", "slide2.svs", "scene1.tif", "scene2.tif")


def tiles(run: Run, key: str) -> xr.Dataset:
    return run.tree(key)["tile"].to_dataset()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read there")
def test_the_report_says_what_was_read(four_images: Path, run: Run, counted: Counted) -> None:
    assert counted.nbytes == {key: row["bytes_read"] for key, row in run.rows.items()}
    assert set(run.rows) == set(KEYS)
    for key, row in run.rows.items():
        assert row["image_bytes"] == (four_images / key).stat().st_size
        assert row["byte_share"] == pytest.approx(counted.nbytes[key] / row["image_bytes"], abs=1e-6)
        assert BUDGET - 3 < row["tiles"] <= BUDGET
        assert sum(row["tokens"].values()) == row["tiles"]
        assert sum(n > 0 for n in row["tokens"].values()) > 1
        decoded = sum(row["pixels_decoded"].values())
        assert row["pixel_share"] == pytest.approx(decoded / np.prod(row["shape_yx"]), abs=1e-6)
        assert 0 < row["pixel_share"] < 1.5
    assert "% of the pixels, read" in run.stdout.splitlines()[-1]
    page = (run.out / "report.html").read_text()
    assert "of the image</td>" in page
    assert "× coarser" in page


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read there")
@pytest.mark.parametrize("is_progressive", [False, True])
def test_it_says_so_of_real_images_too(
    is_progressive: bool, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in (
        "slides/OS-1-detail.ome.tif",
        "slides/OS-2-ndpi.ome.tif",
        "satellite/cogeo.tif",
        "satellite/RGB.byte.tif",
    ):
        (folder / Path(name).name).write_bytes((shared_data / name).read_bytes())
    counted = Counted(folder, monkeypatch)
    cohort = read_cohort([str(folder)])
    counted.counts = True
    forget_blocks()
    choice = TokenChoice(budget=40, is_progressive=is_progressive)
    config = EmbedConfig(out=tmp_path / "out", tile_px=64, cluster="threads:2", tokens=choice)
    rows = run_embed(cohort, config).rows
    assert {row.path: row.bytes_read for row in rows} == counted.nbytes
    assert all((25 if is_progressive else 37) < row.tiles <= 40 for row in rows)


@pytest.mark.parametrize("key", KEYS)
def test_each_place_is_read_once_at_the_level_of_its_size(run: Run, key: str) -> None:
    tile, plan = tiles(run, key), run.tree(key).attrs["plan"]
    height, width = plan["grid_yx"]
    finest_px = plan["tile_px"] * plan["scale_yx"][0]
    seen = np.zeros((height + 512, width + 512), np.int64)
    edges = np.rint(tile["size"].values / finest_px).astype(int)
    for y, x, edge in zip(tile.y.values / finest_px, tile.x.values / finest_px, edges, strict=True):
        assert (y % edge, x % edge) == (0, 0)
        seen[int(y) : int(y) + edge, int(x) : int(x) + edge] += 1
    assert seen.max() == 1
    # rows: the coarsest first
    assert (np.diff(edges) <= 0).all()
    by_edge = {2**number: depth["level"] for number, depth in enumerate(plan["depths"])}
    assert tile.level.values.tolist() == [by_edge[edge] for edge in edges.tolist()]
    assert [depth["tokens"] for depth in plan["depths"]] == [int((edges == edge).sum()) for edge in by_edge]
    assert tile.relevance.values.min() >= 0
    assert tile.relevance.values.max() <= 1
    assert not tile.opened.values.any()
    # the raster has each token's value in all of its square
    with xr.open_datatree(run.out / f"{key}.entropy.zarr", engine="zarr") as tree:
        cells = tree["0"]["image"].values[0]
    for y, x, edge, value in zip(tile.y.values, tile.x.values, edges, tile.entropy.values, strict=True):
        at = int(y / finest_px), int(x / finest_px)
        np.testing.assert_array_equal(cells[at[0] : at[0] + edge, at[1] : at[1] + edge], value)
    assert np.isfinite(cells).sum() == seen[:height, :width].sum() - (
        seen[:height, :width][np.isnan(cells)].sum()  # squares of tokens without values
    )


@pytest.mark.parametrize("key", KEYS)
def test_the_slide_is_a_mean_by_valid_area(run: Run, key: str) -> None:
    tree, tile = run.tree(key), tiles(run, key)
    ok = tile.handcrafted_status.values == 0
    weights = tile["size"].values[ok] ** 2 * tile.valid.values[ok].astype(np.float64)
    vectors = tile.handcrafted.values[ok].astype(np.float64)
    mean = np.average(vectors, axis=0, weights=weights)
    std = np.sqrt(np.average((vectors - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(tree["slide"].handcrafted.values, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tree["slide"].handcrafted_std.values, std, rtol=1e-4, atol=1e-5)
    assert int(tree["slide"].handcrafted_n_ok) == ok.sum()


def test_a_budget_for_all_tiles_of_one_level_gives_the_slide_of_all_tiles(four_images: Path, embed: Embed) -> None:
    plain = embed(four_images / "scene1.tif", *CUT, out="plain")
    # around a point everything matters somewhat; the entropy leaves out what has none
    less = embed(four_images / "scene1.tif", *CUT, "--budget", 10_000, "--levels", 0, "--fovea", "9,9", out="less")
    one, two = plain.tree("scene1.tif"), less.tree("scene1.tif")
    for name in ("handcrafted", "handcrafted_std"):
        np.testing.assert_array_equal(one["slide"][name].values, two["slide"][name].values)
    for name in ("x", "y", "size", "level", "valid", "status", "handcrafted", "entropy"):
        np.testing.assert_array_equal(one["tile"][name].values, two["tile"][name].values)
    assert "region" not in two


def test_another_number_of_threads_changes_no_bit(four_images: Path, run: Run, embed: Embed) -> None:
    again = embed(four_images, "--budget", BUDGET, *CUT[:4], "--cluster", "threads:1", "--batch", 5)
    assert again.stores() == run.stores()


def test_another_budget_is_another_recipe(four_images: Path, run: Run) -> None:
    for options, named in (
        (("--budget", BUDGET + 1), "plan.tokens.budget"),
        (("--budget", BUDGET, "--fovea", "300,300"), "plan.tokens.fovea"),
        (("--budget", BUDGET, "--relevance", "gradient"), "plan.tokens.relevance"),
        (("--budget", BUDGET, "--levels", "0,2"), "plan.tokens.levels"),
        ((), "plan.tokens"),
    ):
        refused = run_embed_command(four_images / "slide1.svs", *options, *CUT, out=run.out)
        assert refused.exit_code == 3
        assert named in refused.rows["slide1.svs"]["reason"]


def test_a_fovea_is_where_tiles_are_fine(four_images: Path, embed: Embed) -> None:
    run = embed(four_images / "slide1.svs", "--budget", BUDGET, "--fovea", "600,400,100", "--where", "all", *CUT)
    tile = tiles(run, "slide1.svs")
    centre_y, centre_x = (tile[axis].values + tile["size"].values / 2 for axis in "yx")
    away = np.hypot(centre_y - 600, centre_x - 400)
    size = tile["size"].values
    assert away[size == size.min()].max() < away[size == size.max()].min()


def test_a_slide_of_glass_is_done_without_tokens(tmp_path: Path, embed: Embed) -> None:
    glass = np.full((700, 900, 3), 244, np.uint8)
    tifffile.imwrite(tmp_path / "glass.tif", glass, tile=(128, 128), photometric="rgb", compression="jpeg")
    run = embed(tmp_path / "glass.tif", "--budget", BUDGET, *CUT)
    (row,) = run.rows.values()
    assert (run.exit_code, row["status"], row["tiles"]) == (0, "done", 0)
    assert any("tissue" in note for note in row["notes"])
    assert np.isnan(run.tree("glass.tif")["slide"].handcrafted.values).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--relevance", "entropy"), "no --budget"),
        (("--fovea", "1,2"), "no --budget"),
        (("--budget", 0), "at least one tile"),
        (("--budget", 9, "--fovea", "a,b"), "`Y,X` or `Y,X,E0`"),
        (("--budget", 9, "--fovea", "1,2,3", "--fovea", "1,2,4"), "one for all points"),
        (("--budget", 9, "--levels", "0,x"), "whole numbers"),
        (("--budget", 9, "--halo", 8), "a halo is of one size"),
        (("--budget", 9, "--region", 64), "lie on no grid"),
        (("--budget", 9, "--whole-regions"), "lie on no grid"),
        (("--budget", 9, "--where", "PATCHES"), "patches that another program has cut"),
        (("--budget", 9, "--region-stage", "tests.models.gridstages:corner_weighted"), "lie on no common grid"),
        (("--budget", 9, "--relevance", "entrpy"), "entropy"),
        (("--budget", 9, "--relevance", "entropy:0"), "weight"),
        (("--budget", 9, "--relevance", 'query:"mitosis"'), "quer"),
    ],
)
def test_refused_before_an_image_is_open(
    four_images: Path, embed: Embed, options: tuple[object, ...], said: str
) -> None:
    patches = four_images.parent / "patches.h5"
    patches.touch()
    run = embed(four_images, *(patches if option == "PATCHES" else option for option in options))
    assert run.exit_code == 2
    assert said in run.stderr
    assert not (run.out / "report.json").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", 3, "--levels", "0,1"), "wanted squares of the coarsest level"),
        (("--budget", 9, "--fovea", "600,99999"), "fixation"),
        (("--budget", 9, "--relevance", "tests.pipelines.bags:nan_map"), "not finite"),
        (("--budget", 9, "--relevance", "tests.pipelines.bags:flat_map"), "an array `(y, x)`"),
    ],
)
def test_refused_for_an_image(four_images: Path, embed: Embed, options: tuple[object, ...], said: str) -> None:
    run = embed(four_images / "slide1.svs", *options, "--tile", 32)
    assert run.exit_code == 3
    assert said in run.rows["slide1.svs"]["reason"]


def test_levels_are_in_steps_of_those_that_are_stored(run: Run) -> None:
    """The slides store every second level, the scenes all."""
    for key, row in run.rows.items():
        is_slide = key.endswith(".svs")
        assert run.tree(key).attrs["recipe"]["plan"]["tokens"]["branching"] == (16 if is_slide else 4)
        assert any(int(level) % 2 for level in row["tokens"]) != is_slide
