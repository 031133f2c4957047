"""Trains heads on the features of a cohort: what `tilestream train head` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tilestream import __version__
from tilestream.codecs.durable import write_durable
from tilestream.errors import ConfigError
from tilestream.models.head import BagLevel, HeadRecord, save_head
from tilestream.pipelines.train_cohort import TrainingSet, planned_folds, training_set
from tilestream.pipelines.train_folder import claimed
from tilestream.pipelines.train_folds import Fold
from tilestream.pipelines.train_plot import head_picture
from tilestream.pipelines.train_results import (
    EpochRow,
    FoldResult,
    as_json,
    epochs_csv,
    predictions_csv,
    summary,
)
from tilestream.pipelines.train_scores import area, balanced_accuracy
from tilestream.torch.bags import BagFeed
from tilestream.torch.train_head import Epoch, Examples, HeadSettings, HeadTraining

MEAN_FIRST = frozenset({"mean", "simlp"})
"""Aggregators that begin with the mean of a bag: of all tiles it stands in the store."""
MODEL, METRICS, EPOCHS, PREDICTIONS, PICTURE = (
    "model.safetensors",
    "metrics.json",
    "metrics.csv",
    "predictions.csv",
    "metrics.png",
)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What is trained, on what, and where it goes."""

    features: Path
    """Folder that `tilestream embed` was given as `--out`."""
    labels: Path
    """Table of labels."""
    out: Path
    """Folder of the results."""
    encoder: str | None = None
    """Which features, where there are several sets."""
    level: BagLevel = "tile"
    """Whether bags are of tiles or of regions."""
    folds: int = 5
    """Parts of the cross-validation."""
    settings: HeadSettings = field(default_factory=HeadSettings)
    """How each head is trained."""
    keep_bytes: int = 1 << 30
    """Memory for bags that are not read again each epoch."""
    resume: bool = True
    """Whether an earlier run is gone on with."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError.of("`--folds`", got=self.folds, expected="2 or more", do="Correct it.")


@dataclass(frozen=True, kw_only=True)
class FoldEpoch:
    """Event: an epoch has ended."""

    fold: str
    """Name of the fold."""
    number: int
    """Which of the trainings, from 0."""
    total: int
    """How many trainings there are."""
    epoch: Epoch
    """What it has come to."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadOutcome:
    """What a run has trained."""

    data: TrainingSet
    """What it was trained on."""
    folds: tuple[FoldResult, ...]
    """All trainings."""
    document: dict[str, Any]
    """What `metrics.json` holds."""
    out: Path
    """Folder of the results."""


Hear = Callable[[FoldEpoch | FoldResult | TrainingSet], None]


def run_head(config: HeadConfig, *, on_event: Hear = lambda _: None) -> HeadOutcome:
    """Train a head for each fold and one on all slides, and return how good they are.

    Parameters
    ----------
    config : HeadConfig
        What, on what and where.
    on_event : callable
        Told of the slides, each epoch and each fold; may raise to stop.

    Returns
    -------
    HeadOutcome
        After all files are written: heads, metrics, predictions, picture.

    Raises
    ------
    ConfigError
        When features, labels and options do not fit each other, or the folder holds another training.
    StageError
        When features are not finite, or a training diverges.
    """
    means = config.level == "tile" and config.settings.aggregator in MEAN_FIRST
    only_means = means and config.settings.tiles_per_bag is None
    data = training_set(
        config.features, config.labels, encoder=config.encoder, level=config.level, only_means=only_means
    )
    plan = planned_folds(data, folds=config.folds, seed=config.settings.seed)
    on_event(data)
    recipe = _recipe(config, data)
    with claimed(config.out, recipe, resume=config.resume) as digest:
        trainer = _Trainer(config, data, digest, on_event, total=len(plan))
        results = tuple(trainer.train(number, fold) for number, fold in enumerate(plan))
        document = _document(config, data, results)
        trainer.save_heads(plan, results, document)
        _write(config.out, data, results, document)
    return HeadOutcome(data=data, folds=results, document=document, out=config.out)


def _recipe(config: HeadConfig, data: TrainingSet) -> dict[str, Any]:
    """Return all that the results follow from."""
    return {
        "version": __version__,
        "level": config.level,
        "folds": config.folds,
        "settings": asdict(config.settings) | {"params": config.settings.chosen_params},
        "features": data.features["digest"],
        "examples": [
            [slide, data.classes[label], int(group), split, content]
            for slide, label, group, split, content in zip(
                data.slides, data.labels, data.groups, data.splits, data.contents, strict=True
            )
        ],
    }


