"""The main job on the slide whose nuclei are known: all tissue, a budget, and a walk from coarse to fine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client

from tests.bench.fieldslide import TILE_PX, FieldSlide
from tests.bench.table import make_row
from tilestream.cluster.client import open_client
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.tokens import TokenChoice

LEVELS = (0, 2, 4)
"""Those that the slide stores."""
SHARE = 0.1
"""Tokens that may be read, as a share of the tiles of level 0."""


def choices(slide: FieldSlide) -> dict[str, TokenChoice]:
    """Return what is asked for by name."""
    budget, box = round(SHARE * slide.tile_bytes.size), slide.example
    query = f'query:"box={box.y},{box.x},{box.height},{box.width}"'
    return {
        "entropy, itti and like a box": TokenChoice(
            budget=budget, relevance=f"entropy:1,itti:1,{query}:2", levels=LEVELS
        ),
        "like a box, progressive": TokenChoice(budget=budget, relevance=query, levels=LEVELS, is_progressive=True),
    }  # fmt: skip


def embed_rows(slide: FieldSlide, folder: Path) -> list[dict[str, Any]]:
    """Return what runs under a budget see of the nuclei, with what they read and how long they take.

    Parameters
    ----------
    slide : FieldSlide
        The slide.
    folder : Path
        For stores and reports.

    Returns
    -------
    list of dict
        A row a choice.
    """
    found = []
    with open_client("threads:2") as client:
        run_one(slide, folder / "first", client, None)  # compiles
        *_, full = run_one(slide, folder / "full", client, None)
        for number, (name, choice) in enumerate(choices(slide).items()):
            recall, note, seconds = run_one(slide, folder / f"out-{number}", client, choice)
            found.append(
                make_row(
                    f"nuclei seen at level 0 by `embed --budget {choice.budget}`, {name}", 100 * recall, "%",
                    rival=("all tissue", 100.0),
                    note=f"{note}; handcrafted, two threads, {seconds:.1f} s against {full:.1f} s for all tissue, "
                    "planning, stores and report included",
                )
            )  # fmt: skip
    return found


def run_one(slide: FieldSlide, out: Path, client: Client, choice: TokenChoice | None) -> tuple[float, str, float]:
    """Return the share of the nuclei that tokens of level 0 show, what was read in words, and seconds."""
    config = EmbedConfig(out=out, tokens=choice, cache_bytes=0)
    start = time.perf_counter()
    outcome = run_embed(read_cohort([str(slide.path)], out=out), config, client=client)
    seconds = time.perf_counter() - start
    (row,) = outcome.rows
    if outcome.exit_code(strict=True):
        raise RuntimeError(f"embed failed: {row.reason}")
    tiles = xr.open_datatree(out / f"{slide.path.name}.features.zarr", engine="zarr")["tile"].to_dataset()
    fine = tiles["size"].values == TILE_PX if "level" in tiles else np.ones(tiles.sizes["tile"], np.bool_)
    target, mask = slide.shares("nuclei"), np.zeros(slide.tile_bytes.shape, np.bool_)
    mask[tiles["y"].values[fine].astype(int) // TILE_PX, tiles["x"].values[fine].astype(int) // TILE_PX] = True
    pens = slide.shares("pen")[mask].sum()
    pixels, nbytes = (100 * (share or 0) for share in (row.pixel_share, row.byte_share))
    counts = f"{len(fine)} tokens, {fine.sum()} of level 0, {pens:.1f} tiles of pen"
    note = f"{counts}; {pixels:.1f} % of the pixels decoded, {nbytes:.1f} % of the bytes read"
    return float(target[mask].sum() / target.sum()), note, seconds
