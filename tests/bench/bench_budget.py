"""A slide under a budget of a tenth of its tiles beside the whole slide: time, pixels decoded, bytes read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client

from tests.bench.bench_supply import CORES
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.report_rows import InputRow
from tilestream.pipelines.tokens import TokenChoice
from tilestream.plan.tiles import plan_tiles
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

EDGE_PX = 12_000
SHARE = 0.1
"""Of the tiles with tissue."""
TIME_BARS = {"planned": 3.0, "walked": 2.0}
"""Times the rate of the whole slide; a walk waits at the end of each level."""
READ_BAR = 0.25
"""Pixels decoded and bytes read, as a share of what the whole slide takes: tissue and thumbnail are looked for too."""


def budget_rows(path: Path, folder: Path, *, rounds: int, slack: float = 1.0) -> list[dict[str, Any]]:
    """Return the rates of `embed` with and without a budget, and what each has read; bars are eased by `slack`."""
    pyramid = open_pyramid(path, cache_bytes=0)
    tiles, pixels = len(plan_tiles(pyramid, tile_px=256, mpp=0.5)), pyramid.levels[0].shape.area
    budget, number = int(SHARE * tiles), count()
    last: dict[str, InputRow] = {}

    with open_client(f"threads:{CORES}") as client:

        def contestant(name: str, tokens: TokenChoice | None) -> Callable[[], float]:
            def run() -> float:
                last[name] = _embedded(client, path, folder / f"out-{next(number)}", tokens)
                return pixels / 1e6

            return run

        walk = TokenChoice(budget=budget, is_progressive=True)
        contestants = [
            contestant("plan", TokenChoice(budget=budget)),
            contestant("walk", walk),
            contestant("all", None),
        ]
        for each in contestants[:2]:
            each()  # compiles what has to be compiled
        plan, walked, whole = rates(contestants, rounds=rounds)
    note = f"{pixels / 1e9:.2f} Gpx of {len(pyramid.levels)} levels, {budget:,} of {tiles:,} tiles with tissue; entropy"
    found = []
    for name, word, rate in (("plan", "planned", plan), ("walk", "walked", walked)):
        faster, less = at_least(TIME_BARS[word] * slack), (0.0, READ_BAR / slack)
        what = f"embed with a budget of a tenth, {word}, two cores"
        found.append(make_row(what, rate, "Mpx/s", rival=("all tiles", whole), bar=faster, note=note))
        for unit, amount in (("Mpx decoded", _decoded_mpx), ("MB read", _read_mb)):
            rival = ("all tiles", amount(last["all"]))
            found.append(make_row(f"{what}: {unit}", amount(last[name]), unit.split()[0], rival=rival, bar=less))
    return found


def _embedded(client: Client, path: Path, out: Path, tokens: TokenChoice | None) -> InputRow:
    config = EmbedConfig(out=out, cache_bytes=0, tokens=tokens)
    outcome = run_embed(read_cohort([str(path)], out=out), config, client=client)
    if outcome.exit_code(strict=True):
        raise RuntimeError(f"embed failed: {[row.reason for row in outcome.rows]}")
    return outcome.rows[0]


def _decoded_mpx(row: InputRow) -> float:
    return sum(row.pixels_decoded.values()) / 1e6


def _read_mb(row: InputRow) -> float:
    return row.bytes_read / 1e6


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        path = write_slide(Path(folder) / "slide.svs", Shape(y=EDGE_PX, x=EDGE_PX), seed=3)
        return budget_rows(path, Path(folder), rounds=3)