class _Trainer:
    """Trains one fold after the other on one set, whose bags it keeps in memory as far as they fit."""

    def __init__(self, config: HeadConfig, data: TrainingSet, recipe: str, on_event: Hear, *, total: int) -> None:
        from tilestream.models.runners import torch_device

        self._config = config
        self._data = data
        self._recipe = recipe
        self._on_event = on_event
        self._total = total
        self._feed = BagFeed(data.bags, device=torch_device(), keep_bytes=config.keep_bytes)
        self._heads: dict[str, Any] = {}

    def train(self, number: int, fold: Fold) -> FoldResult:
        """Return the result of one fold."""
        data = self._data
        training = HeadTraining(
            data.bags,
            feed=self._feed,
            settings=self._config.settings,
            classes=len(data.classes),
            state=self._config.out / "state" / f"{fold.name}.pt",
            recipe=self._recipe,
            fold=number,
        )

        def hear(epoch: Epoch) -> None:
            self._on_event(FoldEpoch(fold=fold.name, number=number, total=self._total, epoch=epoch))

        fitted = training.fit(self._examples(fold.train), self._examples(fold.val), hear=hear)
        self._heads[fold.name] = fitted.head
        probabilities = training.predict(fitted, [int(n) for n in data.numbers[fold.test]])
        labels, is_tested = data.labels[fold.test], len(fold.test) > 0
        result = FoldResult(
            name=fold.name,
            sizes=(len(fold.train), len(fold.val), len(fold.test)),
            epochs=tuple(EpochRow(fold=fold.name, **vars(epoch)) for epoch in fitted.epochs),
            test=fold.test,
            probabilities=probabilities,
            area=area(probabilities, labels, data.groups[fold.test]) if is_tested else None,
            balanced_accuracy=balanced_accuracy(np.argmax(probabilities, 1), labels) if is_tested else None,
        )
        self._on_event(result)
        return result

    def save_heads(self, plan: tuple[Fold, ...], results: tuple[FoldResult, ...], document: dict[str, Any]) -> None:
        """Write the head of each fold, and as the model that of the last training, which saw most."""
        for fold, result in zip(plan, results, strict=True):
            is_model = fold is plan[-1]
            record = self._record(result, document["summary"] if is_model else {})
            path = self._config.out / (MODEL if is_model else f"folds/{fold.name}.safetensors")
            save_head(path, self._heads[fold.name], record)
            if is_model:
                write_durable(path.with_suffix(".json"), as_json(asdict(record)))

    def _record(self, result: FoldResult, known: dict[str, Any]) -> HeadRecord:
        data, settings = self._data, self._config.settings
        return HeadRecord(
            aggregator=settings.aggregator,
            params=settings.chosen_params,
            dim=data.bags.dim,
            labels=data.classes,
            level=data.level,
            encoder=data.encoder,
            features=data.features,
            training={
                "version": __version__,
                "recipe": self._recipe,
                **result.document(),
                **({"cross_validation": known} if known else {}),
            },
        )

    def _examples(self, places: Any) -> Examples:
        return Examples(numbers=self._data.numbers[places], labels=self._data.labels[places])


def _document(config: HeadConfig, data: TrainingSet, results: tuple[FoldResult, ...]) -> dict[str, Any]:
    return {
        "encoder": data.encoder,
        "level": data.level,
        "dim": data.bags.dim,
        "settings": asdict(config.settings) | {"params": config.settings.chosen_params},
        "classes": data.counts(),
        "patients": len(np.unique(data.groups)) if data.is_grouped else None,
        "left_out": {reason: list(names) for reason, names in data.left_out.items()},
        "summary": summary(results),
        "folds": [result.document() for result in results],
        "notes": list(data.notes),
    }


def _write(out: Path, data: TrainingSet, results: tuple[FoldResult, ...], document: dict[str, Any]) -> None:
    write_durable(out / EPOCHS, epochs_csv(results))
    write_durable(out / PREDICTIONS, predictions_csv(results, data.slides, data.labels, data.classes))
    write_durable(out / PICTURE, head_picture(results, data.labels, data.classes))
    write_durable(out / METRICS, as_json(document))
