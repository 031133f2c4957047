"""Walks from coarse to fine that are stopped, killed, or gone by several processes at once."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from tests.pipelines.faults.runs import embed, receipts, start, stopped_after, stores, wait_for
from tilestream.pipelines.tokens import TokenChoice

OPTIONS = {"tile_px": 64, "super_tile_px": 128, "tokens": TokenChoice(budget=150, is_progressive=True)}
WORDS = ("--tile", "64", "--super-tile", "128", "--budget", "150", "--progressive")


@pytest.fixture(scope="module")
def walked(slide: Path, client: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What an undisturbed walk makes, and its number of units."""
    out = tmp_path_factory.mktemp("walked")
    (row,) = embed(client, slide, out, **OPTIONS).rows
    assert row.status == "done"
    assert 100 < row.tiles <= 150
    assert len(row.tokens) == 4  # every second level, as the slide stores them
    with xr.open_datatree(out / f"{slide.name}.features.zarr", engine="zarr") as tree:
        opened = tree["tile"]["opened"].values > 0
        edges = np.rint(tree["tile"]["size"].values / 64).astype(int)
    assert opened.any()
    assert not opened[edges == 1].any()
    return stores(out), row.supertiles_total


@pytest.mark.parametrize("count", [1, 3, 12, 30])
def test_stop_and_go_on(
    count: int, slide: Path, client: Client, walked: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    stopped_after(count, client, slide, tmp_path, **OPTIONS)
    kept = receipts(tmp_path, slide)
    (row,) = embed(client, slide, tmp_path, batch=3, **OPTIONS).rows
    assert (row.supertiles_reused, row.supertiles_total) == (kept, walked[1])
    assert stores(tmp_path) == walked[0]


@pytest.mark.parametrize("seed", range(4))
def test_any_receipts_that_are_left_lead_the_same_way(
    seed: int, slide: Path, client: Client, walked: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    stopped_after(walked[1], client, slide, tmp_path, **OPTIONS)
    folder = tmp_path / "receipts" / slide.name
    names = sorted(path.name for path in folder.glob("T*.json"))
    assert len(names) == walked[1]
    lost = random.Random(seed).sample(names, k=len(names) * (seed + 1) // 5)
    for name in lost:
        (folder / name).unlink()
    (row,) = embed(client, slide, tmp_path, **OPTIONS).rows
    assert row.supertiles_reused == walked[1] - len(lost)
    assert stores(tmp_path) == walked[0]


def test_lost_outputs_of_a_coarse_level_are_made_again(
    slide: Path, client: Client, walked: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    stopped_after(walked[1], client, slide, tmp_path, **OPTIONS)
    sorted((tmp_path / "receipts" / slide.name / "parts").glob("*.npz"))[0].unlink()
    (row,) = embed(client, slide, tmp_path, **OPTIONS).rows
    assert row.supertiles_reused == walked[1] - 1
    assert stores(tmp_path) == walked[0]


@pytest.fixture(scope="module")
def slowly(slide: Path, client: Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed walk of the slow encoder makes."""
    out = tmp_path_factory.mktemp("slowly")
    embed(client, slide, out, encoder="tests.pipelines.faults.faulty:slow", **OPTIONS)
    return stores(out)


@pytest.mark.slow
def test_kill_and_go_on(slide: Path, client: Client, slowly: dict[str, bytes], tmp_path: Path) -> None:
    for count in (2, 20):
        run = start(slide, tmp_path, *WORDS, encoder="slow", start_new_session=True)
        wait_for(count, run, tmp_path, slide)
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    embed(client, slide, tmp_path, encoder="tests.pipelines.faults.faulty:slow", **OPTIONS)
    found = stores(tmp_path)
    assert {name: found[name] for name in slowly} == slowly  # beside what was not finished


@pytest.mark.slow
def test_two_processes_walk_the_same_way(slide: Path, slowly: dict[str, bytes], tmp_path: Path) -> None:
    runs = [start(slide, tmp_path / "out", "--json", *WORDS, encoder="slow") for _ in range(2)]
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
    assert stores(tmp_path / "out") == slowly
