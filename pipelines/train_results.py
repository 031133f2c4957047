"""What a training leaves for people and other programs: tables, JSON and a picture; no time, host or path in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream.pipelines.train_scores import Area
from tilestream.torch.train_dino import DinoEpoch
from tilestream.torch.train_head import Epoch

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """One epoch of one fold."""

    fold: str
    """Name of the fold."""
    epoch: int
    """From 1."""
    train_loss: float
    """Mean loss while it learned."""
    val_loss: float
    """Mean loss over the slides that it stops by."""
    is_best: bool
    """Whether the loss was the smallest so far."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldResult:
    """What became of one training."""

    name: str
    """Name of the fold."""
    sizes: tuple[int, int, int]
    """Slides that it learned from, stopped by and was tested on."""
    epochs: tuple[EpochRow, ...]
    """Its epochs."""
    test: Ints
    """Places of the tested examples."""
    probabilities: Floats
    """`(tested, classes)`."""
    area: Area | None
    """Area under the ROC curve of the test; None where nothing is tested."""
    balanced_accuracy: float | None
    """Mean share of each class that is recognised."""

    @property
    def best(self) -> EpochRow:
        """Return the epoch whose parameters are kept."""
        return [epoch for epoch in self.epochs if epoch.is_best][-1]

    def document(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        train, val, test = self.sizes
        return {
            "fold": self.name,
            "train": train,
            "val": val,
            "test": test,
            "epochs": len(self.epochs),
            "best_epoch": self.best.epoch,
            "val_loss": self.best.val_loss,
            "auc": None if self.area is None else vars(self.area),
            "balanced_accuracy": self.balanced_accuracy,
        }


def summary(folds: Sequence[FoldResult]) -> dict[str, Any]:
    """Return mean and standard deviation over the folds that were tested.

    Parameters
    ----------
    folds : sequence of FoldResult
        All.

    Returns
    -------
    dict
        `auc`, `auc_sd`, `balanced_accuracy`, `balanced_accuracy_sd` and `folds`; the deviation of one fold is None.
    """
    tested = [fold for fold in folds if fold.area is not None]
    values = {
        "auc": [fold.area.value for fold in tested if fold.area is not None],
        "balanced_accuracy": [fold.balanced_accuracy for fold in tested if fold.balanced_accuracy is not None],
    }
    found: dict[str, Any] = {"folds": len(tested)}
    for name, numbers in values.items():
        found[name] = float(np.mean(numbers))
        found[f"{name}_sd"] = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return found


def epochs_csv(folds: Sequence[FoldResult]) -> bytes:
    """Return the losses of all epochs as CSV."""
    rows = [(e.fold, e.epoch, repr(e.train_loss), repr(e.val_loss), int(e.is_best)) for f in folds for e in f.epochs]
    return _csv(("fold", "epoch", "train_loss", "val_loss", "is_best"), rows)


def predictions_csv(folds: Sequence[FoldResult], slides: Sequence[str], labels: Ints, classes: Sequence[str]) -> bytes:
    """Return a row for each tested slide: by a head that has never seen it, nor another slide of the patient.

    Parameters
    ----------
    folds : sequence of FoldResult
        All.
    slides : sequence of str
        Path of each example.
    labels : ndarray of int64
        Class of each example.
    classes : sequence of str
        Name of each class.

    Returns
    -------
    bytes
        CSV; `p_<class>` are probabilities.
    """
    rows = []
    for fold in folds:
        for place, own in zip(fold.test, fold.probabilities, strict=True):
            predicted = classes[int(np.argmax(own))]
            numbers = [repr(float(value)) for value in own]
            rows.append((slides[place], fold.name, classes[labels[place]], predicted, *numbers))
    names = ("slide", "fold", "label", "predicted", *(f"p_{name}" for name in classes))
    return _csv(names, sorted(rows))


def dino_csv(epochs: Sequence[DinoEpoch]) -> bytes:
    """Return the epochs of a training without labels as CSV."""
    rows = [(one.epoch, *map(repr, (one.loss, one.spread, one.sharpness, one.usage))) for one in epochs]
    return _csv(("epoch", "loss", "spread", "sharpness", "usage"), rows)


def scorer_csv(epochs: Sequence[Epoch]) -> bytes:
    """Return the losses of the epochs of a scorer as CSV."""
    rows = [(one.epoch, repr(one.train_loss), repr(one.val_loss), int(one.is_best)) for one in epochs]
    return _csv(("epoch", "train_loss", "val_loss", "is_best"), rows)


def as_json(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON that people can read."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _csv(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")
