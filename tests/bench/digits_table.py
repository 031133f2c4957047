"""Means and deviations over seeds, as a table and as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.bench.baselines import BUDGETS, FROM_FIELDS, FULL, LEARNED, STAGED, THUMBNAIL, TREE
from tests.bench.digits_measure import TIMED, Measured

SHOWN = {
    LEARNED: ("C3", "-"),
    LEARNED + TREE: ("C1", "--"),
    FROM_FIELDS: ("C3", ":"),
    "entropy": ("C0", "-"),
    "gradient": ("C0", "--"),
    "residual": ("C2", "-"),
    "itti": ("C2", "--"),
    "uniform": ("0.3", "-"),
    "random": ("0.3", ":"),
    STAGED: ("C5", "-"),
}
"""Colour and line of each way in the plot."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A mean over seeds, with their standard deviation."""

    mean: float
    """Mean."""
    sd: float
    """Sample standard deviation; 0 for one seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Return mean and deviation of some values."""
        return cls(mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)) if len(values) > 1 else 0.0)

    def text(self, digits: int = 1, factor: float = 1.0) -> str:
        """Return `mean ± sd`."""
        return f"{self.mean * factor:.{digits}f} ± {self.sd * factor:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """All that was measured."""

    measured: tuple[Measured, ...]
    """One of each way, budget and seed."""

    def of(self, way: str, share: float, what: str) -> Figure:
        """Return a figure of a way at a budget: a field of `Measured`, `enrichment` or `megabytes`."""
        return Figure.of([_value(one, what) for one in self.rows(way, share)])

    def rows(self, way: str, share: float) -> list[Measured]:
        """Return what was measured of a way at a budget, by seed."""
        return sorted((one for one in self.measured if one.way == way and one.share == share), key=lambda one: one.seed)

    def lost(self, way: str, share: float) -> Figure:
        """Return by how many points the accuracy is below that of the full pass, canvas by canvas."""
        pairs = zip(self.rows(FULL, 1.0), self.rows(way, share), strict=True)
        return Figure.of([100 * (full.accuracy - one.accuracy) for full, one in pairs])

    def faster(self, way: str, share: float = TIMED) -> Figure:
        """Return how many times as fast as the full pass a way is, canvas by canvas."""
        pairs = zip(self.rows(FULL, 1.0), self.rows(way, share), strict=True)
        return Figure.of([(full.seconds or np.nan) / (one.seconds or np.nan) for full, one in pairs])

    @property
    def ways(self) -> list[str]:
        """Return the ways that choose tiles, in the order in which they were measured."""
        return list(dict.fromkeys(one.way for one in self.measured if one.way not in (FULL, THUMBNAIL)))


def _value(one: Measured, what: str) -> float:
    if what == "enrichment":
        return one.recall / one.share
    if what == "megabytes":
        return one.bytes_read / 1e6
    if what == "seconds":
        return np.nan if one.seconds is None else one.seconds
    return float(getattr(one, what))


def markdown(summary: Summary) -> str:
    """Return the table of all ways at all budgets."""
    lines = [
        "| way | read, % of fine tiles | recall, % | enrichment | fields answered rightly, % | pixels decoded, % "
        "| bytes read, MB | seconds, one core | times as fast |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    wanted = [(FULL, 1.0), (THUMBNAIL, 0.0), *((way, share) for way in summary.ways for share in BUDGETS)]
    for way, share in wanted:
        timed = share in (TIMED, 0.0, 1.0)
        cells = [
            way,
            f"{share * 100:g}",
            summary.of(way, share, "recall").text(1, 100),
            summary.of(way, share, "enrichment").text() if share else "",
            summary.of(way, share, "accuracy").text(1, 100),
            summary.of(way, share, "pixels").text(2, 100),
            summary.of(way, share, "megabytes").text(1),
            summary.of(way, share, "seconds").text(2) if timed else "",
            summary.faster(way, share).text() if timed else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(summary: Summary, folder: Path, about: str) -> list[Path]:
    """Write table, figures as JSON and plot, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, data, picture = (folder / f"digits.{suffix}" for suffix in ("md", "json", "png"))
    table.write_text(f"# Digits on canvases of a gigapixel\n\n{about}\n\n{markdown(summary)}\n")
    data.write_text(json.dumps([asdict(one) for one in summary.measured], indent=1) + "\n")
    plot(summary, picture)
    return [table, data, picture]


def plot(summary: Summary, path: Path) -> None:
    """Draw recall and accuracy over the share that is read, and the time that it takes."""
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(13, 5), layout="constrained")
    recall, answers, cost = figure.subplots(1, 3)
    x = np.array(BUDGETS) * 100
    for way in summary.ways:
        colour, line = SHOWN[way]
        for axes, what in ((recall, "recall"), (answers, "accuracy")):
            found = [summary.of(way, share, what) for share in BUDGETS]
            mean, sd = (np.array([getattr(one, name) for one in found]) * 100 for name in ("mean", "sd"))
            axes.errorbar(x, mean, sd, color=colour, linestyle=line, marker="o", markersize=3, capsize=2, label=way)
    recall.plot([0, 20], [0, 20], color="0.8", zorder=0, label="chance")
    recall.set(xlabel="fine tiles read, %", ylabel="digits that matter found, %", ylim=(0, 102))
    figure.legend(*recall.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    for way, share, colour in ((FULL, 1.0, "k"), (THUMBNAIL, 0.0, "C4")):
        mean = summary.of(way, share, "accuracy").mean * 100
        answers.axhline(mean, color=colour, linewidth=1, linestyle="-.")
        answers.annotate(way, (0.99, mean), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7)
    answers.set(xlabel="fine tiles read, %", ylabel="fields answered rightly, %", ylim=(20, 102))
    names = [(FULL, 1.0), *((way, TIMED) for way in summary.ways)]
    found = [summary.of(way, share, "seconds") for way, share in names]
    colours = ["k", *(SHOWN[way][0] for way in summary.ways)]
    cost.barh([way for way, _ in names], [one.mean for one in found], xerr=[one.sd for one in found], color=colours)
    cost.invert_yaxis()
    cost.set(xlabel=f"seconds a canvas on one core, {TIMED:.0%} of fine tiles")
    figure.savefig(path, dpi=110, metadata={"Software": None})
