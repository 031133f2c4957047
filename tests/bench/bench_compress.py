"""Images into stores of fields: the engine beside a bare loop of fits, what a core fits, forecasts beside the truth.

The picture is tissue: a part of a real slide where there is one (`default_slide`), else one made by code.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imagecodecs
import numpy as np

from tests.bench.bench_supply import CORES
from tests.bench.gigapixel import default_slide
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.compress import CompressConfig, run_compress
from tilestream.pipelines.compress_layout import FieldPlan
from tilestream.pipelines.compress_size import forecast_store
from tilestream.pipelines.compress_work import one_thread, read_tile
from tilestream.pyramid.pyramid import Pyramid, open_pyramid
from tilestream.sinks.fieldstore import field_layout
from tilestream.sinks.tiling import Tiling
from tilestream.testing.slide import write_slide
from tilestream.types import Box, Shape

ENGINE_BAR = 0.8
"""Of the rate of the bare loop: the engine also reads, forecasts, decodes every tile again, and reports."""
FORECAST_BAR = 0.67, 1.5
"""Forecast over truth."""
CORNER_YX = 1000, 700
"""Tissue in the small real slide."""


def tissue_picture(folder: Path, shape: Shape) -> Path:
    """Return the path of a PNG of tissue.

    Parameters
    ----------
    folder : Path
        Where it is written.
    shape : Shape
        Its size, px.

    Returns
    -------
    Path
        The picture.
    """
    slide, (y, x) = default_slide(), CORNER_YX
    if slide is None:
        slide, (y, x) = write_slide(folder / "slide.svs", shape=shape), (0, 0)
    pixels = open_pyramid(slide).read(Box(y=y, x=x, height=shape.y, width=shape.x))
    path = folder / "tissue.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels.transpose(1, 2, 0))))
    return path


def bare_loop(pyramid: Pyramid, codec: FieldCodec, *, tile_px: int) -> None:
    """Fit every tile of an image in threads of this process, and keep nothing."""
    plan = FieldPlan(layout=field_layout(pyramid.info, codec, tiling=Tiling.of(pyramid.info.shape, tile_px=tile_px)))

    def fit(box: Box) -> None:
        tile = read_tile(pyramid, box)
        with one_thread():
            codec.encode(tile.pixels, tile.valid)

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(fit, [plan.box(unit) for unit in plan.start()]))


def engine_row(
    folder: Path, *, shape: Shape, tile_px: int, steps: int, rounds: int, bar: float = ENGINE_BAR
) -> dict[str, Any]:
    """Return the rate of `compress` beside that of a bare loop of the same fits.

    Parameters
    ----------
    folder : Path
        Where both work.
    shape : Shape
        Size of the picture, px.
    tile_px : int
        Edge of a tile.
    steps : int
        Of each fit; fewer than usual, which makes the part of the engine larger.
    rounds : int
        How often each runs.
    bar : float
        Least ratio.

    Returns
    -------
    dict
        The row.
    """
    path, number = tissue_picture(folder, shape), count()
    pyramid, codec = open_pyramid(path), FieldCodec(steps=steps)
    with open_client(f"threads:{CORES}") as client:

        def ours() -> float:
            out = folder / f"out-{next(number)}"
            config = CompressConfig(out=out, steps=steps, tile_px=tile_px)
            outcome = run_compress(read_cohort([str(path)], out=out), config, client=client)
            if outcome.exit_code(strict=True):
                raise RuntimeError(f"compress failed: {[row.reason for row in outcome.rows]}")
            shutil.rmtree(out)
            return shape.area / 1e6

        def theirs() -> float:
            bare_loop(pyramid, codec, tile_px=tile_px)
            return shape.area / 1e6

        theirs()  # compiles what has to be compiled
        found = rates([ours, theirs], rounds=rounds)
    return make_row(
        f"compress of tissue as hash fields, {steps} steps a tile of {tile_px} px, two cores",
        found[0],
        "Mpx/s",
        rival=("bare loop of the same fits in two threads", found[1]),
        bar=at_least(bar),
        note=f"{shape.y} x {shape.x} px; ours reads, forecasts, decodes every tile again to measure it, writes store, "
        "receipts and report too; start of the client left out",
    )


def fit_rows(folder: Path, *, tile_px: int, steps: int | None = None) -> list[dict[str, Any]]:
    """Return what one core fits at the default quality, and the forecast of it beside the truth.

    Parameters
    ----------
    folder : Path
        Where the picture is written.
    tile_px : int
        Edge of the one tile.
    steps : int, optional
        Of the fit; the default ones unless given.

    Returns
    -------
    list of dict
        Two rows.
    """
    pyramid = open_pyramid(tissue_picture(folder, Shape(y=tile_px, x=tile_px)))
    codec = FieldCodec() if steps is None else replace(FieldCodec(), steps=steps)
    plan = FieldPlan(layout=field_layout(pyramid.info, codec, tiling=Tiling.of(pyramid.info.shape, tile_px=tile_px)))
    forecast = forecast_store(pyramid, plan, codec, threads=1)
    tile = read_tile(pyramid, pyramid.levels[0].box)
    started = time.perf_counter()
    with one_thread():
        data = codec.encode(tile.pixels, tile.valid)
    seconds = time.perf_counter() - started
    rate = tile_px**2 / 1e6 / seconds
    hours = 1000 / rate / 3600
    what = f"quality {codec.quality:g}, {codec.steps} steps"
    return [
        make_row(
            f"fit of a tile of {tile_px} px of tissue as a hash field, one core, {what}",
            rate,
            "Mpx/s",
            note=f"{seconds:.0f} s a tile, {8 * len(data) / tile_px**2:.2f} bits/px; a gigapixel of nothing but tissue "
            f"would take {hours:,.0f} h of a core, and its coarse levels a 250th more",
        ),
        make_row(
            "forecast of that fit",
            forecast.tile_s,
            "s",
            rival=("the fit", seconds),
            bar=FORECAST_BAR,
            note="from fits of 2 and 8 steps",
        ),
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        row = engine_row(Path(folder), shape=Shape(y=768, x=768), tile_px=256, steps=100, rounds=3)
        return [row, *fit_rows(Path(folder), tile_px=512)]
