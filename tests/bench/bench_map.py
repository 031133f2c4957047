"""Maps of a 3 x 3 filter beside a bare loop: the same decoder, filter, levels, codec and files without the engine."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.bench import filters
from tests.bench.bench_memory import memory_rows
from tests.bench.bench_supply import CORES, GIGAPIXELS
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.codecs.place import Place
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.map_run import MapConfig, run_map
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.pyramid.supertile import Base, levels_of_base, read_base
from tilestream.sinks.layout import made_layout
from tilestream.sinks.members import StorePlan, StoreUnit
from tilestream.sinks.pyramid import LevelWriter
from tilestream.types import ImageInfo

MAP_BAR = 1 / 1.5
"""Of the rate of the bare loop."""


def bare_loop(pyramid: Pyramid, out: Path, *, is_rgb: bool) -> None:
    """Write level 0 of a filtered image and four halvings, in threads of this process: no plan, tiles or receipts."""
    layout = made_layout(pyramid.info) if is_rgb else made_layout(_one_channel(pyramid))
    writer, plan = LevelWriter(place=Place.of(str(out)), prefix="", layout=layout), StorePlan(layout=layout)

    def write(unit: StoreUnit) -> None:
        box = plan.box(unit)
        base = read_base(pyramid, box.grow(1))
        inside = box.grow(1).intersect(pyramid.levels[0].box)
        pixels = filters.blurred(base.pixels if is_rgb else np.ascontiguousarray(base.pixels[..., 1]))
        y, x = box.y - inside.y, box.x - inside.x
        pixels = pixels[y : y + box.height, x : x + box.width]
        filtered = Base(pixels=pixels if is_rgb else pixels[..., None], valid=None, void=None, kind="intensity")
        levels = plan.made(0)
        made = levels_of_base(filtered, max(levels))
        for times, level in levels.items():
            writer.write(level, unit.iy, unit.ix, made[times].pixels)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(write, plan.tier(0)))


def _one_channel(pyramid: Pyramid) -> ImageInfo:
    return replace(pyramid.info, channels=pyramid.info.channels[:1], modality="unknown")


def map_row(path: Path, folder: Path, *, stage: str, rounds: int, bar: float = MAP_BAR) -> dict[str, Any]:
    """Return the rate of `map` of a filter beside that of the bare loop.

    Parameters
    ----------
    path : Path
        Tiled JPEG.
    folder : Path
        Where both write.
    stage : {"green", "rgb"}
        One channel or three.
    rounds : int
        How often each runs.
    bar : float
        Least ratio.

    Returns
    -------
    dict
        The row.
    """
    pyramid = open_pyramid(path, cache_bytes=0)
    pixels, number = pyramid.levels[0].shape.area / 1e6, count()

    with open_client(f"threads:{CORES}") as client:

        def ours() -> float:
            out = folder / f"out-{next(number)}"
            config = MapConfig(out=out, stage=f"tests.bench.filters:{stage}", where="all")
            outcome = run_map(read_cohort([str(path)], out=out), config, client=client)
            if outcome.exit_code(strict=True):
                raise RuntimeError(f"map failed: {[row.reason for row in outcome.rows]}")
            shutil.rmtree(out)
            return pixels

        def theirs() -> float:
            out = folder / f"bare-{next(number)}"
            bare_loop(pyramid, out, is_rgb=stage == "rgb")
            shutil.rmtree(out)
            return pixels

        ours(), theirs()  # compiles what has to be compiled
        found = rates([ours, theirs], rounds=rounds)
    return make_row(
        f"map of a 3 x 3 mean, {'RGB' if stage == 'rgb' else 'one channel'}, two cores",
        found[0],
        "Mpx/s",
        rival=("bare loop in two threads", found[1]),
        bar=at_least(bar),
        note=f"{pixels / 1e3:.2f} Gpx of JPEG, filter by OpenCV; the loop decodes, filters and halves units of 4096 px "
        "by the same functions and writes the same zstd shards; ours has opening, planning, receipts, all levels, "
        "metadata and report too; start of the client left out",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        path = write_gigapixel(Path(folder) / "slide.svs", shape_of(GIGAPIXELS))
        found = [map_row(path, Path(folder), stage=stage, rounds=3) for stage in ("green", "rgb")]
    return found + memory_rows("map")
