"""Foveated against uniform at equal tokens: the founding claim "3 % more, or stop", with a fixation from a query.

Each canvas becomes 85 tokens of 16 x 16 px, whole trees in which coarse squares stay when finer ones are read inside:

    uniform             1 + 4 + 16 + 64, the tree down to level 2: no square is finer than its neighbour
    foveated, query     around the place that resembles an example most at level 3, where a canvas has 64 x 64 px
    foveated, random    around any place: what a wrong fixation costs
    foveated, told      around the middle of the digit: what a perfect query would give

All read by one frozen encoder and by readers that are trained the same way from the same seed on the same canvases.
Two questions: which digit stands on the plate that was asked for (one place matters), and which class is the most
frequent of the canvas (all places matter). Digits to train and to test with are disjoint; five seeds choose digits,
canvases, weights and order; differences are tested in pairs by seed (Student).
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from tests.bench.fixations import BUDGET, WAYS, Sample, Way, sample
from tests.bench.platecanvas import SIZES_PX, split
from tests.bench.table import make_row
from tests.bench.tokenreader import accuracy, describe, train_encoder
from tilestream.stream.supply import usable_cores

SEEDS = 5
TRAIN, TEST = 900, 450
CLAIM = 0.03
"""The founding claim, of the share of canvases that are read right."""
ENCODER_STEPS, EPOCHS = 1500, 30
Question: TypeAlias = Literal["wanted", "frequent"]
QUESTIONS: tuple[Question, ...] = ("wanted", "frequent")
Shares: TypeAlias = dict[tuple[Question, Way], npt.NDArray[np.float64]]
"""Of canvases that are read right, by size of the digits."""
WORDS = {"wanted": "the digit that was asked for", "frequent": "the most frequent digit"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """Shares of canvases that are read right."""

    right: dict[tuple[Question, Way], npt.NDArray[np.float64]]
    """`(seeds, sizes)` by question and way of choosing tokens."""
    found: npt.NDArray[np.float64]
    """`(seeds, sizes)` fixations of the query that lie on the plate."""
    seconds: float
    """Of all."""

    def gain(self, question: Question, way: Way, size: int | None = None) -> tuple[float, float, float]:
        """Return mean and deviation over seeds of what a way is better than uniform, and p of the paired test."""
        ours, uniform = self.right[question, way], self.right[question, "uniform"]
        pick = slice(None) if size is None else slice(size, size + 1)
        gains = (ours - uniform)[:, pick].mean(axis=1)
        spread = float(gains.std(ddof=1)) if len(gains) > 1 else float("nan")
        p = float(stats.ttest_1samp(gains, 0).pvalue) if len(gains) > 1 and spread > 0 else float("nan")
        return float(gains.mean()), spread, p


def measure(
    *, seeds: int = SEEDS, train: int = TRAIN, test: int = TEST, effort: float = 1.0, processes: int = 1
) -> Outcome:
    """Return what readers of equal tokens get right.

    Parameters
    ----------
    seeds : int
        How often all is done anew.
    train, test : int
        Canvases of each; multiples of three.
    effort : float
        Of the training, as a share of `ENCODER_STEPS` and `EPOCHS`.
    processes : int
        Seeds that run at once; changes nothing but the time.

    Returns
    -------
    Outcome
        The same for the same arguments and versions, up to rounding.
    """
    start = time.perf_counter()
    run = partial(_measure, train=train, test=test, effort=effort)
    if processes == 1:
        runs = [run(seed) for seed in range(seeds)]
    else:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            runs = list(pool.map(run, range(seeds)))
    keys = [(question, way) for question in QUESTIONS for way in WAYS]
    return Outcome(
        right={key: np.stack([right[key] for right, _ in runs]) for key in keys},
        found=np.stack([found for _, found in runs]),
        seconds=time.perf_counter() - start,
    )


def _measure(seed: int, *, train: int, test: int, effort: float) -> tuple[Shares, npt.NDArray[np.float64]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks of this size are slower with more
    try:
        return _of_seed(seed, train, test, effort)
    finally:
        torch.set_num_threads(threads)


def _of_seed(seed: int, train: int, test: int, effort: float) -> tuple[Shares, npt.NDArray[np.float64]]:
    learn, judge = split(seed)
    seen = sample(train, learn, seed=10_000 + 100 * seed)
    new = sample(test, judge, seed=20_000 + 100 * seed, examples_from=learn)
    encoder = train_encoder(list(seen.tokens.values()), seed=seed, steps=round(effort * ENCODER_STEPS))
    right = {}
    for way in WAYS:
        ours, theirs = describe(encoder, seen.tokens[way]), describe(encoder, new.tokens[way])
        for question in QUESTIONS:
            answers, expected = getattr(seen, question), getattr(new, question)
            read = accuracy(
                (*ours, answers), (*theirs, expected), seed=seed, epochs=round(effort * EPOCHS)
            )  # fmt: skip
            right[question, way] = _by_size(read, new)
    return right, _by_size(new.found, new)


def _by_size(values: npt.NDArray[np.bool_], where: Sample) -> npt.NDArray[np.float64]:
    return np.array([values[where.size_px == size].mean() for size in SIZES_PX])


def claim_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """Return a row for each question and foveated way, and for each size with the fixation of the query."""
    found = [_row(outcome, question, way, None) for question in QUESTIONS for way in WAYS[1:]]
    return found + [_row(outcome, "wanted", "query", size) for size in range(len(SIZES_PX))]


def _row(outcome: Outcome, question: Question, way: Way, size: int | None) -> dict[str, Any]:
    ours, uniform = (
        outcome.right[question, one] if size is None else outcome.right[question, one][:, size]
        for one in (way, "uniform")
    )
    gain, spread, p = outcome.gain(question, way, size)
    sizes = "" if size is None else f", {SIZES_PX[size]} px"
    by_size = ", ".join(
        f"{px} px {100 * outcome.right[question, way][:, at].mean():.1f} against "
        f"{100 * outcome.right[question, 'uniform'][:, at].mean():.1f}"
        for at, px in enumerate(SIZES_PX)
    )
    verdict = "not tested" if np.isnan(p) else "holds" if gain >= CLAIM and p < 0.05 else "does not hold"
    note = f"gain {100 * gain:+.1f} ± {100 * spread:.1f} points, p = {p:.2g}: + 3 points {verdict}"
    if size is None:
        note += f"; {by_size}"
    if way == "query":
        hits = outcome.found.mean() if size is None else outcome.found[:, size].mean()
        note += f"; {100 * hits:.0f} % of the fixations on the plate"
    return make_row(
        f"{WORDS[question]}{sizes}, {BUDGET} tokens, fovea {way}", 100 * float(ours.mean()), "% right",
        rival=(f"{BUDGET} tokens, uniform", 100 * float(uniform.mean())), note=note,
    )  # fmt: skip


@cache
def _everything() -> Outcome:
    return measure(processes=min(SEEDS, usable_cores()))


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    return claim_rows(_everything())


def draw(folder: Path) -> list[Path]:
    """Write the plot of what is read right by size of the digits, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    return [plot(_everything(), folder / "fixation.png")]


def plot(outcome: Outcome, path: Path) -> Path:
    """Draw shares of canvases that are read right, a panel a question; bars are deviations over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for panel, question in zip(figure.subplots(1, len(QUESTIONS)), QUESTIONS, strict=True):
        for number, way in enumerate(WAYS):
            right = 100 * outcome.right[question, way]
            spread = right.std(axis=0, ddof=1) if len(right) > 1 else None
            at = np.arange(len(SIZES_PX)) + 0.2 * (number - 1.5)
            name = way if way == "uniform" else f"fovea, {way}"
            panel.bar(at, right.mean(axis=0), 0.19, yerr=spread, label=name, color=("0.6", "C0", "C3", "C2")[number])
        panel.axhline(10, color="0.8", linewidth=1, zorder=0)
        panel.set_xticks(range(len(SIZES_PX)), [f"{size} px" for size in SIZES_PX])
        panel.set(title=WORDS[question], xlabel="edge of the digits, on 512 px", ylabel="read right, %", ylim=(0, 100))
    figure.axes[1].legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=100)
    return path
