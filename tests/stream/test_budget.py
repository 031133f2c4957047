"""What a plan will hold is known before a pixel is read, and is no less than what it does hold."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster

from tilestream.errors import BudgetError
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.stream.batches import Slots, iter_batches, new_outcome
from tilestream.stream.budget import memory_limit, project
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Pyramid:
    path = write_slide(tmp_path_factory.mktemp("slide") / "a.svs", Shape(y=2048, x=2048), seed=1)
    return open_pyramid(path, cache_bytes=0)


@pytest.mark.parametrize(("mpp", "halo_px", "batch"), [(None, 0, 16), (None, 32, 4), (1.3, 0, 16)])
def test_a_unit_holds_no_more_than_projected(slide: Pyramid, mpp: float | None, halo_px: int, batch: int) -> None:
    plan = plan_tiles(slide, tile_px=128, mpp=mpp, halo_px=halo_px, where="all", super_tile_px=1024)
    projected = project(slide, plan, batch=batch, dims=50, tasks=1).total_bytes
    unit = next(iter(plan.start()))
    assert list(iter_batches(slide, unit, batch=batch, outcome=new_outcome(unit)))  # compiles what has to be compiled
    tracemalloc.start()
    try:
        for found in iter_batches(slide, unit, batch=batch, outcome=new_outcome(unit), slots=Slots()):
            assert len(found.rows) <= batch
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= projected
    assert projected < 12 * peak, "a projection that is far too high refuses what would fit"


def test_a_plan_that_cannot_fit_is_refused_with_numbers_and_the_knob(slide: Pyramid) -> None:
    plan = plan_tiles(slide, where="all")
    projection = project(slide, plan, batch=64, dims=50, tasks=2)
    projection.require(projection.total_bytes, "a.svs")
    with pytest.raises(BudgetError, match=r"`a\.svs`: got \d+ MiB projected .* expected at most 5 MiB.*--batch"):
        projection.require(5 << 20, "a.svs")


def test_an_image_in_one_block_is_counted_whole(tmp_path: Path) -> None:
    array = np.zeros((3000, 4000, 3), np.uint8)
    pyramid = open_pyramid(array)
    plan = plan_tiles(pyramid, where="all")
    assert project(pyramid, plan, batch=1, dims=1, tasks=1).decode_bytes >= pyramid.levels[0].block.area * 3


@pytest.mark.parametrize(("variable", "mib"), [("100", 50), ("0", None), ("", None)])
def test_a_slurm_job_may_take_half_of_its_own_memory(
    variable: str, mib: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_NODE", variable)
    assert memory_limit(7) == 7
    found = memory_limit(None)
    assert found == mib << 20 if mib else found > 100 << 20


def test_a_worker_may_take_half_of_what_it_was_given() -> None:
    with (
        LocalCluster(
            n_workers=1, processes=False, dashboard_address="127.0.0.1:0", memory_limit=64 << 20, silence_logs=50
        ) as cluster,
        Client(cluster) as client,
    ):
        assert client.submit(memory_limit, None).result() == 32 << 20
