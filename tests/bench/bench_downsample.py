"""Learned downsampling beside Lanczos, on tissue that it has not learned from: `python -m tests.bench.run downsample`.

Each slide of the folder of test images gives tiles of its left half to learn from, and of its right half to tell by. A
small image is what is stored: rounded to 8 bits. The rival is Pillow's Lanczos, down by 2 or 4 and up again at once. A
gain is the mean over slides of the difference in dB over all tiles of a slide.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.bench.table import at_least, make_row, rates
from tilestream.codecs.downsample.training import DownsampleSettings
from tilestream.kernels import mip
from tilestream.pipelines.train_downsample import DownsampleConfig, DownsampleData, run_downsample

DATA = Path(os.environ.get("TILESTREAM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
ABSENT = "made of real images that are not here: set TILESTREAM_DATA"
SLIDES = ("CMU-1-Small-Region.svs", "OS-1-detail.ome.tif", "OS-2-ndpi.ome.tif")
STEPS = {1: 2400, 2: 1200}
"""By levels: what a core does in three quarters of a minute."""
GAIN_DB = 1.0
SMALL_DB = {1: 34.0, 2: 30.0}
MOST_S = 60.0


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    if not has_slides():
        print(f"downsample: what is learned is {ABSENT}")
        return filter_rows()
    return [*(row for levels in (1, 2) for row in learned_rows(levels)), *filter_rows()]


def has_slides() -> bool:
    """Return whether the slides are there."""
    return all((DATA / "slides" / name).exists() for name in SLIDES)


def learned_rows(levels: int, *, steps: int | None = None, share: float = 1.0) -> list[dict[str, Any]]:
    """Return gain, likeness and time of a stack of so many steps, by its last level."""
    steps = steps or STEPS[levels]
    data: list[DownsampleData] = []
    times: list[float] = []

    def hear(event: Any) -> None:
        times.append(time.perf_counter())  # after reading, and then now and then until the last step
        if isinstance(event, list):
            data.extend(event)

    with tempfile.TemporaryDirectory() as folder:
        paths = tuple(str(DATA / "slides" / name) for name in SLIDES)
        settings = DownsampleSettings(levels=levels, steps=steps)
        config = DownsampleConfig(sources=paths, out=Path(folder), tiles=32, settings=settings)
        document = run_downsample(config, on_event=hear).document
    scores = {name: found[levels - 1] for name, found in document["held_out"].items()}
    rival = {one.name: _pillow_db(one.held_out, 2**levels) for one in data}
    gains = {name: score["learned_db"] - rival[name] for name, score in scores.items()}
    by_slide = "; ".join(f"{name}: {rival[name]:.2f} to {scores[name]['learned_db']:.2f}" for name in scores)
    worst = min(score["worst_small_db"] for score in scores.values())
    tiles = sum(len(one.held_out) for one in data)
    what = f"learned {2**levels}x down and up"
    return [
        make_row(
            f"{what}, gain over Pillow's Lanczos", float(np.mean(list(gains.values()))), "dB",
            bar=at_least(GAIN_DB * share), note=f"{tiles} tiles held out; {by_slide}",
        ),
        make_row(
            f"{what}, least gain of a slide", min(gains.values()), "dB", bar=at_least(0.0),
            note="no slide is worse off",
        ),
        make_row(
            f"{what}, small image against the mean", min(score["small_db"] for score in scores.values()), "dB",
            bar=at_least(SMALL_DB[levels]), note=f"the slide where it is least; the worst tile {worst:.1f}",
        ),
        make_row(
            f"{what}, training", times[-1] - times[0], "s", bar=(0.0, MOST_S),
            note=f"{steps} steps on one core",
        ),
    ]  # fmt: skip


def filter_rows(edge: int = 4096, *, share: float = 1.0) -> list[dict[str, Any]]:
    """Return rates of one Lanczos level of RGB."""
    pixels = np.random.default_rng(0).integers(0, 256, (edge, edge, 3), np.uint8)
    image, planes = Image.fromarray(pixels), pixels.transpose(2, 0, 1)
    mpx = edge * edge / 1e6

    def ours() -> float:
        mip(planes, levels=1, filter="lanczos")
        return mpx

    def alone() -> float:
        mip(planes, levels=1, filter="lanczos", threads=1)
        return mpx

    def pillow() -> float:
        image.resize((edge // 2, edge // 2), Image.Resampling.LANCZOS)
        return mpx

    contestants: Sequence[Callable[[], float]] = (ours, alone, pillow)
    all_cores, one_core, theirs = rates(contestants)
    rival = ("Pillow's Lanczos, one core", theirs)
    return [
        make_row(f"Lanczos level of {edge}² RGB, all cores", all_cores, "Mpx/s", rival=rival, bar=at_least(share)),
        make_row(f"Lanczos level of {edge}² RGB, one core", one_core, "Mpx/s", rival=rival),
    ]


def _pillow_db(tiles: Sequence[npt.NDArray[np.uint8]], factor: int) -> float:
    errors = []
    for tile in tiles:
        image = Image.fromarray(np.ascontiguousarray(tile.transpose(1, 2, 0)))
        small = image.resize((image.width // factor, image.height // factor), Image.Resampling.LANCZOS)
        back = np.asarray(small.resize(image.size, Image.Resampling.LANCZOS), np.float64).transpose(2, 0, 1)
        errors.append(np.square(back - tile).mean())
    return float(10 * np.log10(255**2 / np.mean(errors)))
