"""A whole small slide as a store of the pyramid codec, beside the JPEG tiles that it is made of.

Each tile has networks of its own. All bytes of the store count, its metadata among them; of the slide's own file only
the streams of its one level do, not its thumbnail, label and macro image. Similarity is that of squares of tissue.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tifffile

import tilestream as ts
from tests.bench.rd_pictures import SVS, data_folder
from tests.bench.table import at_least, make_row
from tilestream.cluster.client import open_client
from tilestream.codecs import ms_ssim, psnr
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.compress import CompressConfig, run_compress
from tilestream.plan.tissue import select_tissue
from tilestream.relevance import regrid
from tilestream.types import Array, ScoreMap

BYTES_BAR = 0.5
"""Most bytes, as a share of those of the slide's own streams."""
STRUCTURE_BAR = 0.98
"""Least MS-SSIM on tissue."""
SQUARE_PX = 256
TISSUE_SHARE = 0.5
"""Of a square that counts as tissue."""


@dataclass(frozen=True, kw_only=True)
class SlideRun:
    """How the slide is stored."""

    steps: int = 400
    """Of each tile's fit."""
    tile_px: int = 512
    """Edge of a tile."""
    quality: float = 46.0
    """Of all tiles."""
    workers: int = 1
    """Threads that fit tiles."""


def jpeg_bytes(slide: Path) -> int:
    """Return the bytes of the JPEG streams of level 0 of a slide, with the tables that they share."""
    with tifffile.TiffFile(slide) as file:
        page = file.pages[0]
        tables = page.tags.get("JPEGTables")
        return sum(page.databytecounts) + (0 if tables is None else len(tables.value))


def store_bytes(store: Path) -> int:
    """Return the bytes of all files of a store."""
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def tissue_squares(slide: Path, edge_px: int = SQUARE_PX) -> list[tuple[slice, slice]]:
    """Return where the whole squares of level 0 lie that are tissue at least by half."""
    pyramid = ts.open_pyramid(slide)
    found, shape = select_tissue(pyramid), pyramid.levels[0].shape
    mask = ScoreMap(
        name="tissue",
        values=found.mask.astype(np.float32),
        valid=np.ones(found.mask.shape, np.bool_),
        cell_yx=found.scale_yx,
        shape=shape,
    )
    shares = regrid(mask, (float(edge_px), float(edge_px))).values
    return [
        (slice(y * edge_px, (y + 1) * edge_px), slice(x * edge_px, (x + 1) * edge_px))
        for y in range(shape.y // edge_px)
        for x in range(shape.x // edge_px)
        if shares[y, x] >= TISSUE_SHARE
    ]


def whole(path: Path) -> Array:
    """Return level 0 of an image, `(c, y, x)`."""
    pyramid = ts.open_pyramid(path)
    return np.ascontiguousarray(pyramid.read(pyramid.levels[0].box))


def stored(slide: Path, folder: Path, run: SlideRun) -> tuple[Path, float]:
    """Return the store of a slide that `compress` writes, and the seconds that it took.

    Parameters
    ----------
    slide : Path
        An image.
    folder : Path
        Of the outputs of the run.
    run : SlideRun
        How.

    Returns
    -------
    store : Path
        Its folder.
    seconds : float
        Of the whole run.
    """
    started = time.perf_counter()
    config = CompressConfig(
        out=folder, codec="pyramid", quality=run.quality, steps=run.steps, tile_px=run.tile_px, single_level=True
    )  # fmt: skip
    with open_client(f"threads:{run.workers}") as client:
        outcome = run_compress(read_cohort([str(slide)], out=folder), config, client=client)
    if outcome.exit_code(strict=True):
        raise RuntimeError(f"compress failed: {[row.reason for row in outcome.rows]}")
    [store] = folder.glob("*.zarr")
    return store, time.perf_counter() - started


def similarity(original: Array, decoded: Array, squares: list[tuple[slice, slice]]) -> tuple[float, float]:
    """Return the means over squares of MS-SSIM and of PSNR."""
    pairs = [(original[:, y, x], decoded[:, y, x]) for y, x in squares]
    return float(np.mean([ms_ssim(*pair) for pair in pairs])), float(np.mean([psnr(*pair) for pair in pairs]))


def slide_rows(
    slide: Path, folder: Path, run: SlideRun, *, bytes_bar: float = BYTES_BAR, structure_bar: float = STRUCTURE_BAR
) -> list[dict[str, Any]]:
    """Return bytes beside those of the slide's own streams, and how similar tissue is.

    Parameters
    ----------
    slide : Path
        TIFF of JPEG tiles.
    folder : Path
        For the store.
    run : SlideRun
        How it is stored.
    bytes_bar : float
        Most bytes, as a share.
    structure_bar : float
        Least MS-SSIM.

    Returns
    -------
    list of dict
        Two rows.
    """
    store, seconds = stored(slide, folder, run)
    original, decoded = whole(slide), whole(store)
    squares = tissue_squares(slide)
    structure, decibels = similarity(original, decoded, squares)
    ours, theirs = store_bytes(store), jpeg_bytes(slide)
    _, height, width = original.shape
    name = f"the {height} x {width} px of `{slide.name}`"
    how = f"{run.steps} steps a tile of {run.tile_px} px: {seconds:.0f} s in {run.workers} threads, report included"
    return [
        make_row(
            f"{name} as a store of the pyramid codec, level 0 alone, all its bytes",
            ours / 1e6,
            "MB",
            rival=("its JPEG streams of that level", theirs / 1e6),
            bar=(0.0, bytes_bar),
            note=f"{8 * ours / (height * width):.3f} bits/px; whole file {slide.stat().st_size / 1e6:.3f} MB; {how}",
        ),
        make_row(
            f"MS-SSIM of tissue in {name}, of that store",
            structure,
            "",
            bar=at_least(structure_bar),
            note=f"mean of {len(squares)} squares of {SQUARE_PX} px; {decibels:.2f} dB",
        ),
    ]


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    data = data_folder()
    if data is None:
        print("pyramid_slide: made of real images that are not here: set TILESTREAM_DATA")
        return []
    with TemporaryDirectory() as folder:
        return slide_rows(data / SVS, Path(folder), SlideRun())
