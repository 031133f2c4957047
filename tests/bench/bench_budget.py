"""A slide under a budget of a tenth of its tiles beside the whole slide: time, pixels decoded, bytes read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client

from tests.bench.bench_supply import CORES
from tests.bench.contestants import all_tiles
from tests.bench.gigapixel import shape_of, write_gigapixel
from tests.bench.table import at_least, make_row, rates
from tilestream.cluster.client import open_client
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.report_rows import InputRow
from tilestream.pipelines.tokens import TokenChoice
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

GIGAPIXELS = 1.0
EDGE_PX = 6000
SHARE = 0.1
"""Of all tiles."""
TIME_BARS = {"planned": 3.0, "walked": 2.5}
"""Times the rate of the whole slide; a walk waits at the end of each level."""
PIXEL_BAR = 0.15
"""Pixels decoded as a share of what the whole slide takes: coarse levels and a thumbnail come on top of a tenth."""
BYTE_BAR = 0.4
"""Bytes read as a share of what the whole slide takes: what entropy chooses is what compresses least."""
NOTE = "a tenth of all tiles where entropy says, handcrafted; opening, planning, entropy map, store and report included"


def contestants(
    client: Client, path: Path, folder: Path, last: dict[str, InputRow]
) -> Mapping[str, Callable[[], float]]:
    """Return what embeds a slide with a budget, step by step, and whole, by name; `last` takes the rows of reports."""
    pyramid = open_pyramid(path, cache_bytes=0)
    budget, mpx = int(SHARE * len(all_tiles(pyramid))), pyramid.levels[0].shape.area / 1e6
    number = count()
    choices = {
        "planned": TokenChoice(budget=budget),
        "walked": TokenChoice(budget=budget, is_progressive=True),
        "all": None,
    }

    def contestant(name: str, tokens: TokenChoice | None) -> Callable[[], float]:
        def run() -> float:
            last[name] = _embedded(client, path, folder / f"out-{next(number)}", tokens)
            return mpx

        return run

    return {name: contestant(name, tokens) for name, tokens in choices.items()}


def speed_rows(path: Path, folder: Path, *, rounds: int, slack: float = 1.0) -> list[dict[str, Any]]:
    """Return the rates of `embed` with and without a budget, and the pixels decoded; bars are eased by `slack`."""
    last: dict[str, InputRow] = {}
    with open_client(f"threads:{CORES}") as client:
        runs = contestants(client, path, folder, last)
        for name in TIME_BARS:
            runs[name]()  # compiles what has to be compiled
        found = dict(zip(runs, rates(list(runs.values()), rounds=rounds), strict=True))
    made = []
    for name, bar in TIME_BARS.items():
        what, rival = f"embed with a budget of a tenth, {name}, two cores", ("all tiles", found["all"])
        made.append(make_row(what, found[name], "Mpx/s", rival=rival, bar=at_least(bar * slack), note=NOTE))
        made.append(_read_row(what, "Mpx decoded", _decoded_mpx, (last[name], last["all"]), slack=slack))
    return made


def read_rows(path: Path, folder: Path, *, slack: float = 1.0) -> list[dict[str, Any]]:
    """Return the bytes that are read with and without a budget; bars are eased by `slack`."""
    last: dict[str, InputRow] = {}
    with open_client(f"threads:{CORES}") as client:
        for run in contestants(client, path, folder, last).values():
            run()
    return [
        _read_row(
            f"embed with a budget of a tenth, {name}", "MB read", _read_mb, (last[name], last["all"]), slack=slack
        )
        for name in TIME_BARS
    ]


def _read_row(
    what: str, unit: str, amount: Callable[[InputRow], float], pair: tuple[InputRow, InputRow], *, slack: float
) -> dict[str, Any]:
    ours, whole = map(amount, pair)
    most = PIXEL_BAR if amount is _decoded_mpx else BYTE_BAR
    return make_row(f"{what}: {unit}", ours, unit.split()[0], rival=("all tiles", whole), bar=(0.0, most / slack))


def _embedded(client: Client, path: Path, out: Path, tokens: TokenChoice | None) -> InputRow:
    config = EmbedConfig(out=out, where="all", cache_bytes=0, tokens=tokens)
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
    with TemporaryDirectory() as text:
        folder = Path(text)
        large = write_gigapixel(folder / "large.svs", shape_of(GIGAPIXELS))
        made = write_slide(folder / "made.svs", Shape(y=EDGE_PX, x=EDGE_PX), seed=3)
        return [*speed_rows(large, folder / "large", rounds=2), *read_rows(made, folder / "made")]
