"""A cohort opened, beside a loop of xarray's own; tiles for training, beside a DataLoader over OpenSlide."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openslide
import torch
import xarray as xr
from torch.utils.data import DataLoader, Dataset

import tilestream as ts
from tests.bench.contestants import TILE_PX
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tests.madecohort import make_many

SLIDES = 1000
TILES, DIM = 15_000, 1024
"""Tiles of a slide, and values of a vector: as usual as they come."""
OPEN_BAR = 50.0
"""Times a loop of `xr.open_zarr` and `xr.concat`."""
OPEN_S, OPEN_MB = 5.0, 300.0
"""Most that a process may take to start and open the cohort, and to hold."""
FEED_BAR = 2.0
"""Times a `DataLoader` with two workers."""
WORKERS = 2
BATCH = 64
CHILD = """
import json, re, sys, time
from pathlib import Path
start = time.perf_counter()
import tilestream as ts
cohort = ts.open_cohort(sys.argv[1])
seconds = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e3
print(json.dumps([cohort.sizes["slide"], cohort.sizes["tile"], seconds, peak]))
"""


def process_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the seconds and the peak memory of a process that does nothing but open a cohort."""
    command = [sys.executable, "-c", CHILD, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    slides, tiles, seconds, peak = json.loads(done.stdout)
    name = f"open_cohort, {slides:,} slides, {tiles / 1e6:,.1f} million tiles"
    return [
        make_row(f"{name}: time", seconds, "s", bar=(0, OPEN_S), note="a process of its own, its imports included"),
        make_row(f"{name}: peak memory", peak, "MB", bar=(0, OPEN_MB), note="VmHWM of that process"),
    ]


def open_row(folder: Path, *, rounds: int, bar: float = OPEN_BAR, looped: int = 25) -> dict[str, Any]:
    """Return how many slides a second are opened as one, and by a loop over some of them."""
    stores = sorted(folder.rglob("*.features.zarr"))[:looped]

    def ours() -> float:
        return float(ts.open_cohort(folder).sizes["slide"])

    def theirs() -> float:
        tables = [xr.open_zarr(store, group="tile") for store in stores]
        xr.concat(tables, "tile", coords="minimal", compat="override")
        return float(len(stores))

    ours()
    rate, rival = rates([ours, theirs], rounds=rounds)
    return make_row(
        "open_cohort from its index",
        rate,
        "slides/s",
        rival=(f"xr.open_zarr and xr.concat of {looped} of them", rival),
        bar=at_least(bar),
    )


class OpenSlideTiles(Dataset[tuple[torch.Tensor, int]]):
    """What users write now: one tile an item, the slide opened once a worker."""

    def __init__(self, path: Path, corners: np.ndarray) -> None:
        self._path = path
        self._corners = corners
        self._slide: openslide.OpenSlide | None = None

    def __len__(self) -> int:
        return len(self._corners)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._slide is None:
            self._slide = openslide.OpenSlide(self._path)
        y, x = self._corners[index].tolist()
        tile = self._slide.read_region((x, y), 0, (TILE_PX, TILE_PX)).convert("RGB")
        return torch.from_numpy(np.array(tile)).permute(2, 0, 1), index


def feed_row(path: Path, *, tiles: int, rounds: int, bar: float = FEED_BAR) -> dict[str, Any]:
    """Return how many shuffled tiles a second come out of `TileDataset`, and out of a `DataLoader`."""
    pyramid = ts.open_pyramid(path)
    plan = ts.plan_tiles(pyramid, tile_px=TILE_PX, where="all", super_tile_px=8 * TILE_PX)
    image = ts.torch.PlannedImage(pyramid=pyramid, plan=plan, label=1)
    feed = ts.torch.TileDataset([image], batch=BATCH, threads=WORKERS)
    corners = np.concatenate([unit.tile_yx for unit in plan.in_row_order()])
    chosen = np.random.default_rng(0).permutation(len(corners))[:tiles]
    loader = DataLoader(
        OpenSlideTiles(path, corners[chosen]),
        batch_size=BATCH,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )

    def ours() -> float:
        batches = iter(feed)
        shown = sum(len(batch.pixels) for batch, _ in zip(batches, range(tiles // BATCH), strict=False))
        batches.close()
        return float(shown)

    def theirs() -> float:
        return float(sum(len(pixels) for pixels, _ in loader))

    for contestant in (ours, theirs):  # starts the workers, compiles what has to be compiled
        contestant()
    rate, rival = rates([ours, theirs], rounds=rounds)
    return make_row(
        f"TileDataset, {WORKERS} threads, batches of {BATCH}",
        rate,
        "tiles/s",
        rival=(f"DataLoader with {WORKERS} workers over OpenSlide read_region", rival),
        bar=at_least(bar),
        note=f"shuffled tiles of {TILE_PX} px, labels and all; workers started before",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        cohort = make_many(folder / "out", SLIDES, tiles=TILES, dim=DIM)
        opened = open_row(cohort, rounds=3)
        slide = write_gigapixel(folder / "slide.svs", shape_of(0.5))
        return [*process_rows(cohort), opened, feed_row(slide, tiles=4096, rounds=3)]
