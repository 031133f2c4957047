"""Pictures of a training: its losses, and how good its predictions are; drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilestream.pipelines.train_results import FoldResult
from tilestream.torch.train_dino import DinoEpoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
BANDS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of Okabe and Ito, which colour-blind readers tell apart."""
MOST_NAMED = 10
"""Folds or classes of which a legend is of use."""


def head_picture(folds: Sequence[FoldResult], labels: npt.NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """Return a PNG of the losses of all folds, their ROC curves, and the areas under these.

    Parameters
    ----------
    folds : sequence of FoldResult
        All trainings.
    labels : ndarray of int64
        Class of each example.
    classes : sequence of str
        Name of each class.

    Returns
    -------
    bytes
        The same for the same results.
    """
    figure = _figure(width=14)
    losses, curves, areas = figure.subplots(1, 3)
    for number, fold in enumerate(folds):
        colour = BANDS[number % len(BANDS)]
        at = [row.epoch for row in fold.epochs]
        losses.plot(at, [row.train_loss for row in fold.epochs], color=colour, alpha=0.35, lw=1)
        losses.plot(at, [row.val_loss for row in fold.epochs], color=colour, lw=1.6, label=_fold_name(fold))
        losses.plot(fold.best.epoch, fold.best.val_loss, "o", color=colour, ms=5)
    _finish(losses, "epoch", "cross-entropy", "validation; training pale; dots: kept")
    losses.set_ylim(bottom=0)
    tested = [fold for fold in folds if fold.area is not None]
    _draw_curves(curves, tested, labels, classes)
    _draw_areas(areas, tested)
    return _png(figure)


def dino_picture(epochs: Sequence[DinoEpoch], *, prototypes: int) -> bytes:
    """Return a PNG of the loss of a training without labels, and of what would show that it has collapsed.

    Parameters
    ----------
    epochs : sequence of DinoEpoch
        All epochs.
    prototypes : int
        Length of what teacher and student agree on.

    Returns
    -------
    bytes
        The same for the same results.
    """
    figure = _figure(width=10)
    losses, measures = figure.subplots(1, 2)
    at = [one.epoch for one in epochs]
    losses.plot(at, [one.loss for one in epochs], color=BANDS[0], lw=1.6)
    losses.axhline(np.log(prototypes), color="0.7", lw=1, ls="--", label="even guesses")
    _finish(losses, "epoch", "cross-entropy", "student against teacher")
    for number, (name, words) in enumerate(
        (
            ("spread", "spread of vectors (0: all one)"),
            ("usage", "evenness over regions (0: one answer for all)"),
            ("sharpness", "evenness for a region (1: no answer)"),
        )
    ):
        values = [getattr(one, name) for one in epochs]
        measures.plot(at, values, color=BANDS[number], lw=1.6, label=words)
    measures.set_ylim(0, 1.05)
    _finish(measures, "epoch", "", "what the teacher says")
    return _png(figure)


def _draw_curves(
    axes: Axes, folds: Sequence[FoldResult], labels: npt.NDArray[np.int64], classes: Sequence[str]
) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", lw=1, ls="--")
    if len(classes) == 2:
        for number, fold in enumerate(folds):
            x, y = _roc(fold.probabilities[:, 1], labels[fold.test] == 1)
            axes.plot(x, y, color=BANDS[number % len(BANDS)], lw=1.6, label=_fold_name(fold), drawstyle="steps-post")
        _finish(
            axes, f"share of `{classes[0]}` taken for `{classes[1]}`", f"share of `{classes[1]}` found", "tested slides"
        )
        return
    for number, name in enumerate(classes):
        pooled = np.concatenate([fold.probabilities[:, number] for fold in folds])
        positive = np.concatenate([labels[fold.test] == number for fold in folds])
        x, y = _roc(pooled, positive)
        axes.plot(x, y, color=BANDS[number % len(BANDS)], lw=1.6, label=name, drawstyle="steps-post")
    _finish(axes, "share of the others taken for it", "share found", "each class against the rest, all folds")


def _draw_areas(axes: Axes, folds: Sequence[FoldResult]) -> None:
    for number, fold in enumerate(folds):
        if fold.area is None:
            continue
        place, one = len(folds) - number, fold.area
        axes.plot([one.low, one.high], [place, place], color=BANDS[number % len(BANDS)], lw=2)
        axes.plot(one.value, place, "o", color=BANDS[number % len(BANDS)], ms=7)
        axes.annotate(f"{one.value:.3f}", (one.value, place), (0, 7), textcoords="offset points", ha="center")
    mean = float(np.mean([fold.area.value for fold in folds if fold.area is not None]))
    axes.axvline(mean, color="0.3", lw=1, ls=":")
    axes.axvline(0.5, color="0.7", lw=1, ls="--")
    axes.set_yticks([len(folds) - n for n in range(len(folds))], [_fold_name(fold) for fold in folds])
    axes.set_ylim(0.4, len(folds) + 0.8)
    axes.set_xlim(right=1.02)
    _finish(axes, "AUC, 95 % interval", "", f"mean {mean:.3f}")


def _fold_name(fold: FoldResult) -> str:
    return f"fold {fold.name}" if fold.name.isdigit() else fold.name


def _roc(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
    """Return the shares of negatives and positives at or above each score, from none to all."""
    values = np.unique(scores)[::-1]
    shares = []
    for of in (scores[~positive], scores[positive]):
        above = len(of) - np.searchsorted(np.sort(of), values, side="left")
        shares.append(np.concatenate([[0.0], above / len(of)]))
    return shares[0], shares[1]


def _figure(*, width: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: nothing global, no display

    return Figure(figsize=(width, 4.4), layout="constrained")


def _finish(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if 0 < len(axes.get_legend_handles_labels()[0]) <= MOST_NAMED:
        axes.legend(frameon=False, fontsize=8)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})  # which would name a version
    return buffer.getvalue()
