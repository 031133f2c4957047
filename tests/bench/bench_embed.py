"""The main job with the embedded encoder, against the engine that computes and stores nothing."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.bench_supply import CORES, GIGAPIXELS
from tests.bench.contestants import all_tiles, run_engine
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pyramid.pyramid import open_pyramid

EMBED_BAR = 0.5
"""Of the null pipeline's rate."""


def embed_row(path: Path, folder: Path, *, rounds: int, bar: float = EMBED_BAR) -> dict[str, Any]:
    """Return the rate of `embed` with `handcrafted` on all tiles, and of the null pipeline."""
    pyramid = open_pyramid(path, cache_bytes=0)
    plan, pixels = all_tiles(pyramid), pyramid.levels[0].shape.area
    number = count()

    with open_client(f"threads:{CORES}") as client:

        def ours() -> float:
            out = folder / f"out-{next(number)}"
            config = EmbedConfig(out=out, where="all", cache_bytes=0)
            outcome = run_embed(read_cohort([str(path)], out=out), config, client=client)
            if outcome.exit_code(strict=True):
                raise RuntimeError(f"embed failed: {[row.reason for row in outcome.rows]}")
            return pixels / 1e6

        def null() -> float:
            run_engine(client, pyramid, plan)
            return pixels / 1e6

        ours()  # compiles what has to be compiled
        found = rates([ours, null], rounds=rounds)
    return make_row(
        "embed with handcrafted, two cores",
        found[0],
        "Mpx/s",
        rival=("null pipeline", found[1]),
        bar=at_least(bar),
        note=f"{pixels / 1e9:.2f} Gpx, all {len(plan)} tiles; opening, planning, entropy map, feature store and report "
        "included; caches off, start of the client left out",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        path = write_gigapixel(Path(folder) / "slide.svs", shape_of(GIGAPIXELS))
        return [embed_row(path, Path(folder), rounds=2)]
