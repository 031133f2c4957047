"""Does reading a tenth of the pixels give the answers of all of them? Digits on canvases of a gigapixel, five seeds.

The question, the canvases and what is fair about them: `tests.bench.canvas`. All ways of choosing tiles share one
classifier of fine tiles and one rule of answering, chosen by the full pass on a tune canvas.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.baselines import FULL, LEARNED, THUMBNAIL
from tests.bench.digits_measure import TIMED, measure
from tests.bench.digits_seed import Size, prepare
from tests.bench.digits_table import Summary, write
from tests.bench.table import at_least, make_row

SEEDS = (0, 1, 2, 3, 4)
PROCESSES = 2
"""Seeds that are made ready at once; what is measured is alone."""
ENRICHMENT_BAR = 9.0
LOST_BAR = 1.0
"""Points of accuracy."""
PIXELS_BAR = 12.0
"""Per cent."""
SPEED_BAR = 5.0


def summary_of(seeds: Sequence[int], size: Size, *, processes: int = PROCESSES) -> Summary:
    """Return what all ways find on the test canvases of some seeds."""
    with TemporaryDirectory() as folder:
        ready = partial(prepare, folder=Path(folder), size=size)
        if processes == 1:
            prepared = list(map(ready, seeds))
        else:
            # spawned: a fork would inherit locks of the threads that torch and numba have started
            with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
                prepared = list(pool.map(ready, seeds))
        found = [measure(each, is_first=number == 0) for number, each in enumerate(prepared)]
    return Summary(measured=tuple(one for each in found for one in each))


def digits_rows(summary: Summary, *, share: float = 1.0) -> list[dict[str, Any]]:
    """Return the rows of the table.

    Parameters
    ----------
    summary : Summary
        What was measured.
    share : float
        Of the bars that is asked for.

    Returns
    -------
    list of dict
        Those with bars first.
    """
    found = summary.of(LEARNED, TIMED, "enrichment")
    full, ours = summary.of(FULL, 1.0, "accuracy"), summary.of(LEARNED, TIMED, "accuracy")
    lost, pixels = summary.lost(LEARNED, TIMED), summary.of(LEARNED, TIMED, "pixels")
    all_in = summary.of(LEARNED, TIMED, "recall").mean / pixels.mean
    slow, fast = summary.of(FULL, 1.0, "seconds"), summary.of(LEARNED, TIMED, "seconds")
    thumbnail = summary.of(THUMBNAIL, 0.0, "accuracy")
    rows = [
        make_row(
            "digits: enrichment at 10 %, learned scorer", found.mean, "times", bar=at_least(share * ENRICHMENT_BAR),
            note=f"± {found.sd:.1f} over {_seeds(summary)}; recall of digits that matter over the share of tiles read, "
            f"{all_in:.1f} over the share of pixels decoded, the coarse look included",
        ),
        make_row(
            "digits: accuracy lost at 10 %, learned scorer", lost.mean, "points", bar=(-100.0, LOST_BAR / share),
            note=f"± {lost.sd:.1f}; full pass {full.text(1, 100)} %, a tenth {ours.text(1, 100)} %, the coarse level "
            f"alone {thumbnail.text(1, 100)} % of fields",
        ),
        make_row(
            "digits: pixels decoded at 10 %", 100 * pixels.mean, "%", bar=(0.0, PIXELS_BAR / share),
            note="counted at the source, the coarse look included; "
            f"{summary.of(LEARNED, TIMED, 'megabytes').mean:.1f} of "
            f"{summary.of(FULL, 1.0, 'megabytes').mean:.1f} MB",
        ),
        make_row(
            "digits: a gigapixel at 10 %, one core", 1 / fast.mean, "canvases/s", rival=("full pass", 1 / slow.mean),
            bar=at_least(share * SPEED_BAR),
            note=f"from opening the file to the evidence of its tiles: {fast.text(2)} s and {slow.text(2)} s",
        ),
    ]  # fmt: skip
    for way in summary.ways:
        enrichment, right = summary.of(way, TIMED, "enrichment"), summary.of(way, TIMED, "accuracy")
        note = f"± {enrichment.sd:.2f}; {right.text(1, 100)} % of fields, {summary.of(way, TIMED, 'seconds').text(2)} s"
        rows.append(make_row(f"digits: enrichment at 10 %, {way}", enrichment.mean, "times", note=note))
    return rows[:4] + rows[5:]


@cache
def _everything() -> Summary:
    return summary_of(SEEDS, Size())


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return digits_rows(_everything())


def draw(folder: Path) -> list[Path]:
    """Write table and plot of all ways and budgets, and return their paths."""
    about = (
        "What is asked and why it is fair: `tests/bench/canvas.py`. Mean and standard deviation over "
        f"{_seeds(_everything())}, {_answers()} answers. Recall is that of digits that matter; enrichment is recall "
        "over the share of fine tiles that are read; pixels and bytes are counted at the source, the coarse look "
        "included. Rebuild it by `make bench`, or `python -m tests.bench.run digits`."
    )
    return write(_everything(), folder, about)


def _answers() -> int:
    size = Size()
    return len(SEEDS) * size.test[0] * size.test[1]


def _seeds(summary: Summary) -> str:
    return f"{len(summary.rows(FULL, 1.0))} seeds"
