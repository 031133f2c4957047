"""Tiles a second: against OpenSlide on one core, and the whole engine against the bare decoder on two."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.contestants import (
    TILE_PX,
    BareDecoder,
    FirstUnits,
    all_tiles,
    one_core,
    run_engine,
    supply_openslide,
    supply_ours,
)
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.pyramid.pyramid import open_pyramid

GIGAPIXELS = 2.0
SUPPLY_BAR = 5.0
"""Times OpenSlide's `read_region`, per core."""
NULL_BAR = 0.85
"""Of the bare decoder's rate."""
CORES = 2


def supply_row(path: Path, *, units: int, rounds: int, bar: float = SUPPLY_BAR) -> dict[str, Any]:
    """Return how many tiles of 256 px we supply on one core, and OpenSlide."""
    pyramid = open_pyramid(path, cache_bytes=0)
    plan = FirstUnits(all_tiles(pyramid), units)
    with one_core():
        supply_ours(pyramid, FirstUnits(plan.plan, 1))  # compiles what has to be compiled
        ours, theirs = rates([lambda: supply_ours(pyramid, plan), lambda: supply_openslide(path, plan)], rounds=rounds)
    return make_row(
        "tile supply, one core",
        ours,
        "tiles/s",
        rival=("OpenSlide read_region", theirs),
        bar=at_least(bar),
        note=f"{len(plan)} tiles of {TILE_PX} px that straddle the stored tiles of 240 px; both caches off, opening "
        "OpenSlide included, its conversion from RGBA to RGB left out",
    )


def null_row(
    path: Path, *, rounds: int, bar: float = NULL_BAR, tile_px: int | None = None, profile: str = f"local:{CORES}"
) -> dict[str, Any]:
    """Return the rate of the engine that computes and stores nothing, and of the bare decoder.

    With `tile_px` other than the stored tiles', those at the edges of super-tiles are decoded twice. Processes are the
    default here, since the threads of one interpreter wait for each other between two tiles.
    """
    pyramid = open_pyramid(path, cache_bytes=0)
    bare = BareDecoder.open(path)
    tile_px = tile_px or bare.tile_px
    plan = all_tiles(pyramid, tile_px)

    with open_client(profile) as client:

        def ours() -> float:
            events = run_engine(client, pyramid, plan)
            receipts = [event.receipt for event in events if event.receipt is not None]
            if sum(receipt.bytes_read for receipt in receipts) < int(bare.lengths.sum()):
                raise RuntimeError("fewer bytes were read than the tiles have: something was not decoded")
            return bare.pixels / 1e6

        run_engine(client, pyramid, plan)  # compiles what has to be compiled
        found = rates([ours, lambda: bare.run(CORES) / 1e6], rounds=rounds)
    return make_row(
        f"null pipeline, tiles of {tile_px} px, {profile}",
        found[0],
        "Mpx/s",
        rival=("bare decoder", found[1]),
        bar=at_least(bar),
        note=f"{bare.pixels / 1e9:.2f} Gpx, {len(bare.offsets)} stored tiles decoded, {len(plan)} tiles of "
        f"{tile_px} px through engine, receipts and a stage that looks at one pixel; the bare decoder reads at the "
        f"offsets and decodes into a buffer in {CORES} threads; start of the client left out",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        path = write_gigapixel(Path(folder) / "slide.svs", shape_of(GIGAPIXELS))
        threads = f"threads:{CORES}"
        others = [null_row(path, rounds=3, profile=threads), null_row(path, rounds=3, tile_px=TILE_PX, profile=threads)]
        unjudged = [{**row, "bar": None, "ok": None} for row in others]
        return [supply_row(path, units=4, rounds=3), null_row(path, rounds=3), *unjudged]
